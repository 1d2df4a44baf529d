"""Reading Slack through its Web API: the share of the allowed requests that is used, and memory.

    python -m benchmarks.live_slack [--messages 2000 10000] [--rate 10] [--json FILE]

A simulated workspace answers so many requests a second and no more, each after 50 ms; the rate is
twelve times that of Slack. A third of the messages are replies, five to a thread, which are asked
for thread by thread. Each size is walked by a process of its own, whose highest resident memory is
taken, and once more with nothing new.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.sandbox import Measurement, arguments, show
from dlt_sources.live import load_live
from dlt_sources.slack.live import SlackLive
from loreline import postgres, stack
from loreline.settings import Settings
from tests.simulators.api import Answer, Asked, serving
from tests.simulators.slack import Slack

CHANNELS = 20
REPLIES = 5
LATENCY = 0.05
TEXT = "connection pool exhausted after 30 s waiting, retrying in the background with a new lease "


class Timed(Slack):
    """A workspace that notes when it was first and last asked."""

    first = last = 0.0

    def answer(self, asked: Asked) -> Answer:
        """Answer, and note when."""
        self.last = time.monotonic()
        self.first = self.first or self.last
        return super().answer(asked)


def workspace(messages: int) -> Timed:
    """A third of the messages in threads, all of them older than threads that are open."""
    slack = Timed()
    channels = [slack.add_channel() for _ in range(CHANNELS)]
    threads = messages // 3 // REPLIES
    for number in range(messages - threads * REPLIES):
        channel = channels[number % CHANNELS]
        root = slack.post(channel, TEXT * 4)
        for _ in range(REPLIES if number < threads else 0):
            slack.post(channel, TEXT, thread=root, user="U0BOB")
    slack.advance(60 * 86_400)
    for channel in channels:
        slack.post(channel, "the last one")
    return slack


def walk(home: Path, count: int, rate: float) -> dict[str, float]:
    """Walk a workspace of so many messages, twice."""
    slack = workspace(count)
    found: dict[str, float] = {}
    with serving(
        slack, rate=rate, latency=LATENCY, keeps_requests=False, retry_after=0.2
    ) as server:
        slack.server = server
        server.clock_skew = slack.offset
        command = [sys.executable, "-m", "benchmarks.live_slack", "--child", str(home)]
        command += ["--url", f"{server.url}/api", "--rate", str(rate), "--messages", str(count)]
        for step in ("walk", "again"):
            server.clear()
            slack.first = 0.0
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            figures = json.loads(done.stdout.splitlines()[-1])
            found[f"{step} requests"] = server.answered
            found[f"{step} rows"] = figures["rows"]
            found[f"{step} used"] = (server.answered - 1) / (rate * (slack.last - slack.first))
            found[f"{step} peak_mb"] = figures["peak_mb"]
            found[f"{step} limited"] = server.limited
    return found


def child(home: Path, url: str, count: int, rate: float) -> None:
    """Load once and print the figures."""
    variables = json.loads((home / "stack.json").read_text())["variables"]
    names = {f.metadata["variable"]: f.name for f in dataclasses.fields(Settings)}
    settings = Settings(
        **{names[name]: value for name, value in variables.items()},
        target="ci",
        namespace_suffix=f"slack{count}",
        state_folder=str(home / str(count)),
        slack_token="xoxb-1",
        slack_url=url,
        slack_rate=str(rate),
    )
    postgres.upgrade(settings)
    rows = load_live(settings, "slack", SlackLive(settings)).rows
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"rows": rows, "peak_mb": peak}))


def measurements(sizes: list[int], figures: list[dict[str, float]]) -> Iterator[Measurement]:
    """The figures beside their references."""
    for size, found in zip(sizes, figures, strict=True):
        yield Measurement(
            f"{size:,} messages, share of the allowed requests", found["walk used"], None, 0.9
        )
        yield Measurement(f"{size:,} messages, requests", found["walk requests"])
        yield Measurement(f"{size:,} messages, rows landed", found["walk rows"])
        yield Measurement(f"{size:,} messages, requests refused", found["walk limited"])
        yield Measurement(
            f"{size:,} messages, rows landed again", found["again rows"], None, 0, True
        )
    yield Measurement(
        f"nothing new, requests: {sizes[-1]:,} to {sizes[0]:,}",
        figures[-1]["again requests"],
        figures[0]["again requests"],
        1.0,
        True,
    )
    yield Measurement(
        f"peak memory, {sizes[-1]:,} to {sizes[0]:,} messages, MB",
        figures[-1]["walk peak_mb"],
        figures[0]["walk peak_mb"],
        1.15,
        True,
    )


def main() -> None:
    """Run the benchmark."""
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--messages", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--rate", type=float, default=10.0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.url, options.messages[0], options.rate)
        return
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder)
        stack.up(home)
        try:
            figures = [walk(home, count, options.rate) for count in options.messages]
        finally:
            stack.down(home)
    show("Slack's Web API", list(measurements(options.messages, figures)), options.json)


if __name__ == "__main__":
    main()
