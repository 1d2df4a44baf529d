"""Items and labels to and from other tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import psycopg

    from loreline.settings import Settings

review = typer.Typer(
    help="Exchange items and labels with Argilla and Label Studio.", no_args_is_help=True
)


class Format(StrEnum):
    """Whose JSON lines."""

    argilla = "argilla"
    label_studio = "label-studio"


class Kind(StrEnum):
    """What is judged."""

    trajectory = "trajectory"
    pair = "pair"


FormatOption = Annotated[Format, typer.Option("--format", help="Whose JSON lines.")]


@review.callback()
def root() -> None:
    """Exchange items and labels with Argilla and Label Studio."""


@review.command("export")
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="To write; it must not be there.")],
    format_: FormatOption,
    kind: Annotated[Kind | None, typer.Option(help="Only these: both tools want one kind.")] = None,
) -> None:
    """Write the items of the queue, with the labels that stand, as JSON lines."""
    from loreline.review.exchange import exported

    if file.exists():
        raise LorelineError(f"{file} is there already", "remove it, or choose another name")
    unfinished = file.with_name(file.name + ".part")
    count = 0
    with _postgres() as (connection, settings), unfinished.open("w", encoding="utf-8") as lines:
        for record in exported(connection, settings, format_.value, kind and kind.value):
            lines.write(json.dumps(record, ensure_ascii=True) + "\n")
            count += 1
    unfinished.replace(file)
    say(f"{count:,} items in {file}")


@review.command("import")
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSON lines, or one JSON list.")],
    format_: FormatOption,
    as_json: Json = False,
) -> None:
    """Take over what people have said of exported items with another tool.

    Again, or with labels that were exported as they are, it changes nothing.
    """
    from loreline.review.categories import read_categories
    from loreline.review.exchange import import_labels, read_records

    with _postgres() as (connection, settings), _opened(file) as lines:
        known = {each.category for each in read_categories(settings) or []}
        done = import_labels(connection, settings, format_.value, read_records(lines), known)
    if as_json:
        print_json(vars(done))
        return
    columns = ["added", "of which changed", "unchanged", "set aside"]
    counts = [done.added, done.replaced, done.unchanged, done.set_aside.total()]
    print_table(columns, [counts])
    if done.set_aside:
        say()
        print_table(["set aside because", "records"], done.set_aside.most_common())


@contextmanager
def _postgres() -> Iterator[tuple[psycopg.Connection, Settings]]:
    from loreline.postgres import check_schema, connect
    from loreline.settings import Settings

    settings = Settings.load()
    check_schema(settings)
    with connect(settings, autocommit=True) as connection:
        yield connection, settings


@contextmanager
def _opened(file: Path) -> Iterator[Iterator[str]]:
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            yield lines
    except OSError as error:
        raise LorelineError(f"{file} cannot be read ({error.strerror})", "check the name") from None
