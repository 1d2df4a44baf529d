"""From the delivery of a webhook to the first search that finds what was edited.

    python -m benchmarks.searchable [--documents 20000] [--rounds 10] [--json FILE]

`loreline serve` with its worker; Notion is its simulator, which is asked for the page as the real
one is. A page is edited, the delivery posted, and a reader searches for the new words every 0.1 s
until it finds them: in the sample workspace, and in the same with `--documents` more, which has a
stack of its own, in turn, so that both meet the same machine; and in the larger while a first walk
of 3,000 other pages (`loreline ingest notion`) goes on at the three requests a second that Notion
allows. The texts of the additional documents are not embedded but hashed: what is timed embeds.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from benchmarks.pipeline import stub_embedding, write_export
from benchmarks.process import ROOT, timed_process
from benchmarks.sandbox import Measurement, arguments, show
from benchmarks.webhooks import SECRET, dumped, signature
from loreline import stack
from loreline.inbox.work import BUILD_ARGUMENTS
from loreline.postgres import connect
from loreline.serving.search import search
from loreline.settings import Settings
from tests.simulators.api import Server, serving
from tests.simulators.notion import TOKEN, Workspace

LIMIT_SECONDS = 5.0
LARGE_TO_SMALL = 1.2
PAGES = 20
# So many are walked while deliveries come, each two requests or three.
WALKED_PAGES = 3_000
WALK_RATE = 3
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_AT_MOST = 300
SECONDS_BETWEEN_DELIVERIES = 1.0
LORELINE = [
    sys.executable,
    "-c",
    "import sys; from loreline.cli import main; sys.exit(main())",
]


class Site:
    """A stack of its own, and what runs on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        stack.up(home)
        self.environment = os.environ | {"LORELINE_HOME": str(home), "LORELINE_TARGET": "local"}
        os.environ |= self.environment
        self.settings = Settings.load()

    def fill(self, *export: str) -> None:
        """Land the sample, and an export; in a process of its own, as it builds."""
        arguments = ["benchmarks.searchable", "--step", *export]
        seconds, _ = timed_process(arguments, self.environment)
        print(f"{self.home.name} built: {seconds:.0f} s", flush=True)

    @contextmanager
    def service(self) -> Iterator[int]:
        """`loreline serve` with its worker, once it has built what was landed; its port."""
        log = self.home / "serve.log"
        with log.open("w") as told:
            process = subprocess.Popen(
                [*LORELINE, "serve", "--port", "0"],
                cwd=ROOT,
                env=self.environment | {"PYTHONUNBUFFERED": "1"},
                stdout=told,
                stderr=told,
            )
        try:
            while "waiting for deliveries" not in log.read_text():
                if process.poll() is not None:
                    sys.exit(log.read_text())
                time.sleep(0.1)
            address = re.search(r"http://\S+:(\d+)/", log.read_text())
            assert address
            yield int(address[1])
        finally:
            process.terminate()
            process.wait()
            print(log.read_text())


def post(port: int, page: str) -> None:
    """Deliver that a page was edited."""
    body = dumped(
        {
            "id": str(uuid.uuid4()),
            "type": "page.content_updated",
            "entity": {"id": page, "type": "page"},
        }
    )
    headers = {"X-Notion-Signature": f"sha256={signature(body)}"}
    address = f"http://127.0.0.1:{port}/webhooks/notion"
    with urllib.request.urlopen(urllib.request.Request(address, body, headers)) as answer:
        assert answer.status == 200


def seconds_until_found(workspace: Workspace, page: str, site: Site, port: int) -> float:
    """Edit a page, deliver it, and wait until it is found."""
    word = f"w{uuid.uuid4().hex}"
    workspace.now += timedelta(minutes=1)
    workspace.add_block(page, f"The rollback of the till is called {word} from now on.")
    began = time.monotonic()
    post(port, page)
    with connect(site.settings, autocommit=True) as connection:
        while not search(connection, site.settings, word, None, filters={"source": "notion"}):
            if time.monotonic() - began > SECONDS_AT_MOST:
                sys.exit(f"{page} was not found within {SECONDS_AT_MOST} s")
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return time.monotonic() - began


