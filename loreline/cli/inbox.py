"""What webhooks delivered: look at it, try it again, work on it."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import asdict
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.cli.text import one_line, shortened
from loreline.cli.times import minute
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.settings import Settings

SHOWN_CHARACTERS = 4_000
DETAIL_CHARACTERS = 80
NAMES_SHOWN = 3

inbox = typer.Typer(help="What webhooks delivered.", no_args_is_help=True)

Numbers = Annotated[list[int] | None, typer.Argument(metavar="[NUMBER]...")]
Parked = Annotated[bool, typer.Option("--parked", help="All that is parked.")]


@inbox.command("list")
def list_(
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="waiting, parked, done or dropped.")
    ] = None,
    source: Annotated[str | None, typer.Option(metavar="NAME")] = None,
    k: Annotated[int, typer.Option("-k", min=0, metavar="N", help="So many, newest first.")] = 20,
    as_json: Json = False,
) -> None:
    """Count deliveries by source and state, and list the newest."""
    from loreline.inbox.store import counts, listed
    from loreline.postgres import connect

    settings = _settings()
    found = listed(settings, state, source, k)
    with connect(settings) as connection:
        counted = counts(connection, settings)
    if as_json:
        print_json(
            {
                "counts": [
                    dict(zip(("source", "state", "deliveries"), c, strict=True)) for c in counted
                ],
                "deliveries": [asdict(each) for each in found],
            }
        )
        return
    if not counted:
        say("Nothing was delivered yet.")
        return
    print_table(["source", "state", "deliveries"], [list(row) for row in counted])
    if found:
        say()
        print_table(
            ["number", "source", "received (UTC)", "state", "attempts", "about", "error"],
            [
                [
                    each.number,
                    each.source,
                    minute(each.received_at),
                    each.state,
                    each.attempts,
                    _some(each.names),
                    each.error and shortened(one_line(each.error), DETAIL_CHARACTERS),
                ]
                for each in found
            ],
            optional=["error", "about", "received (UTC)"],
        )


@inbox.command()
def show(number: int, as_json: Json = False) -> None:
    """Show a delivery as it was received."""
    from loreline.inbox.store import find

    found, body = find(_settings(), number)
    text = body.decode(errors="backslashreplace")
    if as_json:
        print_json(asdict(found) | {"body": text})
        return
    facts = [
        ("source", found.source),
        ("delivery", found.delivery_id),
        ("received (UTC)", minute(found.received_at)),
        ("state", found.state),
        ("about", ", ".join(found.names)),
        ("attempts", found.attempts),
        ("next attempt (UTC)", found.state == "waiting" and minute(found.next_attempt_at)),
        ("error", found.error),
    ]
    print_table(["", str(number)], [list(fact) for fact in facts if fact[1]])
    say()
    say(shortened(text, SHOWN_CHARACTERS))


@inbox.command()
def retry(numbers: Numbers = None, parked: Parked = False, as_json: Json = False) -> None:
    """Work on parked deliveries once more."""
    _change("waiting", numbers, parked, as_json, "deliveries wait to be tried again.")


@inbox.command()
def drop(numbers: Numbers = None, parked: Parked = False, as_json: Json = False) -> None:
    """Give parked deliveries up; they stay to be looked at for a while."""
    _change("dropped", numbers, parked, as_json, "deliveries dropped.")


@inbox.command()
def tokens(as_json: Json = False) -> None:
    """Show the verification tokens that Notion sent to a new webhook."""
    from loreline.inbox.store import tokens as received

    found = received(_settings())
    if as_json:
        print_json([{"source": s, "token": t, "received_at": at} for s, t, at in found])
    elif not found:
        say("No verification token was received.")
    else:
        print_table(
            ["source", "token", "received (UTC)"],
            [[source, token, minute(moment)] for source, token, moment in found],
        )


@inbox.command()
def work(
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Land only; something else builds.")
    ] = False,
    with_parent: Annotated[
        bool, typer.Option("--with-parent", help="End when who started it has ended.")
    ] = False,
) -> None:
    """Work on deliveries until Ctrl-C or SIGTERM; loreline serve does it by itself."""
    from loreline.contracts.suite import context
    from loreline.inbox.work import WarmBuilds, Worker, land

    stopped = threading.Event()
    if with_parent:
        threading.Thread(target=_end_with, args=(os.getppid(), stopped), daemon=True).start()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, stop)
    settings, warm = _settings(), WarmBuilds()
    builds = [warm.for_search, warm.for_all, warm.for_upkeep]
    worker = Worker(settings, land, [] if no_build else builds, _told)
    # What judges rows takes seconds to load: no delivery is to wait for it.
    context()
    worker.run(stopped)


def _end_with(parent: int, stopped: threading.Event) -> None:
    while not stopped.wait(1.0):
        if os.getppid() != parent:
            stopped.set()


def _told(line: str) -> None:
    say(one_line(f"{datetime.now(UTC):%H:%M:%S} {line}"))


def _change(state: str, numbers: list[int] | None, parked: bool, as_json: bool, words: str) -> None:
    from loreline.inbox.store import change

    if bool(numbers) == parked:
        raise LorelineError("it is not said which deliveries are meant", "give numbers or --parked")
    changed = change(_settings(), state, numbers or None)
    if as_json:
        print_json({"changed": changed})
    else:
        say(f"{changed:,} {words}")


def _some(names: list[str]) -> str:
    others = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {others} more" if others > 0 else "")


def _settings() -> Settings:
    from loreline.postgres import check_schema
    from loreline.settings import Settings

    settings = Settings.load()
    settings.require_stores()
    check_schema(settings)
    return settings
