"""How the tables of the lake are."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.history import resolve
from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.cli.progress import progress
from loreline.cli.times import span

if TYPE_CHECKING:
    from loreline.operations.health import TableHealth


def health(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="Only these; default: all.")
    ] = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Show also tables that maintenance would leave alone.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure the tables of the lake by their metadata, and say what `maintain` would do.

    What was measured is kept in pg.operations.table_health.
    """
    from loreline.lake.catalog import load_catalog
    from loreline.operations.health import measure
    from loreline.postgres import check_schema
    from loreline.settings import Settings

    settings = Settings.load()
    check_schema(settings)
    catalog = load_catalog(settings)
    names = [resolve(catalog, settings, table) for table in tables] if tables else None
    with progress("measuring") as told:
        found = measure(settings, names, progress=told)
    if as_json:
        print_json(
            [
                asdict(each) | {"small_share": each.small_share, "wants": each.wants}
                for each in found
            ]
        )
    else:
        _print(found, everything=everything or bool(tables))


def _print(found: list[TableHealth], *, everything: bool) -> None:
    if not found:
        say("Nothing was written to the lake yet.")
        return
    wanting = [each for each in found if each.wants]
    shown = found if everything else wanting
    if shown:
        print_table(
            [
                *("table", "rows", "files", "small", "delete files", "MB", "snapshots"),
                *("oldest", "written", "maintain would"),
            ],
            [
                [
                    each.table_name,
                    each.rows,
                    each.data_files,
                    f"{each.small_share:.0%}" if each.data_files else None,
                    each.delete_files,
                    round(each.bytes / 1e6, 1),
                    each.snapshots,
                    _ago(each, "oldest_snapshot_at"),
                    _ago(each, "last_commit_at"),
                    each.wants,
                ]
                for each in sorted(shown, key=lambda each: (not each.wants, each.table_name))
            ],
            optional=["oldest", "written", "small", "MB", "delete files"],
        )
    size = sum(each.bytes for each in found)
    files = sum(each.data_files for each in found)
    say(f"{len(found):,} tables, {files:,} data files, {size / 1e6:,.1f} MB.")
    if wanting:
        say(f"{len(wanting):,} of them can be tidied: loreline maintain")
    else:
        say("Nothing to tidy.")


def _ago(each: TableHealth, name: str) -> str | None:
    moment = getattr(each, name)
    return moment and span((each.measured_at - moment).total_seconds())
