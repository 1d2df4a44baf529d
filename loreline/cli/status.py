"""How everything is, in a few lines, and what to do next."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from loreline.cli import stack
from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.cli.text import one_line, shortened
from loreline.cli.times import minute, span
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.operations.builds import Build
    from loreline.operations.overview import Attention, Overview
    from loreline.settings import Settings
    from loreline.stack import ServiceStatus

WHAT_CHARACTERS = 160


def status(as_json: Json = False) -> None:
    """Show how everything is, and what needs attention.

    Services, sources, documents, what is served, and the last build. Chunks that are served are
    counted, `loreline contents` compares them row by row; coverage is how many documents are
    served as they are now. Exit code 1 when a service does not run.
    """
    from loreline.settings import Settings

    settings = Settings.load()
    services = [] if stack.is_elsewhere(settings) else stack.services(settings)
    down = [service for service in services if not service.ready]
    found, needed = (None, [_start(down)]) if down else _look(settings)
    if as_json:
        print_json(_record(settings, services, found, needed))
    else:
        _print_services(settings, services)
        if found:
            _print_overview(found)
        _print_attention(needed)
        if services:
            stack.warn_of_other_addresses(settings)
    if down:
        raise typer.Exit(1)


def _look(settings: Settings) -> tuple[Overview | None, list[Attention]]:
    """What the stores say; or why they say nothing, which is then what needs attention."""
    from loreline.operations.overview import Attention, attention, overview

    try:
        found = overview(settings)
    except LorelineError as error:
        return None, [Attention(error.what, error.next_step)]
    return found, attention(found)


def _start(down: list[ServiceStatus]) -> Attention:
    from loreline.operations.overview import Attention

    broken = [service for service in down if service.pid is not None]
    logs = f" (see {', '.join(str(service.log) for service in broken)})" if broken else ""
    named = " and ".join(service.name for service in down)
    return Attention(f"{named} not running{logs}", "loreline up")


def _print_services(settings: Settings, services: list[ServiceStatus]) -> None:
    if services:
        stack.print_services(services)
    else:
        say(f"Services elsewhere: {settings.catalog_uri}, {settings.s3_endpoint}, and Postgres.")
    say()


def _print_overview(found: Overview) -> None:
    if found.sources:
        print_table(
            ["source", "state", "looked at", "new (UTC)", "rows", "set aside", "documents"],
            [
                [
                    source.name,
                    "FAILED" if source.error else source.state,
                    _looked(source),
                    minute(source.last_landed_at),
                    source.rows,
                    source.set_aside,
                    (found.documents or {}).get(source.name),
                ]
                for source in found.sources
            ],
            optional=["new (UTC)", "rows"],
        )
        say()
    if found.collections:
        print_table(
            ["served", "chunks", "expected", "documents built", "coverage"],
            [
                [
                    f"{each.name} (default)" if each.is_default else each.name,
                    each.actual,
                    each.expected,
                    each.built,
                    # Rounded down: one document of a thousand that is not built is no 100 %.
                    f"{each.built * 100 // each.documents}%" if each.documents else None,
                ]
                for each in found.collections
            ],
        )
        say()
    for build in found.builds:
        say(_told(build))
    if not found.builds:
        say("No build is on record.")


def _looked(source: Any) -> str | None:
    if source.lag_seconds is None:
        return None
    return f"{span(source.lag_seconds)} ago" if source.was_loaded else "never"


def _told(build: Build) -> str:
    ago = span((datetime.now(UTC) - build.started_at).total_seconds())
    what = f"Last {build.command}" + (f" of {build.selection}" if build.selection else "")
    if build.seconds is None:
        return f"{what}: began {ago} ago, without an end so far."
    failures = len(build.failures or [])
    result = f"{failures:,} FAILED" if failures else "all well"
    tables = f"{build.tables:,} table{'' if build.tables == 1 else 's'} changed"
    return f"{what}: {ago} ago, {build.seconds:.1f} s, {tables}, {result}."


def _print_attention(needed: list[Attention]) -> None:
    say()
    if not needed:
        say("Nothing needs attention.")
        return
    print_table(
        ["needs attention", "what to do"],
        [[shortened(one_line(each.what), WHAT_CHARACTERS), each.command] for each in needed],
    )


def _record(
    settings: Settings,
    services: list[ServiceStatus],
    found: Overview | None,
    needed: list[Attention],
) -> dict[str, Any]:
    parts = asdict(found) if found else {}
    if found:
        parts["builds"] = [asdict(each) | {"seconds": each.seconds} for each in found.builds]
    return {
        "target": settings.target,
        "services": [stack.record(service) for service in services],
        **parts,
        "attention": [asdict(each) for each in needed],
    }
