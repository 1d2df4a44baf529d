"""Land what sources hold, and say what landed and what was set aside."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loreline.cli.instants import instant
from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say, warn
from loreline.cli.progress import progress
from loreline.cli.text import one_line
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from dlt_sources import LoadSummary
    from loreline.settings import Settings


# What was done with rows that break a contract.
DONE = {"quarantine": "set aside", "warn": "landed"}
WHY_PASSED_OVER = {
    "attachments": "which hold no text",
    "spans": "which are of no language model",
    "channels": "which the bot is not in",
    "vanished files": "which were renamed or removed while others were read",
}
NEW_FIELDS = 20


class Day(StrEnum):
    """A state of the sample workspace."""

    day_one = "day_one"
    day_two = "day_two"
    day_three = "day_three"


@dataclass(frozen=True)
class Load:
    """One source to land, and from where.

    Attributes:
        source: notion, slack, …
        location: the file or folder; None where it is in a store, or behind an API.
        is_live: whether it is behind an API.
    """

    source: str
    location: str | None
    is_live: bool = False


@dataclass(frozen=True)
class How:
    """How sources are landed.

    Attributes:
        again: read also input that was landed to its end before.
        waits: for another load of a source.
        sweep: list all that an API has; None where that is due.
        allow_deletes: however much a sweep finds gone.
    """

    again: bool = False
    waits: bool = True
    sweep: bool | None = None
    allow_deletes: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of a load: its summary, or why it failed."""

    load: Load
    summary: LoadSummary | None
    error: LorelineError | None = None


