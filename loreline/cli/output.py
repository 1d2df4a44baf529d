"""How commands print: tables that fit the terminal, or JSON for other programs."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loreline.cli.text import json_safe, shortened, visible

# A table that is read by another program is not folded.
UNLIMITED_WIDTH = 100_000
CELL_CHARACTERS = 160
RECORD_CHARACTERS = 1_000
# Columns that are squeezed below this are easier to read one record after the other.
READABLE_CELL = 18
LIST_ITEMS = 8
GAP = 2


def say(text: str = "") -> None:
    """Print a line that holds no markup; long ones are folded at the terminal's width."""
    console().print(visible(text), markup=False, highlight=False)


def warn(text: str) -> None:
    """Print a line about what deserves attention on the error stream."""
    print(visible(text), file=sys.stderr)


def is_interactive() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout.isatty()


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    title: str = "",
    optional: Sequence[str] = (),
) -> None:
    """Print rows as a table, or as one record after the other where a table would not fit.

    Args:
        columns: their names.
        rows: values as Python has them; None shows as nothing.
        title: a line above.
        optional: columns to leave out in a narrow terminal, the least wanted first.
    """
    shown = [
        _Column(name, values)
        for name, values in zip_longest(columns, zip(*rows, strict=True), fillvalue=())
    ]
    terminal = console()
    for name in optional:
        if not _fits(shown, terminal.width, longest=CELL_CHARACTERS):
            shown = [column for column in shown if column.name != name]
    if title:
        terminal.print(Text(visible(title), style="bold"))
    if _fits(shown, terminal.width, longest=READABLE_CELL):
        terminal.print(_table(shown))
    else:
        _print_records(shown, terminal)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json_safe(json.dumps(_plain(value), indent=2, ensure_ascii=False)))


def print_json_rows(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a JSON list of objects, one a line, without holding them in memory."""
    names = _distinct(columns)
    opening = "["
    for row in rows:
        record = _plain(dict(zip(names, row, strict=True)))
        print(opening + "\n  " + json_safe(json.dumps(record, ensure_ascii=False)), end="")
        opening = ","
    print("[]" if opening == "[" else "\n]")


def console() -> Console:
    """Where people read: as wide as the terminal, unlimited when piped into another program."""
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return Console(file=sys.stdout, width=UNLIMITED_WIDTH if piped else None, soft_wrap=False)


class _Column:
    """A column of a table: its name and values, and what is shown of them."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name = name
        self.values = values
        self.cells = [_cell(value, CELL_CHARACTERS) for value in values]
        self.width = max(
            map(cell_len, chain.from_iterable(map(str.splitlines, [name, *self.cells])))
        )

    @property
    def is_numeric(self) -> bool:
        known = [value for value in self.values if value is not None]
        return bool(known) and all(
            isinstance(value, int | float | Decimal) and not isinstance(value, bool)
            for value in known
        )


def _table(columns: Sequence[_Column]) -> Any:
    table = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for column in columns:
        table.add_column(
            Text(visible(column.name)),
            justify="right" if column.is_numeric else "left",
            overflow="fold",
        )
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(Text, row))
    return table


def _fits(columns: Sequence[_Column], width: int, *, longest: int) -> bool:
    return sum(min(column.width, longest) + GAP for column in columns) - GAP <= width


def _print_records(columns: Sequence[_Column], terminal: Console) -> None:
    for number, row in enumerate(zip(*(c.values for c in columns), strict=True), start=1):
        terminal.print(Text(f"— row {number} —", style="dim"))
        grid = Table.grid(padding=(0, GAP, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        for column, value in zip(columns, row, strict=True):
            grid.add_row(
                Text(visible(column.name), style="bold"), Text(_cell(value, RECORD_CHARACTERS))
            )
        terminal.print(grid)


def _cell(value: Any, length: int) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="microseconds" if value.microsecond else "seconds")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, bytes | bytearray | memoryview):
        return shortened(bytes(value).hex(), length)
    if isinstance(value, list | tuple):
        shown = [_cell(item, length) for item in islice(value, LIST_ITEMS)]
        left_out = len(value) - len(shown)
        end = f", … {left_out} more]" if left_out else "]"
        return "[" + ", ".join(shown) + end
    if isinstance(value, dict):
        pairs = ", ".join(f"{key}: {_cell(item, length)}" for key, item in value.items())
        return shortened(visible("{" + pairs + "}"), length)
    return shortened(visible(str(value)), length)


def _plain(value: Any) -> Any:
    """A value as JSON knows it: ISO times, numbers for decimals, null for what is no number."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        if not value.is_finite():
            return None
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, Path):
        return [_plain(item) for item in value]
    return str(value)


def _distinct(columns: Sequence[str]) -> list[str]:
    """Names under which no column hides another: a repeated one is numbered."""
    names: list[str] = []
    for column in columns:
        repeats = sum(1 for earlier in columns[: len(names)] if earlier == column)
        names.append(f"{column}_{repeats}" if repeats else column)
    return names
