"""Look at what was set aside, land it after all, or drop it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loreline.cli.options import Json
from loreline.cli.output import is_interactive, print_json, print_table, say, warn
from loreline.cli.progress import progress
from loreline.cli.text import one_line, shortened
from loreline.cli.times import minute
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.operations.quarantine import Kept, Selection
    from loreline.settings import Settings

ID_CHARACTERS = 12
DETAIL_CHARACTERS = 80
# Of an input in a terminal; `--json` gives all of it.
SHOWN_CHARACTERS = 4_000

quarantine = typer.Typer(help="Look after what was set aside.", no_args_is_help=True)

Source = Annotated[str | None, typer.Option(metavar="SOURCE", help="Only of this source.")]
Reason = Annotated[
    str | None,
    typer.Option(metavar="REASON", help="Only for this reason; `contract:` means all such ones."),
]
Ids = Annotated[
    list[str] | None,
    typer.Argument(metavar="[ID]...", help="Single inputs; the beginning of an id will do."),
]


@quarantine.callback()
def root() -> None:
    """Look after what was set aside."""


@quarantine.command("list")
def list_(
    source: Source = None,
    reason: Reason = None,
    each: Annotated[
        bool, typer.Option("--each", help="Single inputs with their ids, the last ones first.")
    ] = False,
    k: Annotated[int, typer.Option("-k", min=1, help="How many inputs, with --each.")] = 20,
    page: Annotated[int, typer.Option(min=1, help="Which page of them.")] = 1,
    as_json: Json = False,
) -> None:
    """Count what is set aside, by source, table and reason."""
    from loreline.operations.quarantine import Selection, groups, inputs

    settings = _settings()
    selection = Selection(source=source, reason=reason)
    if each:
        found = inputs(settings, selection, limit=k, offset=k * (page - 1))
        if as_json:
            print_json([asdict(one) for one in found])
        else:
            _print_inputs(found, page)
        return
    counted = groups(settings, selection)
    if as_json:
        print_json([asdict(group) for group in counted])
        return
    if not counted:
        say("Nothing is set aside.")
        return
    print_table(
        ["source", "table", "reason", "inputs", "retried", "last (UTC)", "such as", "because"],
        [
            [
                group.source,
                group.resource,
                group.reason,
                group.inputs,
                group.retried,
                minute(group.last_at),
                group.examples[0]["id"][:ID_CHARACTERS],
                _short(group.examples[0]["detail"]),
            ]
            for group in counted
        ],
        optional=["because", "retried", "last (UTC)"],
    )
    say("loreline quarantine show ID shows an input, list --each --source … lists single ones.")


@quarantine.command()
def show(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The beginning of an id will do.")],
    as_json: Json = False,
) -> None:
    """Show an input as it was received, and why it was set aside."""
    from loreline.operations.quarantine import content, find

    settings = _settings()
    one = find(settings, identity)
    text = content(settings, one).decode(errors="backslashreplace")
    if as_json:
        print_json(asdict(one) | {"content": text})
        return
    facts: list[tuple[str, Any]] = [
        ("source", one.source),
        ("table", one.resource),
        ("object", one.external_id),
        ("reason", one.reason),
        ("because", one.detail),
        ("read from", one.origin),
        ("set aside (UTC)", minute(one.landed_at)),
        ("observed (UTC)", minute(one.observed_at)),
        ("retried (UTC)", minute(one.retried_at)),
        ("result", one.retry_result),
        ("became", one.outcome),
        ("why", one.note),
        ("decided", one.decided_by and f"{minute(one.decided_at)} by {one.decided_by}"),
    ]
    print_table(["", one.fingerprint[:ID_CHARACTERS]], [fact for fact in facts if fact[1]])
    say()
    say(shortened(text, SHOWN_CHARACTERS))
    if len(text) > SHOWN_CHARACTERS:
        say(f"{len(text):,} characters in all: --json gives them.")


@quarantine.command()
def retry(
    ids: Ids = None,
    source: Source = None,
    reason: Reason = None,
    everything: Annotated[
        bool, typer.Option("--all", help="All that is set aside of sources that are landed.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Land what was set aside again, through the same checks.

    What passes now lands and leaves the quarantine; what does not stays, with the result of its
    last attempt. Exit code 1 when nothing landed of what was tried.
    """
    from dlt_sources import SOURCES
    from dlt_sources.retry import retry as land_again
    from loreline.operations.quarantine import fingerprints

    settings = _settings()
    wanted = fingerprints(settings, _selection(ids, source, reason, everything))
    if everything:
        wanted = {name: some for name, some in wanted.items() if name in SOURCES}
    outcomes: Counter[str] = Counter()
    for name, some in wanted.items():
        with progress(f"retrying {name}") as told:
            outcomes += land_again(settings, name, some, told)
    if as_json:
        print_json({"tried": outcomes.total(), **outcomes})
    else:
        _print_outcomes(outcomes)
    if outcomes.total() and not outcomes["landed"] + outcomes["known"]:
        raise typer.Exit(1)


