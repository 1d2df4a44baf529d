"""Reading a source through its API: how much of the allowed rate is used, and what memory it takes.

    python -m benchmarks.live SOURCE [--objects 2000 10000] [--rate 100] [--json FILE]

A simulator of the service, in a process of its own, answers no more requests per second than it is
told to; more get 429. The first run reads all objects, the second and third find nothing new. Each
number of objects has a process of its own, whose highest resident memory is taken.
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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from benchmarks.sandbox import Measurement, arguments, show
from dlt_sources.live import LiveSource, load_live
from dlt_sources.notion.live import Notion
from loreline import postgres, stack
from loreline.settings import Settings
from tests.simulators.api import Answer, Asked, Service, serving
from tests.simulators.notion import TOKEN, Workspace

# Beside the service's own paths: how many requests it has answered, and how many it has refused.
COUNTS = "/counts"


def notion_workspace(objects: int) -> Service:
    """Pages: half of them rows of ten data sources, half below each other; a tenth is commented."""
    workspace = Workspace()
    home = workspace.add_page("Home").id
    sources = [workspace.add_source(f"Table {n}", home).id for n in range(10)]
    pages = [home]
    for n in range(objects - 1):
        if n % 2:
            page = workspace.add_page(f"Row {n}", source=sources[n % 10])
        else:
            page = workspace.add_page(f"Page {n}", pages[n // 20])
        workspace.add_block(page.id, f"This is what page {n} says. " * 20)
        if n % 10 == 0:
            workspace.comment(page.id, "Is that so?")
        pages.append(page.id)
    workspace.now += timedelta(days=1)
    return workspace


def notion(settings: Settings, url: str, rate: float) -> LiveSource:
    """Notion, at the simulator."""
    own = dataclasses.replace(settings, notion_url=url, notion_token=TOKEN, notion_rate=f"{rate:g}")
    return Notion(own)


# What is simulated, and how it is read.
SOURCES: Mapping[
    str, tuple[Callable[[int], Service], Callable[[Settings, str, float], LiveSource]]
] = {"notion": (notion_workspace, notion)}


def serve(source: str, objects: int, rate: float) -> None:
    """Serve a simulator until nobody listens any more; its address is the first line."""
    service = SOURCES[source][0](objects)

    class Counted:
        def answer(self, asked: Asked) -> Answer:
            if asked.path == COUNTS:
                # This one is no request of the source's.
                server.answered -= 1
                return Answer({"answered": server.answered, "limited": server.limited})
            return service.answer(asked)

    with serving(Counted(), rate=rate, keeps_requests=False) as server:
        print(server.url, flush=True)
        sys.stdin.read()


@contextmanager
def served(source: str, objects: int, rate: float) -> Iterator[str]:
    """The address of a simulator in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.live", source, "--serve"]
    with subprocess.Popen(
        [*command, "--objects", str(objects), "--rate", str(rate)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stdin
        yield process.stdout.readline().strip()
        process.stdin.close()


def measure(settings: Settings, source: str, url: str, rate: float) -> dict[str, float]:
    """Requests, seconds and memory of a first run, and requests of runs without anything new."""
    import httpx2

    def counts() -> dict[str, int]:
        while (answer := httpx2.get(f"{url}{COUNTS}")).status_code != 200:
            time.sleep(0.1)
        return answer.json()

    fetching = SOURCES[source][1](settings, url, rate)
    started, before = time.perf_counter(), counts()
    worked = time.process_time()
    summary = load_live(settings, source, fetching)
    seconds, after = time.perf_counter() - started, counts()
    figures: dict[str, float] = {
        "rows": summary.rows,
        "seconds": seconds,
        "cpu": time.process_time() - worked,
        "requests": after["answered"] - before["answered"],
        "limited": after["limited"] - before["limited"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    load_live(settings, source, fetching)
    before = counts()
    assert load_live(settings, source, fetching).rows == 0
    figures["nothing new"] = counts()["answered"] - before["answered"]
    return figures


def child(home: Path, source: str, objects: int, rate: float) -> None:
    """Measure one size and print the figures."""
    variables = json.loads((home / "stack.json").read_text())["variables"]
    names = {f.metadata["variable"]: f.name for f in dataclasses.fields(Settings)}
    given = {names[name]: value for name, value in variables.items()}
    settings = Settings(
        **given, target="ci", namespace_suffix=f"live{objects}", state_folder=str(home / "state")
    )
    # Imports and the first of everything are not what grows with objects.
    few = dataclasses.replace(settings, namespace_suffix="few")
    for each in (few, settings):
        postgres.upgrade(each)
    with served(source, 20, rate) as url:
        load_live(few, source, SOURCES[source][1](few, url, rate))
    with served(source, objects, rate) as url:
        print(json.dumps(measure(settings, source, url, rate)))


def in_a_process(home: Path, source: str, objects: int, rate: float) -> dict[str, float]:
    """The figures for a number of objects, from a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.live", source, "--child", str(home)]
    finished = subprocess.run(
        [*command, "--objects", str(objects), "--rate", str(rate)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(finished.stdout.splitlines()[-1])


def measurements(
    sizes: list[int], figures: list[dict[str, float]], rate: float
) -> Iterator[Measurement]:
    """The figures beside what they are held against."""
    for size, found in zip(sizes, figures, strict=True):
        reached = found["requests"] / found["seconds"]
        yield Measurement(f"{size:,} objects, requests/s of those allowed", reached, rate, 0.9)
        yield Measurement(f"{size:,} objects, requests", found["requests"])
        yield Measurement(f"{size:,} objects, refused as too many", found["limited"])
        yield Measurement(f"{size:,} objects, s", found["seconds"])
        milliseconds = 1_000 * found["cpu"] / found["requests"]
        yield Measurement(f"{size:,} objects, ms of CPU a request", milliseconds)
    first, last = figures[0], figures[-1]
    growth = f"{sizes[-1]:,} objects to {sizes[0]:,}"
    yield Measurement(f"peak memory, {growth}, MB", last["peak_mb"], first["peak_mb"], 1.25, True)
    name = f"requests without anything new, {growth}"
    yield Measurement(name, last["nothing new"], first["nothing new"], 1, True)


def main() -> None:
    """Run the benchmark."""
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("--objects", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.source, options.objects[0], options.rate)
        return
    if options.child:
        child(options.child, options.source, options.objects[0], options.rate)
        return
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder)
        stack.up(home)
        try:
            figures = [
                in_a_process(home, options.source, size, options.rate) for size in options.objects
            ]
        finally:
            stack.down(home)
    title = f"{options.source} through its API, {options.rate:g} requests/s allowed"
    show(title, list(measurements(options.objects, figures, options.rate)), options.json)


if __name__ == "__main__":
    main()
