"""Reading a source through its API: how much of the allowed rate is used, and what memory it takes.

    python -m benchmarks.live SOURCE [--objects 2000 10000] [--rate R] [--json FILE]

A simulator of the service, in a process of its own, answers no more requests per second than it is
told to, more get 429; that is several times what the service itself allows, which is harder to keep
up with. The first run reads all objects, the second and third find nothing new. Each number of
objects has a process of its own, whose highest resident memory is taken.
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
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.sandbox import Measurement, arguments, show
from dlt_sources.live import LiveSource, load_live
from dlt_sources.live_sources import live_source
from loreline import postgres, stack
from loreline.settings import Settings
from tests.simulators import google_drive, notion
from tests.simulators.api import Answer, Asked, Server, Service, serving
from tests.simulators.linear import Linear
from tests.simulators.slack import Slack

# Beside the service's own paths: how many requests it has answered and refused, and when.
COUNTS = "/counts"
TEXT = "connection pool exhausted after 30 s waiting, retrying in the background with a new lease "
SLACK_CHANNELS = 20
SLACK_REPLIES = 5


def notion_workspace(objects: int) -> notion.Workspace:
    """Pages: half of them rows of ten data sources, half below each other; a tenth is commented."""
    workspace = notion.Workspace()
    home = workspace.add_page("Home").id
    sources = [workspace.add_source(f"Table {n}", home).id for n in range(10)]
    pages = [home]
    for n in range(objects - 1):
        if n % 2:
            page = workspace.add_page(f"Row {n}", source=sources[n % 10])
        else:
            page = workspace.add_page(f"Page {n}", pages[n // 20])
        workspace.add_block(page.id, TEXT * 5)
        if n % 10 == 0:
            workspace.comment(page.id, "Is that so?")
        pages.append(page.id)
    workspace.now += timedelta(days=1)
    return workspace


def slack_workspace(objects: int) -> Slack:
    """Messages: a third of them replies, five to a thread, and no thread still open."""
    slack = Slack()
    channels = [slack.add_channel() for _ in range(SLACK_CHANNELS)]
    threads = objects // 3 // SLACK_REPLIES
    for number in range(objects - threads * SLACK_REPLIES):
        channel = channels[number % SLACK_CHANNELS]
        root = slack.post(channel, TEXT * 4)
        for _ in range(SLACK_REPLIES if number < threads else 0):
            slack.post(channel, TEXT, thread=root, user="U0BOB")
    slack.advance(60 * 86_400)
    for channel in channels:
        slack.post(channel, "the last one")
    return slack


def linear_workspace(objects: int) -> Linear:
    """Issues with histories, comments and attachments, so many in all."""
    linear = Linear()
    people = [linear.user(f"Person {n}") for n in range(20)]
    teams = [linear.team(f"T{n}", members=people[n::5], private=n == 0) for n in range(5)]
    for n in range(objects // 5):
        creator = people[n % 20]
        issue = linear.issue(teams[n % 5], f"Issue {n}", description=TEXT * 9, creator=creator)
        linear.create("comments", body=TEXT * 9, issue=issue, user=creator)
        linear.create("comments", body="Seen here too.", issue=issue, user=people[n % 7])
        linear.create("attachments", title="Log", issue=issue)
    return linear


def google_workspace(objects: int) -> google_drive.Workspace:
    """Documents of 4 KB in a hundred folders, a quarter of them in two shared drives."""
    made = google_drive.Workspace()
    drives = [made.add_drive() for _ in range(2)]
    tops = [None, None, None, None, None, None, *drives]
    folders = [
        made.create(f"Folder {n}", tops[n % 8], kind=google_drive.FOLDER) for n in range(100)
    ]
    for n in range(objects - len(folders)):
        document = made.create(f"Note {n}", folders[n % 100])
        made.items[document].texts = [f"The till hangs after receipt {n}. " * 120]
    return made


@dataclass(frozen=True)
class Simulated:
    """A service that is simulated.

    Attributes:
        workspace: makes one of so many objects.
        fields: of the settings, for an address; `*_rate` comes to them.
        rate: requests per second that are allowed.
        times: how many times as many that is as the service allows.
    """

    workspace: Callable[[int], Service]
    fields: Callable[[str], Mapping[str, str]]
    rate: float
    times: float


SOURCES = {
    # https://developers.notion.com/reference/request-limits: three requests a second.
    "notion": Simulated(
        notion_workspace,
        lambda url: {"notion_url": url, "notion_token": notion.TOKEN},
        30.0,
        10,
    ),
    # https://docs.slack.dev/apis/web-api/rate-limits: tier 3, fifty a minute.
    "slack": Simulated(
        slack_workspace,
        lambda url: {"slack_url": f"{url}/api", "slack_token": "xoxb-1"},
        10.0,
        12,
    ),
    # https://linear.app/developers/rate-limiting: 5,000 an hour.
    "linear": Simulated(
        linear_workspace,
        lambda url: {"linear_url": f"{url}/graphql", "linear_api_key": "lin_api_key"},
        5_000 / 3_600,
        1,
    ),
    # https://developers.google.com/workspace/docs/api/limits: 300 reads a minute and user.
    "google_docs": Simulated(
        google_workspace,
        lambda url: {
            "google_url": url,
            "google_docs_url": url,
            "google_credentials": google_drive.TOKEN,
        },
        50.0,
        10,
    ),
}
RATES = {"google_docs": "google_rate"}


def reading(settings: Settings, source: str, url: str, rate: float) -> LiveSource:
    """A source at its simulator."""
    given = {**SOURCES[source].fields(url), RATES.get(source, f"{source}_rate"): f"{rate:g}"}
    found = live_source(dataclasses.replace(settings, **given), source)
    assert found
    return found


def serve(source: str, objects: int, rate: float) -> None:
    """Serve a simulator until nobody listens any more; its address is the first line."""
    service = SOURCES[source].workspace(objects)

    class Counted:
        first = last = 0.0

        def answer(self, asked: Asked) -> Answer:
            if asked.path == COUNTS:
                # This one is no request of the source's.
                server.answered -= 1
                seconds, self.first = self.last - self.first, 0.0
                counts = {"answered": server.answered, "limited": server.limited}
                return Answer({**counts, "seconds": seconds})
            self.last = time.monotonic()
            self.first = self.first or self.last
            return service.answer(asked)

    with serving(Counted(), rate=rate, keeps_requests=False) as server:
        _tell(service, server)
        print(server.url, flush=True)
        sys.stdin.read()


def _tell(service: Service, server: Server) -> None:
    if isinstance(service, Slack):
        service.server = server
        server.clock_skew = service.offset


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

    def counts() -> dict[str, float]:
        """Since the last time: seconds between the first request and the last."""
        while (answer := httpx2.get(f"{url}{COUNTS}")).status_code != 200:
            time.sleep(0.1)
        return answer.json()

    fetching = reading(settings, source, url, rate)
    before, started, worked = counts(), time.perf_counter(), time.process_time()
    summary = load_live(settings, source, fetching)
    seconds, after = time.perf_counter() - started, counts()
    figures: dict[str, float] = {
        "rows": summary.rows,
        "seconds": seconds,
        "asked": after["seconds"],
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
    with served(source, 200, 1_000) as url:
        load_live(few, source, reading(few, source, url, 0))
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
        reached = (found["requests"] - 1) / found["asked"]
        yield Measurement(f"{size:,} objects, requests/s of those allowed", reached, rate, 0.9)
        yield Measurement(f"{size:,} objects, requests", found["requests"])
        yield Measurement(f"{size:,} objects, refused as too many", found["limited"])
        yield Measurement(f"{size:,} objects, rows", found["rows"])
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
    parser.add_argument("--rate", type=float, help="requests per second")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    simulated = SOURCES[options.source]
    rate = options.rate or simulated.rate
    if options.serve:
        serve(options.source, options.objects[0], rate)
        return
    if options.child:
        child(options.child, options.source, options.objects[0], rate)
        return
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder)
        stack.up(home)
        try:
            figures = [in_a_process(home, options.source, size, rate) for size in options.objects]
        finally:
            stack.down(home)
    of_limit = rate / simulated.rate * simulated.times
    title = f"{options.source} through its API, {rate:g} requests/s allowed, {of_limit:g} × its own"
    show(title, list(measurements(options.objects, figures, rate)), options.json)


if __name__ == "__main__":
    main()
