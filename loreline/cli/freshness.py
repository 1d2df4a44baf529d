"""Whether sources are looked at, and what is new in them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.cli.text import one_line, shortened
from loreline.cli.times import minute, span

if TYPE_CHECKING:
    from loreline.operations.freshness import Freshness

ERROR_CHARACTERS = 200


def freshness(
    check: Annotated[
        bool, typer.Option("--check", help="Exit with code 1 when a source is late.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show when each source was looked at last, and what that showed.

    A source is due, then late, when nobody looked at it for as long as seeds/source_freshness.csv
    says. An unchanged source is fresh: it was looked at.
    """
    from loreline.operations.freshness import State, read
    from loreline.postgres import check_schema, connect
    from loreline.settings import Settings

    settings = Settings.load()
    check_schema(settings)
    with connect(settings.as_reader()) as connection:
        found = read(connection, settings)
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        _print(found)
    if check and any(each.state == State.late for each in found):
        raise typer.Exit(1)


def _print(found: list[Freshness]) -> None:
    if not found:
        say("Nothing was landed yet: loreline ingest --sample day_one")
        return
    print_table(
        [
            "source",
            "table",
            "state",
            "looked at",
            "landed (UTC)",
            "newest there (UTC)",
            "rows",
            "deletions",
        ],
        [
            [
                each.source,
                each.resource,
                each.state,
                f"{span(each.lag_seconds)} ago" if each.loaded_at else "never",
                minute(each.last_landed_at),
                minute(each.last_source_update),
                each.rows,
                each.tombstones,
            ]
            for each in found
        ],
        optional=["deletions", "newest there (UTC)", "landed (UTC)"],
    )
    for source, error in {each.source: each.error for each in found if each.error}.items():
        say(f"{source}: the last load failed: {shortened(one_line(error), ERROR_CHARACTERS)}")
