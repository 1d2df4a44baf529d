"""Where a benchmark runs, and how it shows what it measured."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.sql import SQL, Identifier
from rich.console import Console
from rich.table import Table

from loreline import stack
from loreline.postgres import connect, upgrade
from loreline.settings import Settings


@dataclass(frozen=True)
class Measurement:
    """A figure beside the one that it is held against, measured in the same run.

    Attributes:
        name: what was measured, and in which unit.
        value: the figure.
        reference: what a bare tool does with the same input, or None where a limit is all there is.
        target: for the ratio to the reference, or for the value itself: at least, or, when
            `is_limit`, at most so much.
    """

    name: str
    value: float
    reference: float | None = None
    target: float | None = None
    is_limit: bool = False

    @property
    def ratio(self) -> float | None:
        """Value to reference."""
        return self.value / self.reference if self.reference else None

    @property
    def is_met(self) -> bool:
        """Whether the target, if there is one, is reached."""
        figure = self.value if self.ratio is None else self.ratio
        if self.target is None:
            return True
        return figure <= self.target if self.is_limit else figure >= self.target


@contextmanager
def postgres_of_its_own() -> Iterator[Settings]:
    """Settings with schemas that only this run knows.

    They lie in the Postgres of `LORELINE_POSTGRES_URL`, or in a stack that is started for this run.
    """
    settings = dataclasses.replace(
        Settings.load(), target="ci", namespace_suffix=f"benchmark{uuid.uuid4().hex[:8]}"
    )
    if "LORELINE_POSTGRES_URL" in os.environ:
        with _schemas(settings):
            yield settings
        return
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder)
        try:
            stack.up(home)
            variables = json.loads((home / "stack.json").read_text())["variables"]
            settings = dataclasses.replace(
                settings, postgres_url=variables["LORELINE_POSTGRES_URL"]
            )
            with _schemas(settings):
                yield settings
        finally:
            stack.down(home)


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser with what every benchmark takes."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser


def show(title: str, measurements: list[Measurement], file: Path | None) -> None:
    """Print a table, and write the same as JSON."""
    table = Table("measured", "value", "reference", "ratio", "target", "met", title=title)
    for measured in measurements:
        target = "" if measured.target is None else _number(measured.target)
        sign = ("≤ " if measured.is_limit else "≥ ") if target else ""
        table.add_row(
            measured.name,
            _number(measured.value),
            _number(measured.reference),
            _number(measured.ratio),
            sign + target,
            ("yes" if measured.is_met else "NO") if target else "",
        )
    Console().print(table)
    if file:
        rows = [
            dataclasses.asdict(measured) | {"ratio": measured.ratio, "is_met": measured.is_met}
            for measured in measurements
        ]
        file.write_text(json.dumps({"title": title, "measurements": rows}, indent=2) + "\n")


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"


@contextmanager
def _schemas(settings: Settings) -> Iterator[None]:
    upgrade(settings)
    try:
        yield
    finally:
        with connect(settings, autocommit=True) as connection:
            for schema in ("serving", "operations"):
                name = Identifier(f"{settings.prefix}{schema}")
                connection.execute(SQL("drop schema if exists {} cascade").format(name))