@quarantine.command()
def drop(
    why: Annotated[str, typer.Option(metavar="TEXT", help="Why; it is kept in the log.")],
    ids: Ids = None,
    source: Source = None,
    reason: Reason = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Take inputs out of the quarantine for good; the log keeps them, who did it, and why.

    An input that was dropped is not set aside again when it comes again.
    """
    from dlt_sources import SOURCES
    from dlt_sources.live_sources import LIVE_SOURCES
    from loreline.operations.quarantine import drop as drop_inputs
    from loreline.operations.quarantine import fingerprints

    settings = _settings()
    if not why.strip():
        raise LorelineError("a reason is needed", "say why with --why TEXT")
    wanted = fingerprints(settings, _selection(ids, source, reason))
    if others := sorted(set(wanted) - {*SOURCES, *LIVE_SOURCES}):
        raise LorelineError(
            f"the models read what is set aside of {', '.join(others)}",
            "change what it was made from, and build again",
        )
    count = sum(map(len, wanted.values()))
    if count and not yes:
        _ask(f"Drop {count:,} inputs of {', '.join(wanted)}?")
    dropped = drop_inputs(settings, [one for some in wanted.values() for one in some], why)
    if as_json:
        print_json({"dropped": dropped})
    else:
        say(f"{dropped:,} inputs dropped; pg.{settings.prefix}operations.quarantine_log has them.")


def _settings() -> Settings:
    from loreline.postgres import check_schema
    from loreline.settings import Settings

    settings = Settings.load()
    check_schema(settings)
    return settings


def _selection(
    ids: list[str] | None, source: str | None, reason: str | None, everything: bool = False
) -> Selection:
    from loreline.operations.quarantine import Selection

    selection = Selection(tuple(ids or ()), source, reason)
    if selection.is_empty and not everything:
        raise LorelineError(
            "it is not said which inputs are meant", "give ids, --source or --reason"
        )
    return selection


def _ask(question: str) -> None:
    if not is_interactive():
        raise LorelineError("nobody is there to be asked", "say --yes")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        raise LorelineError("nothing was dropped")


def _print_inputs(found: list[Kept], page: int) -> None:
    if not found:
        say("Nothing is set aside." if page == 1 else "There are no more.")
        return
    print_table(
        [
            "id",
            "source",
            "table",
            "reason",
            "set aside (UTC)",
            "read from",
            "because",
            "last attempt",
        ],
        [
            [
                one.fingerprint[:ID_CHARACTERS],
                one.source,
                one.resource,
                one.reason,
                minute(one.landed_at),
                _short(one.origin),
                _short(one.detail),
                one.retry_result and _short(one.retry_result),
            ]
            for one in found
        ],
        optional=["last attempt", "set aside (UTC)", "because", "read from"],
    )


def _print_outcomes(outcomes: Counter[str]) -> None:
    if not outcomes:
        say("Nothing of that is set aside.")
        return
    told = {
        "landed": "landed",
        "known": "known by now, and out of the quarantine too",
        "failed": "failed again",
        "impossible": "cannot be tried alone",
    }
    for outcome, words in told.items():
        if outcomes[outcome]:
            say(f"{outcomes[outcome]:,} {words}")
    if outcomes["failed"] + outcomes["impossible"]:
        warn("`loreline quarantine list --each` says why.")


def _short(text: str) -> str:
    return shortened(one_line(text), DETAIL_CHARACTERS)
