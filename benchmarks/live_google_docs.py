"""Reading Google Docs through the APIs: whether their rate limit bounds a walk, or we do."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import timed_process
from benchmarks.sandbox import Measurement, arguments, show
from tests.simulators.api import Answer, Asked, serving
from tests.simulators.google_drive import FOLDER, TOKEN, Workspace

# The Docs API allows an account 300 reads a minute; ten times that makes the walk harder to keep up
# with, and shorter.
RATE = 50.0
SIZES = (2_000, 10_000)


@dataclass
class Watched(Workspace):
    """A workspace that notes when it was asked."""

    moments: list[float] = field(default_factory=list)

    def answer(self, asked: Asked) -> Answer:
        """One request."""
        self.moments.append(time.monotonic())
        return super().answer(asked)


def workspace(objects: int) -> Watched:
    """Documents of 4 KB in a hundred folders, a quarter of them in two shared drives."""
    made = Watched()
    drives = [made.add_drive() for _ in range(2)]
    tops = [None, None, None, None, None, None, *drives]
    folders = [made.create(f"Folder {n}", tops[n % 8], kind=FOLDER) for n in range(100)]
    for n in range(objects - len(folders)):
        document = made.create(f"Note {n}", folders[n % 100])
        made.items[document].texts = [f"The till hangs after receipt {n}. " * 120]
    return made


def measure(objects: int) -> tuple[float, float, float, int]:
    """Read a workspace of that many objects, and then once more with nothing new.

    Returns:
        The share of the allowed requests that were made, their number, the peak memory in MB, and
        the requests of the second run.
    """
    from loreline.stack import down, up

    google = workspace(objects)
    with (
        tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder,
        serving(google, rate=RATE, keeps_requests=False) as server,
    ):
        home = Path(folder)
        up(home)
        try:
            environment = {
                **os.environ,
                "LORELINE_HOME": str(home),
                "LORELINE_TARGET": "local",
                "LORELINE_GOOGLE_CREDENTIALS": TOKEN,
                "LORELINE_GOOGLE_URL": server.url,
                "LORELINE_GOOGLE_DOCS_URL": server.url,
                "LORELINE_GOOGLE_RATE": f"{RATE}",
            }
            command = ["benchmarks.live_google_docs", "--land"]
            seconds, peak_mb = timed_process(command, environment)
            moments = list(google.moments)
            timed_process(command, environment)
            again = len(google.moments) - len(moments)
        finally:
            down(home)
    walked = moments[-1] - moments[0]
    print(
        f"  {objects:,} objects: {len(moments):,} requests in {walked:.0f} s,"
        f" {server.limited} too many, {seconds:.0f} s in all, {peak_mb:.0f} MB; then {again}"
    )
    return (len(moments) - 1) / walked / RATE, len(moments), peak_mb, again


def land() -> None:
    """What `loreline ingest google_docs` does, in a process of its own."""
    from dlt_sources.google_docs.live import GoogleDocs
    from dlt_sources.live import load_live
    from loreline.settings import Settings

    settings = Settings.load()
    load_live(settings, "google_docs", GoogleDocs(settings))


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
        "Google Docs through the APIs",
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
            Measurement(
                f"requests with nothing new, {SIZES[1]:,} objects, to {SIZES[0]:,}",
                large[3],
                small[3],
                1.0,
                is_limit=True,
            ),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
