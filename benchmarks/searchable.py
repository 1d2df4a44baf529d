"""From the delivery of a webhook to the first search that finds what was edited.

    python -m benchmarks.searchable [--documents 20000] [--rounds 10] [--json FILE]

`loreline serve` with its worker, in a stack of its own; Notion is its simulator, which is asked for
the page as the real one is. A page is edited, the delivery posted, and a reader searches for the
new words every 0.1 s until it finds them. In the sample workspace; in the same with `--documents`
more; and there while a first walk of 3,000 other pages (`loreline ingest notion`) goes on at the
three requests a second that Notion allows. The texts of the additional documents are not embedded
but hashed: what is timed embeds.
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
from collections.abc import Iterator
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
LORELINE = [
    sys.executable,
    "-c",
    "import sys; from loreline.cli import main; sys.exit(main())",
]


@contextmanager
def service() -> Iterator[int]:
    """`loreline serve` with its worker; its port."""
    log = Path(os.environ["LORELINE_HOME"]) / "serve.log"
    with log.open("w") as told:
        process = subprocess.Popen(
            [*LORELINE, "serve", "--port", "0"],
            cwd=ROOT,
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
            stdout=told,
            stderr=told,
        )
    try:
        while not (address := re.search(r"http://\S+:(\d+)/", log.read_text())):
            if process.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(0.1)
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


def seconds_until_found(workspace: Workspace, page: str, port: int) -> float:
    """Edit a page, deliver it, and wait until it is found."""
    word = f"w{uuid.uuid4().hex}"
    workspace.now += timedelta(minutes=1)
    workspace.add_block(page, f"The rollback of the till is called {word} from now on.")
    settings = Settings.load()
    began = time.monotonic()
    post(port, page)
    with connect(settings, autocommit=True) as connection:
        while not search(connection, settings, word, None, filters={"source": "notion"}):
            if time.monotonic() - began > SECONDS_AT_MOST:
                sys.exit(f"{page} was not found within {SECONDS_AT_MOST} s")
            time.sleep(SECONDS_BETWEEN_LOOKS)
    return time.monotonic() - began


def measured(workspace: Workspace, pages: list[str], port: int, rounds: int) -> list[float]:
    """Seconds of several edits, one after the other; a first one warms up."""
    seconds_until_found(workspace, pages[0], port)
    taken = [
        seconds_until_found(workspace, pages[n % len(pages)], port) for n in range(1, rounds + 1)
    ]
    print(" ".join(f"{seconds:.2f}" for seconds in taken), flush=True)
    return taken


@contextmanager
def walking(server: Server, workspace: Workspace) -> Iterator[None]:
    """A walk of many pages through the API meanwhile."""
    for number in range(WALKED_PAGES):
        workspace.add_page(f"Walked {number}")
    environment = os.environ | {"LORELINE_NOTION_RATE": str(WALK_RATE)}
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


def step(name: str, *given: str) -> None:
    """Run a step of this benchmark in a process of its own."""
    seconds, _ = timed_process(["benchmarks.searchable", "--step", name, *given], dict(os.environ))
    print(f"{name}: {seconds:.0f} s", flush=True)


def run_step(name: str, given: list[str]) -> None:
    """What a child process does."""
    from loreline.cli import build, sample

    settings = Settings.load()
    if name == "sample":
        sample.land(settings)
    elif name == "documents":
        import dlt_sources

        dlt_sources.load(settings, "notion", given[0])
        stub_embedding()
    # As the worker does, so that it finds all of it up to date.
    done = build.run(settings, BUILD_ARGUMENTS, show=build.Show.problems, changed=True)
    sys.exit(done.exit_code)


def run(documents: int, rounds: int, home: Path) -> list[Measurement]:
    """All scenarios."""
    workspace = Workspace()
    pages = [workspace.add_page(f"Benchmark {n}").id for n in range(PAGES)]
    step("sample")
    with serving(workspace) as server:
        os.environ |= {
            "LORELINE_NOTION_URL": server.url,
            "LORELINE_NOTION_TOKEN": TOKEN,
            "LORELINE_NOTION_WEBHOOK_TOKEN": SECRET,
            "LORELINE_NOTION_RATE": "0",
        }
        with service() as port:
            small = measured(workspace, pages, port, rounds)
        write_export(home / "export", documents)
        step("documents", str(home / "export"))
        with service() as port:
            large = measured(workspace, pages, port, rounds)
            with walking(server, workspace):
                meanwhile = measured(workspace, pages, port, rounds)
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
    parser.add_argument("--step")
    parser.add_argument("given", nargs="*")
    options = parser.parse_args()
    if options.step:
        run_step(options.step, options.given)
    home = Path(tempfile.mkdtemp(prefix="loreline-benchmark-"))
    os.environ |= {"LORELINE_HOME": str(home), "LORELINE_TARGET": "local"}
    try:
        stack.up(home)
        found = run(options.documents, options.rounds, home)
    finally:
        stack.down(home)
        shutil.rmtree(home, ignore_errors=True)
    show("searchable", found, options.json)


if __name__ == "__main__":
    main()
