"""Land what sources hold, and say what landed and what was set aside."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
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
    """One source to land, and the file or folder to land it from; None where it is in a store."""

    source: str
    location: str | None


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
            help="notion, google_docs, slack, linear, log_files, incident_reports, gateway,"
            " evaluation, review, judge",
        ),
    ] = None,
    location: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="LOCATION",
            help="File or folder to read one source from; of log files also a glob, and s3://….",
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
    as_json: Json = False,
) -> None:
    """Land what sources hold.

    What cannot be landed is set aside with its reason; the rest lands. Without --from or --sample,
    each source is read from LORELINE_<SOURCE>_LOCATION, review and judge from Postgres.
    """
    from loreline.settings import Settings

    settings = Settings.load()
    loads = choose(sources or [], location, sample, os.environ)
    seen_at = instant(observed_at, "--observed-at") if observed_at else None
    outcomes = run(settings, loads, seen_at, again=again)
    if as_json:
        print_json([_record(outcome) for outcome in outcomes])
    else:
        print_outcomes(outcomes)
    failed = [outcome for outcome in outcomes if outcome.error]
    for outcome in failed:
        warn(f"loreline: {outcome.load.source}: {one_line(str(outcome.error))}")
    if failed:
        raise typer.Exit(1)


def choose(
    sources: Sequence[str],
    location: str | None,
    sample: Day | None,
    environment: Mapping[str, str],
) -> list[Load]:
    """Which sources are landed, and from where.

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
        if sample or len(sources) != 1 or stored:
            raise LorelineError(
                "--from is for one source that is read from files",
                "loreline ingest notion --from FOLDER",
            )
        return [Load(sources[0], location)]
    if sample:
        return _sample_loads(sources or known, sample)
    in_files = [source for source in sources or known if source not in _stored_sources()]
    configured = {source: environment.get(variable(source), "") for source in in_files}
    loads = [Load(source, place) for source, place in configured.items() if place]
    missing = [variable(source) for source in configured if not configured[source]]
    if missing and (sources or not loads):
        raise LorelineError(
            f"nothing says where to read from ({', '.join(missing)} not set)",
            "use --from LOCATION, --sample day_one, or set the variable",
        )
    return loads + stored


def variable(source: str) -> str:
    """The environment variable that says where a source is."""
    return f"LORELINE_{source.upper()}_LOCATION"


def run(
    settings: Settings,
    loads: Sequence[Load],
    observed_at: datetime | None = None,
    *,
    again: bool = False,
) -> list[Outcome]:
    """Land the sources one after the other; one that fails does not keep the others from it."""
    from dlt_sources import load
    from loreline.postgres import check_schema

    settings.require_stores()
    check_schema(settings)
    outcomes = []
    for each in loads:
        with progress(each.source) as told:
            try:
                summary = load(
                    settings,
                    each.source,
                    each.location,
                    observed_at=observed_at,
                    progress=told,
                    again=again,
                )
                outcomes.append(Outcome(each, summary))
            except LorelineError as error:
                outcomes.append(Outcome(each, None, error))
    return outcomes


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

    return list(SOURCES)


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
