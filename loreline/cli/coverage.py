"""Which documents are built under which configurations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.serving.coverage import Cell, Coverage

SHOWN_DOCUMENTS = 50
NOT_BUILT = ("missing", "stale", "failed")


def coverage(
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this embedding model.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this chunking strategy.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Only documents from here.")
    ] = None,
    documents: Annotated[
        bool, typer.Option("--documents", help="List what is not built, and why.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit code 1 where something served is not built.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how many documents are built under each configuration.

    Built: cut, embedded and, where it is served, pushed. Missing: not yet. Stale: what is served is
    older. Failed: a text was refused, so the document is not served in that version.
    """
    import duckdb

    from loreline.lake.duck import connect
    from loreline.postgres import check_schema
    from loreline.serving.coverage import coverage as computed
    from loreline.settings import Settings

    settings = Settings.load()
    check_schema(settings.as_reader())
    with connect(settings.as_reader()) as lake:
        try:
            found = computed(lake, settings, model=model, strategy=strategy, source=source)
        except duckdb.CatalogException as error:
            raise LorelineError("nothing was built yet", "run `loreline build`") from error
        cells = found.cells()
        if as_json:
            _print_json(found, cells, documents=documents)
        else:
            _print(found, cells, documents=documents)
    if check and any(cell.is_served and cell.built < cell.total for cell in cells):
        raise typer.Exit(1)


def _print(found: Coverage, cells: Sequence[Cell], *, documents: bool) -> None:
    if not cells:
        say("There is no document, or no configuration, of which this was asked.")
        return
    print_grid(cells)
    gaps = sum(cell.total - cell.built for cell in cells)
    if not gaps:
        say("Everything is built.")
        return
    if not documents:
        say("--documents lists what is not built, and why.")
        return
    say()
    print_table(
        ["document", "title", "embedding", "chunking", "state", "why"],
        [
            [g.doc_id, g.title, g.embedding_model, g.chunking_strategy, g.state, g.reason]
            for g in found.gaps(SHOWN_DOCUMENTS)
        ],
        optional=["title"],
    )
    if gaps > SHOWN_DOCUMENTS:
        say(f"{gaps - SHOWN_DOCUMENTS:,} more; --json gives all.")


def print_grid(cells: Sequence[Cell]) -> None:
    """Print a row for each pair of configurations, with a column for each source."""
    from loreline.serving.coverage import sources_of

    sources = sources_of(cells)
    rows = []
    for (model, strategy, is_served), group in groupby(
        cells, lambda cell: (cell.embedding_model, cell.chunking_strategy, cell.is_served)
    ):
        of_source = {cell.source: cell for cell in group}
        rows.append(
            [
                model,
                strategy,
                "served" if is_served else "candidate",
                *(_share(of_source.get(source)) for source in sources),
                *(sum(getattr(cell, state) for cell in of_source.values()) for state in NOT_BUILT),
            ]
        )
    print_table(["embedding", "chunking", "status", *sources, *NOT_BUILT], rows)


def _share(cell: Cell | None) -> str:
    if cell is None:
        return ""
    return f"{cell.built:,}" if cell.built == cell.total else f"{cell.built:,} of {cell.total:,}"


def _print_json(found: Coverage, cells: Sequence[Cell], *, documents: bool) -> None:
    record: dict[str, object] = {"coverage": [asdict(cell) for cell in cells]}
    if documents:
        record["documents"] = [asdict(gap) for gap in found.gaps()]
    print_json(record)
