"""Land and build again and again: what is fresh by cron, without cron."""

from __future__ import annotations

import os
import re
import signal
import threading
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli import build, ingest
from loreline.cli.output import say, warn
from loreline.cli.text import one_line
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.settings import Settings

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


def watch(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="By default all that the settings name."),
    ] = None,
    every: Annotated[
        str, typer.Option(metavar="TIME", help="From one beginning to the next: 60s, 5m, 1h.")
    ] = "60s",
    no_build: Annotated[
        bool, typer.Option("--no-build", help="Land only; something else builds.")
    ] = False,
) -> None:
    """Land what is new and build what changed, every now and then, until Ctrl-C or SIGTERM.

    What fails is said, and tried again in the next round. What is under way at the end is finished.
    """
    from loreline.settings import Settings

    period = seconds(every)
    settings = Settings.load()
    live = ingest.live_sources(settings)
    loads = ingest.choose(sources or [], None, None, os.environ, live)
    stopped = threading.Event()

    def stop(_: int, __: FrameType | None) -> None:
        stopped.set()

    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, stop)
    say(f"{', '.join(load.source for load in loads)}: every {period:g} s, until Ctrl-C.")
    while not stopped.is_set():
        began = datetime.now(UTC)
        _round(settings, loads, with_build=not no_build)
        spent = (datetime.now(UTC) - began).total_seconds()
        stopped.wait(max(0.0, period - spent))


def seconds(text: str) -> float:
    """A time such as `60s`, `5m` or `1h` in seconds.

    Raises:
        LorelineError: it is none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", text.strip())
    if not found or not float(found[1]):
        raise LorelineError(f"--every {text!r} is no time", "write 60s, 5m or 1h", exit_code=2)
    return float(found[1]) * _UNITS[found[2]]


def _round(settings: Settings, loads: list[ingest.Load], *, with_build: bool) -> None:
    try:
        outcomes = ingest.run(settings, loads, how=ingest.How(waits=False))
        ingest.warn_of_failures(outcomes)
        landed = {o.load.source: o.summary.rows for o in outcomes if o.summary and o.summary.rows}
        now = datetime.now(UTC).strftime("%H:%M:%S")
        if landed:
            told = ", ".join(f"{source} {rows:,}" for source, rows in landed.items())
            say(f"{now} landed {told}")
        if with_build:
            summary = build.run(settings, [], show=build.Show.problems, changed=True)
            if summary.commits or summary.exit_code:
                build.print_summary(summary, with_tables=False)
    except LorelineError as error:
        warn(f"loreline: {one_line(str(error))}")
