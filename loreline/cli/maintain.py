"""Keep the lake small and quick."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.history import resolve
from loreline.cli.options import Json
from loreline.cli.output import print_json, say
from loreline.cli.progress import progress

if TYPE_CHECKING:
    from loreline.lake.maintenance import Action


def maintain(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="[TABLE]...", help="Only these; default: all.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compact, expire and clean up the lake.

    Small files are rewritten as few, old snapshots expire, and files that nothing refers to are
    deleted. Snapshots are kept for LORELINE_SNAPSHOT_DAYS, tagged ones for ever. Safe to interrupt.
    """
    from loreline.lake.catalog import load_catalog
    from loreline.lake.maintenance import maintain as maintain_lake
    from loreline.operations.health import measure
    from loreline.settings import Settings

    settings = Settings.load()
    catalog = load_catalog(settings)
    names = [resolve(catalog, settings, table) for table in tables] if tables else None

    def show(action: Action) -> None:
        if not as_json:
            say(str(action))

    with progress("maintaining") as told:
        actions = maintain_lake(settings, dry_run=dry_run, tables=names, progress=show, began=told)
        if not dry_run:
            measure(settings, names, progress=told)
    if as_json:
        print_json([asdict(action) for action in actions])
    elif not actions:
        say("Nothing to do.")
    elif dry_run:
        say("Nothing was done: this was a dry run.")