def measured(
    workspace: Workspace, pages: list[str], services: Mapping[Site, int], rounds: int
) -> list[list[float]]:
    """Seconds of several edits at each site, in turn; a first one warms up."""
    taken: list[list[float]] = [[] for _ in services]
    for number in range(rounds + 1):
        for found, (site, port) in zip(taken, services.items(), strict=True):
            found.append(seconds_until_found(workspace, pages[number % len(pages)], site, port))
            # What a build does once the search finds its result belongs to no delivery.
            time.sleep(SECONDS_BETWEEN_DELIVERIES)
    for found in taken:
        print(" ".join(f"{seconds:.2f}" for seconds in found), flush=True)
    return [found[1:] for found in taken]


@contextmanager
def walking(server: Server, workspace: Workspace, site: Site) -> Iterator[None]:
    """A walk of many pages through the API meanwhile."""
    for number in range(WALKED_PAGES):
        workspace.add_page(f"Walked {number}")
    environment = site.environment | {"LORELINE_NOTION_RATE": str(WALK_RATE)}
    process = subprocess.Popen([*LORELINE, "ingest", "notion"], cwd=ROOT, env=environment)
    try:
        answered = server.answered
        # What it lists first, and some pages.
        while server.answered < answered + 60:
            assert process.poll() is None
            time.sleep(0.05)
        yield
        assert process.poll() is None, "the walk was over before the last delivery was found"
    finally:
        process.terminate()
        process.wait()


def run_step(given: list[str]) -> None:
    """What a child process does: land the sample, and an export; build."""
    from loreline.cli import build, sample

    settings = Settings.load()
    sample.land(settings)
    if given:
        import dlt_sources

        dlt_sources.load(settings, "notion", given[0])
        stub_embedding()
    # As the worker does, so that it finds all of it up to date.
    done = build.run(settings, BUILD_ARGUMENTS, show=build.Show.problems, changed=True)
    sys.exit(done.exit_code)


def run(documents: int, rounds: int, homes: Sequence[Path]) -> list[Measurement]:
    """All scenarios."""
    workspace = Workspace()
    pages = [workspace.add_page(f"Benchmark {n}").id for n in range(PAGES)]
    with serving(workspace) as server:
        os.environ |= {
            "LORELINE_NOTION_URL": server.url,
            "LORELINE_NOTION_TOKEN": TOKEN,
            "LORELINE_NOTION_WEBHOOK_TOKEN": SECRET,
            "LORELINE_NOTION_RATE": "0",
        }
        sample, larger = map(Site, homes)
        sample.fill()
        write_export(larger.home / "export", documents)
        larger.fill(str(larger.home / "export"))
        with larger.service() as port:
            with sample.service() as other:
                services = {sample: other, larger: port}
                small, large = measured(workspace, pages, services, rounds)
            with walking(server, workspace, larger):
                (meanwhile,) = measured(workspace, pages, {larger: port}, rounds)
    median, most = statistics.median, "s from the delivery to the search that finds it"
    names = ("sample workspace", f"{documents:,} documents", "the same, during a walk")
    found = [
        Measurement(f"{most}: {name}, median", median(each), None, LIMIT_SECONDS, is_limit=True)
        for name, each in zip(names, (small, large, meanwhile), strict=True)
    ]
    large_to_small = Measurement(
        f"{documents:,} documents against the sample",
        median(large),
        median(small),
        LARGE_TO_SMALL,
        is_limit=True,
    )
    return [*found, large_to_small]


def main() -> None:
    """Measure in a stack of its own."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--step", action="store_true")
    parser.add_argument("given", nargs="*")
    options = parser.parse_args()
    if options.step:
        run_step(options.given)
    folder = Path(tempfile.mkdtemp(prefix="loreline-benchmark-"))
    homes = [folder / "sample", folder / "larger"]
    try:
        found = run(options.documents, options.rounds, homes)
    finally:
        for home in homes:
            stack.down(home)
        shutil.rmtree(folder, ignore_errors=True)
    show("searchable", found, options.json)


if __name__ == "__main__":
    main()