def ingest(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[SOURCE]...",
            help="notion, google_docs, slack, linear, github, log_files, incident_reports, gateway,"
            " evaluation, review, judge",
        ),
    ] = None,
    location: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LOCATION",
            help="File or folder to read one source from, also at s3://… or git+https://…; of log"
            " files also a glob.",
        ),
    ] = None,
    sample: Annotated[
        Day | None, typer.Option(help="Land this state of the sample workspace.")
    ] = None,
    observed_at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When the input was exported, if it does not tell."),
    ] = None,
    again: Annotated[
        bool, typer.Option("--again", help="Read also input that was landed to its end before.")
    ] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Every source that the settings name; this is for cron.")
    ] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Leave out a source that is being landed already.")
    ] = False,
    sweep: Annotated[
        bool | None,
        typer.Option(
            "--sweep/--no-sweep",
            help="List all that an API has, to find what is gone; by default once a day.",
        ),
    ] = None,
    allow_deletes: Annotated[
        bool, typer.Option("--allow-deletes", help="However much a sweep finds gone, delete it.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what would be asked of APIs, and for how long.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Land what sources hold.

    What cannot be landed is set aside with its reason; the rest lands. Without --from or --sample,
    a source is read through its API where its token is set (loreline env lists the variables), or
    from LORELINE_<SOURCE>_LOCATION; review and judge from Postgres.
    """
    from loreline.settings import Settings

    settings = Settings.load()
    if everything and (sources or location or sample):
        raise LorelineError("--all is for all sources that are set up", "leave the others out")
    loads = choose(sources or [], location, sample, os.environ, live_sources(settings))
    if plan:
        print_plans(settings, loads, as_json=as_json)
        return
    seen_at = instant(observed_at, "--observed-at") if observed_at else None
    how = How(again=again, waits=not no_wait, sweep=sweep, allow_deletes=allow_deletes)
    outcomes = run(settings, loads, seen_at, how)
    if as_json:
        print_json([_record(outcome) for outcome in outcomes])
    else:
        print_outcomes(outcomes)
    if warn_of_failures(outcomes):
        raise typer.Exit(1)


def warn_of_failures(outcomes: Sequence[Outcome]) -> bool:
    """Say what failed; gives whether something did. A source that somebody else lands did not."""
    from dlt_sources.landing import BusyError

    for outcome in outcomes:
        if outcome.error:
            warn(f"loreline: {outcome.load.source}: {one_line(str(outcome.error))}")
    return any(o.error and not isinstance(o.error, BusyError) for o in outcomes)


def choose(
    sources: Sequence[str],
    location: str | None,
    sample: Day | None,
    environment: Mapping[str, str],
    live: Collection[str] = (),
) -> list[Load]:
    """Which sources are landed, and from where.

    Args:
        sources: named ones; none for all.
        location: of the one.
        sample: a state of the sample workspace.
        environment: the variables that name locations.
        live: sources whose APIs can be asked.

    Raises:
        LorelineError: there is no such source, or it is not said where one is.
    """
    known = _known_sources()
    if unknown := [source for source in sources if source not in known]:
        raise LorelineError(
            f"no source is called {', '.join(unknown)}", f"there are {', '.join(known)}"
        )
    stored = [Load(source, None) for source in sources or known if source in _stored_sources()]
    if location is not None:
        if sample or len(sources) != 1 or stored or not _is_in_files(sources[0]):
            raise LorelineError(
                "--from is for one source that is read from files",
                "loreline ingest notion --from FOLDER",
            )
        return [Load(sources[0], location)]
    if sample:
        return _sample_loads(sources or known, sample)
    asked = [Load(source, None, is_live=True) for source in sources or known if source in live]
    elsewhere = {*_stored_sources(), *live}
    others = [source for source in sources or known if source not in elsewhere]
    if unset := [source for source in sources if source in others and not _is_in_files(source)]:
        raise LorelineError(
            f"{unset[0]} is read through its API, and its token is not set",
            f"set LORELINE_{unset[0].upper()}_TOKEN: `docs/live-sources.md`",
        )
    in_files = [source for source in others if _is_in_files(source)]
    configured = {source: environment.get(variable(source), "") for source in in_files}
    loads = asked + [Load(source, place) for source, place in configured.items() if place]
    missing = [variable(source) for source in configured if not configured[source]]
    if missing and (sources or not loads):
        raise LorelineError(
            f"nothing says where to read from ({', '.join(missing)} not set)",
            "use --from LOCATION, --sample day_one, or set the variable, or the token of its API",
        )
    return loads + stored


def variable(source: str) -> str:
    """The environment variable that says where a source is."""
    return f"LORELINE_{source.upper()}_LOCATION"


def run(
    settings: Settings,
    loads: Sequence[Load],
    observed_at: datetime | None = None,
    how: How | None = None,
) -> list[Outcome]:
    """Land the sources one after the other; one that fails does not keep the others from it."""
    from loreline.postgres import check_schema

    settings.require_stores()
    check_schema(settings)
    outcomes = []
    for each in loads:
        with progress(each.source) as told:
            try:
                summary = _load(settings, each, observed_at, how or How(), told)
                outcomes.append(Outcome(each, summary))
            except LorelineError as error:
                outcomes.append(Outcome(each, None, error))
    return outcomes


def _load(
    settings: Settings,
    each: Load,
    observed_at: datetime | None,
    how: How,
    told: Callable[[str], None],
) -> LoadSummary:
    from dlt_sources import load
    from dlt_sources.live import load_live
    from dlt_sources.live_sources import live_source

    fetching = live_source(settings, each.source) if each.is_live else None
    if fetching:
        return load_live(
            settings,
            each.source,
            fetching,
            sweep=how.sweep,
            allow_deletes=how.allow_deletes,
            progress=told,
            waits=how.waits,
        )
    return load(
        settings,
        each.source,
        each.location,
        observed_at=observed_at,
        progress=told,
        again=how.again,
        waits=how.waits,
    )


def print_plans(settings: Settings, loads: Sequence[Load], *, as_json: bool) -> None:
    """What would be asked of each API, and for how long under its limits."""
    from dlt_sources.live import plan_live
    from dlt_sources.live_sources import live_source

    sources = {load.source: live_source(settings, load.source) for load in loads if load.is_live}
    plans = {s: plan_live(settings, s, fetching) for s, fetching in sources.items() if fetching}
    if as_json:
        print_json(
            [{"source": s, **vars(plan), "seconds": plan.seconds} for s, plan in plans.items()]
        )
        return
    rows = [
        [source, plan.what, plan.objects, plan.requests, _minutes(plan.seconds)]
        for source, plan in plans.items()
    ]
    if rows:
        print_table(["source", "what", "objects ≈", "requests ≈", "takes ≈"], rows)
    else:
        say("No source is read through an API: nothing would be asked.")


def _minutes(seconds: float | None) -> str:
    if seconds is None:
        return "as fast as it answers"
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:,.0f} min"


def live_sources(settings: Settings) -> set[str]:
    """The sources whose APIs can be asked, as their tokens are set."""
    from dlt_sources.live_sources import LIVE_SOURCES, live_source

    return {source for source in LIVE_SOURCES if live_source(settings, source)}


def print_outcomes(outcomes: Sequence[Outcome]) -> None:
    """Tables of what landed, and of what was set aside and why."""
    loaded = [outcome.summary for outcome in outcomes if outcome.summary]
    rows = [
        [
            s.source,
            s.rows,
            s.tombstones,
            s.unchanged,
            s.outdated,
            s.quarantined.total(),
            ", ".join(f"{name} {count:,}" for name, count in s.landed.items() if count),
            round(s.seconds, 1),
        ]
        for s in loaded
    ]
    columns = ["source", "landed", "deletions", "unchanged", "outdated", "set aside"]
    if rows:
        print_table(
            [*columns, "of which", "seconds"], rows, optional=["of which", "seconds", "outdated"]
        )
    _print_contracts(loaded)
    set_aside = [
        [s.source, reason, count] for s in loaded for reason, count in s.quarantined.items()
    ]
    if set_aside:
        say()
        print_table(["source", "set aside because of", "inputs"], set_aside)
        say("Look at them: loreline quarantine list")
    for summary in loaded:
        if summary.masked:
            rules = ", ".join(f"{rule} {count:,}" for rule, count in summary.masked.items())
            say(f"{summary.source}: {summary.masked.total():,} secrets masked ({rules})")
        for kind, count in summary.passed_over.items():
            if count:
                say(f"{summary.source}: {count:,} {kind} passed over, {WHY_PASSED_OVER[kind]}")


def _print_contracts(loaded: Sequence[LoadSummary]) -> None:
    """Rows that break a contract, and fields that no contract knows."""
    broken = [
        [f"{s.source} {each['table']}", each["rule"], each["rows"], DONE[each["done"]]]
        for s in loaded
        for each in s.broken
    ]
    if broken:
        say()
        print_table(["table", "contract broken", "rows", "which were"], broken)
    new = [[f"{s.source} {name}", rows] for s in loaded for name, rows in s.new_fields.items()]
    if new:
        say()
        print_table(["new field", "rows"], new[:NEW_FIELDS])
        if len(new) > NEW_FIELDS:
            say(f"… and {len(new) - NEW_FIELDS:,} more: loreline contracts check")


def _known_sources() -> list[str]:
    from dlt_sources import SOURCES
    from dlt_sources.live_sources import LIVE_SOURCES

    return sorted({*SOURCES, *LIVE_SOURCES})


def _is_in_files(source: str) -> bool:
    from dlt_sources import SOURCES

    return source in SOURCES


def _stored_sources() -> set[str]:
    from dlt_sources import STORED_SOURCES

    return STORED_SOURCES


def _sample_loads(sources: Sequence[str], day: Day) -> list[Load]:
    from loreline.settings import PROJECT_ROOT

    folder = PROJECT_ROOT / "sample_workspace" / day.value
    places = {source: folder / source for source in sources}
    return [Load(source, str(place)) for source, place in places.items() if _has_files(place)]


def _has_files(place: Path) -> bool:
    return place.is_dir() and any(place.iterdir())


def _record(outcome: Outcome) -> dict[str, Any]:
    named = {"source": outcome.load.source, "location": outcome.load.location}
    if outcome.summary is None:
        return {**named, "error": str(outcome.error)}
    return {**named, **vars(outcome.summary), "rows": outcome.summary.rows, "error": None}
