"""Reading Linear through its API: whether its rate limit bounds a walk, or we do; and memory."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import timed_process
from benchmarks.sandbox import Measurement, arguments, show
from tests.simulators.api import Answer, Asked, serving
from tests.simulators.linear import Linear

# Linear allows 5,000 requests an hour.
RATE = 5_000 / 3_600
SIZES = (1_000, 10_000)


@dataclass
class Watched(Linear):
    """A workspace that notes when it was asked."""

    moments: list[float] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answer:
        """One query."""
        self.moments.append(time.monotonic())
        return super().answer(asked)


def workspace(objects: int) -> Watched:
    """Issues with histories, comments and attachments, so many in all."""
    linear = Watched()
    people = [linear.user(f"Person {n}") for n in range(20)]
    teams = [linear.team(f"T{n}", members=people[n::5], private=n == 0) for n in range(5)]
    text = "The till hangs after the third receipt. " * 20
    for n in range(objects // 5):
        issue = linear.issue(teams[n % 5], f"Issue {n}", description=text, creator=people[n % 20])
        linear.create("comments", body=text, issue=issue, user=people[n % 20])
        linear.create("comments", body="Seen here too.", issue=issue, user=people[n % 7])
        linear.create("attachments", title="Log", issue=issue)
    return linear


def measure(objects: int) -> tuple[float, float, float]:
    """Read a workspace of that many objects once.

    Returns:
        The share of the allowed requests that were made, the requests, and the peak memory in MB.
    """
    from loreline.stack import down, up

    linear = workspace(objects)
    with (
        tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder,
        serving(linear, rate=RATE, keeps_requests=False) as server,
    ):
        home = Path(folder)
        up(home)
        try:
            environment = {
                **os.environ,
                "LORELINE_HOME": str(home),
                "LORELINE_TARGET": "local",
                "LORELINE_LINEAR_API_KEY": "lin_api_key",
                "LORELINE_LINEAR_URL": f"{server.url}/graphql",
                "LORELINE_LINEAR_RATE": f"{RATE}",
            }
            seconds, peak_mb = timed_process(["benchmarks.live_linear", "--land"], environment)
        finally:
            down(home)
    walked = linear.moments[-1] - linear.moments[0]
    made = len(linear.moments)
    print(f"  {objects:,} objects: {made} requests in {walked:.0f} s, {seconds:.0f} s in all")
    return (made - 1) / walked / RATE, made, peak_mb


def land() -> None:
    """What `loreline ingest linear` does, in a process of its own."""
    from dlt_sources.linear.live import LinearLive
    from dlt_sources.live import load_live
    from loreline.settings import Settings

    settings = Settings.load()
    load_live(settings, "linear", LinearLive(settings))


def main() -> None:
    """Measure both sizes."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--land", action="store_true", help="land, as a part of a measurement")
    options = parser.parse_args()
    if options.land:
        land()
        return
    small, large = (measure(size) for size in SIZES)
    show(
        "Linear through its API",
        [
            Measurement(
                f"share of the allowed requests, {SIZES[1]:,} objects", large[0], None, 0.9
            ),
            Measurement(f"requests, {SIZES[1]:,} objects", large[1]),
            Measurement(
                f"peak memory, {SIZES[1]:,} objects, MB, to {SIZES[0]:,}",
                large[2],
                small[2],
                1.2,
                is_limit=True,
            ),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
