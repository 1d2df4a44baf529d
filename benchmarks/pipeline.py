"""The whole way from files to the vector store: time, memory, and what a reader sees meanwhile.

    python -m benchmarks.pipeline [--documents 20000] [--json FILE]

Embedding is replaced by a hash of the text (for timing only): how fast a model encodes is measured
in `benchmarks.embedding`. Everything else is real: files → dlt → Iceberg → dbt → pgvector, in a
stack of its own. Three scenarios, at `--documents` and at 200 documents:

- everything new, without the index: documents/s, peak memory, and what a reader polling every 2 ms
  sees of a document that is being changed;
- nothing new;
- one page changed, minus the time of the same build with nothing new.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
import uuid
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT, timed_process

PARAGRAPHS_PER_PAGE = 4
WORDS_PER_PARAGRAPH = 90
# A changed page costs less than two runs of dbt differ by: pairs of runs in one process.
ROUNDS = 15


@dataclass(frozen=True)
class Step:
    """One timed child process.

    Attributes:
        name: what ran.
        seconds: wall time.
        peak_mb: highest resident memory of the process, without the stack's services.
    """

    name: str
    seconds: float
    peak_mb: float


def write_export(folder: Path, documents: int, edition: int = 0) -> None:
    """Write a Notion export of generated pages; in later editions the first differs in a paragraph.

    What is said in a paragraph differs from edition to edition.
    """
    folder.mkdir(parents=True, exist_ok=True)
    edited = f"2026-10-{1 + edition:02d}T10:00:00.000Z"
    (folder / "export.json").write_text(json.dumps({"exported_at": edited}))
    with (folder / "pages.jsonl").open("w") as pages, (folder / "blocks.jsonl").open("w") as blocks:
        for number in range(documents):
            changed = edition if number == 0 else 0
            page_id = str(uuid.UUID(int=number + 1))
            pages.write(json.dumps(page(page_id, number, edited if changed else None)) + "\n")
            blocks.write(json.dumps(children(page_id, number, changed)) + "\n")


def page(page_id: str, number: int, edited: str | None) -> dict[str, object]:
    """A page object in the API's shape."""
    created = "2026-10-01T09:00:00.000Z"
    text = f"Page {number}"
    return {
        "object": "page",
        "id": page_id,
        "created_time": created,
        "last_edited_time": edited or created,
        "created_by": {"object": "user", "id": str(uuid.UUID(int=1))},
        "last_edited_by": {"object": "user", "id": str(uuid.UUID(int=1))},
        "parent": {"type": "workspace", "workspace": True},
        "archived": False,
        "in_trash": False,
        "properties": {"title": {"id": "title", "type": "title", "title": [rich_text(text)]}},
        "url": f"https://www.notion.so/{page_id.replace('-', '')}",
    }


def children(page_id: str, number: int, edition: int) -> dict[str, object]:
    """The answer that lists a page's blocks: a heading and a paragraph, several times."""
    words = random.Random(number)
    results = []
    for index in range(PARAGRAPHS_PER_PAGE):
        text = " ".join(words.choice(VOCABULARY) for _ in range(WORDS_PER_PARAGRAPH))
        if edition and index == 1:
            text += f" and this was added in edition {edition}"
        for kind, content in (("heading_2", f"Part {index} of {number}"), ("paragraph", text)):
            block_id = uuid.uuid5(uuid.UUID(page_id), f"{kind}{index}")
            results.append(
                {
                    "object": "block",
                    "id": str(block_id),
                    "parent": {"type": "page_id", "page_id": page_id},
                    "type": kind,
                    "has_children": False,
                    "in_trash": False,
                    kind: {"rich_text": [rich_text(content)]},
                }
            )
    return {"object": "list", "results": results, "next_cursor": None, "has_more": False}


def rich_text(content: str) -> dict[str, object]:
    """One run of plain rich text."""
    return {"type": "text", "text": {"content": content}, "plain_text": content, "annotations": {}}


VOCABULARY = re.findall(
    r"\w+",
    "service deploy retry queue invoice customer latency rollback index schema billing search "
    "page alert region cache token batch vector cluster budget owner review release incident",
)


def timed(name: str, arguments: list[str], environment: dict[str, str]) -> Step:
    """Run a step of this benchmark as a process of its own, and show what it took."""
    seconds, peak_mb = timed_process(["benchmarks.pipeline", *arguments], environment)
    step = Step(name, round(seconds, 2), round(peak_mb))
    print(f"  {step.name:<44}{step.seconds:>8.2f} s {step.peak_mb:>7.0f} MB", flush=True)
    return step


def run_scenarios(documents: int, workspace: Path) -> dict[str, Any]:
    """All steps at one size, in a stack of its own."""
    from loreline.settings import Settings
    from loreline.stack import down, up

    home = workspace / f"home-{documents}"
    environment = {**os.environ, "LORELINE_HOME": str(home), "LORELINE_TARGET": "local"}
    environment |= {"DBT_TARGET_PATH": str(home / "dbt"), "DBT_LOG_PATH": str(home / "dbt")}
    write_export(workspace / f"first-{documents}", documents)
    editions = [workspace / f"one-{documents}-{n}" for n in range(1, ROUNDS + 2)]
    for n, folder in enumerate(editions, start=1):
        write_export(folder, 1, edition=n)
    copy_project(home / "project")
    up(home)
    try:
        print(f"{documents} documents", flush=True)
        os.environ["LORELINE_HOME"] = str(home)
        assert Settings.load().home == home
        first = str(workspace / f"first-{documents}")
        steps = {
            "parse": timed("dbt parse", ["--step", "parse"], environment),
            "land": timed("land, everything new", ["--step", "land", first], environment),
            "build": timed("build, everything new", ["--step", "build"], environment),
            "land again": timed("land, nothing new", ["--step", "land", first], environment),
            "build again": timed("build, nothing new", ["--step", "build"], environment),
        }
        arguments = ["--step", "land", str(editions[0])]
        steps["land one"] = timed("land, one page changed", arguments, environment)
        steps["build one"] = watched(environment)
        arguments = ["--step", "pairs", *map(str, editions[1:])]
        timed(f"{ROUNDS} times: one page, nothing", arguments, environment)
        pairs = json.loads((home / "pairs.json").read_text())
        cost = statistics.median(one - none for one, none in pairs)
        steps["one page"] = Step("of which the page, median", round(cost, 3), 0)
        print(f"  {steps['one page'].name:<44}{cost:>8.3f} s", flush=True)
        notes = index_seconds(home).read_text().split()
        steps["index"] = Step("of which indexes", round(sum(map(float, notes)), 2), 0)
        print(f"  {steps['index'].name:<44}{steps['index'].seconds:>8.2f} s", flush=True)
    finally:
        down(home)
    return steps


@dataclass(frozen=True)
class WatchedStep(Step):
    """A build during which a reader looked at the changed document every 2 ms.

    Attributes:
        looks: how often it looked.
        absent: how often the document was not there.
        doubled: how often two versions of it were.
    """

    looks: int = 0
    absent: int = 0
    doubled: int = 0


def watched(environment: dict[str, str]) -> WatchedStep:
    """Build the one changed page while a reader watches it in every served collection."""
    from loreline.postgres import connect
    from loreline.settings import Settings

    doc_id = f"notion:{uuid.UUID(int=1)}"
    seen: list[tuple[int, int]] = []
    ended = threading.Event()
    with connect(Settings.load(), autocommit=True) as connection:
        tables = connection.execute(
            "select serving.chunk_table(table_number) from serving.collections"
            " where status = 'served'"
        ).fetchall()

        def look() -> None:
            while not ended.wait(0.002):
                for (table,) in tables:
                    row = connection.execute(
                        f"select count(*), count(distinct document_version_id) from {table}"
                        " where doc_id = %s",
                        (doc_id,),
                    ).fetchone()
                    assert row is not None
                    seen.append(row)

        reader = threading.Thread(target=look)
        reader.start()
        try:
            step = timed("build, one page changed", ["--step", "build"], environment)
        finally:
            ended.set()
            reader.join()
    absent = sum(rows == 0 for rows, _ in seen)
    doubled = sum(versions > 1 for _, versions in seen)
    print(f"  {len(seen):,} looks: absent {absent}, two versions at once {doubled}", flush=True)
    return WatchedStep(**asdict(step), looks=len(seen), absent=absent, doubled=doubled)


def time_index_builds() -> None:
    """Write how long the indexes of new collections took to where the parent reads it."""
    from loreline.serving.chunk_table import ChunkTable

    build_indexes = ChunkTable.build_indexes

    def timed_build(table: ChunkTable, *arguments: int) -> None:
        started = time.monotonic()
        build_indexes(table, *arguments)
        with index_seconds(Path(os.environ["LORELINE_HOME"])).open("a") as file:
            file.write(f"{time.monotonic() - started}\n")

    ChunkTable.build_indexes = timed_build  # type: ignore[method-assign]


def index_seconds(home: Path) -> Path:
    """Where a stack's builds note the seconds of their index builds, one a line."""
    return home / "index_seconds.txt"


def run_step(step: str, arguments: list[str]) -> None:
    """What a child process does."""
    from loreline.settings import Settings

    if step == "land":
        import dlt_sources

        dlt_sources.load(Settings.load(), "notion", arguments[0])
        return
    stub_embedding()
    time_index_builds()
    if step == "pairs":
        pairs = [timed_pair(Path(folder)) for folder in arguments]
        (Path(os.environ["LORELINE_HOME"]) / "pairs.json").write_text(json.dumps(pairs))
    else:
        run_dbt(step)


def timed_pair(edition: Path) -> tuple[float, float]:
    """Seconds of a build with one changed page, and of the same build with nothing new."""
    import dlt_sources
    from loreline.settings import Settings

    dlt_sources.load(Settings.load(), "notion", edition)
    seconds = []
    for _ in range(2):
        gc.collect()
        started = time.monotonic()
        run_dbt("build")
        seconds.append(time.monotonic() - started)
    return seconds[0], seconds[1]


def run_dbt(command: str) -> None:
    """Parse the project, or build and test it."""
    from dbt.cli.main import dbtRunner

    arguments = (
        [command] if command == "parse" else [command, "--exclude-resource-type", "unit_test"]
    )
    folder = str(Path(os.environ["LORELINE_HOME"]) / "project")
    result = dbtRunner().invoke([*arguments, "--project-dir", folder, "--profiles-dir", folder])
    if not result.success:
        sys.exit(f"dbt {command} failed: {result.exception}")


def copy_project(folder: Path) -> None:
    """The dbt project with one chunking strategy, so that a page has four chunks."""
    for name in ("macros", "models", "python_models", "seeds", "tests/dbt"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("dbt_project.yml", "profiles.yml"):
        shutil.copy(ROOT / name, folder / name)
    seed = folder / "seeds" / "chunking_strategies.csv"
    seed.write_text(re.sub(r"(?m)^(recursive,.*),served,", r"\1,retired,", seed.read_text()))


def stub_embedding() -> None:
    """Put vectors made from the text's hash in the place of the model's."""
    import numpy as np

    from loreline import embedding

    class HashEncoder:
        """Deterministic unit vectors, as fast as random numbers."""

        def __init__(self, configuration: embedding.EmbeddingConfiguration) -> None:
            self.configuration = configuration

        def token_counts(self, texts: list[str]) -> list[int]:
            return [len(text) // 4 for text in texts]

        def encode(self, texts: list[str]) -> np.ndarray:
            seeds = [zlib.crc32(text.encode()) for text in texts]
            rows = [np.random.default_rng(seed).standard_normal(384) for seed in seeds]
            vectors = np.asarray(rows, dtype=np.float32)
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    embedding.load_encoder = lambda configuration, settings: HashEncoder(configuration)


def main() -> None:
    """Run at both sizes and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    if options.step:
        run_step(options.step, options.arguments)
        return
    workspace = Path(tempfile.mkdtemp(prefix="loreline-benchmark-"))
    try:
        small = run_scenarios(200, workspace)
        large = run_scenarios(options.documents, workspace)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    cost = {"small": small["one page"].seconds, "large": large["one page"].seconds}
    result = {
        "documents": options.documents,
        "files to store, indexes aside (s)": round(
            large["land"].seconds + large["build"].seconds - large["index"].seconds, 1
        ),
        "peak memory (MB)": max(large["land"].peak_mb, large["build"].peak_mb),
        "nothing new (s)": round(large["land again"].seconds + large["build again"].seconds, 1),
        "reader saw the document absent, doubled": [
            large["build one"].absent,
            large["build one"].doubled,
        ],
        "one page, small, large (s)": list(cost.values()),
        "one page, large / small": round(cost["large"] / cost["small"], 2),
        "steps": {
            "200": {name: asdict(step) for name, step in small.items()},
            str(options.documents): {name: asdict(step) for name, step in large.items()},
        },
    }
    for name, value in result.items():
        if name != "steps":
            print(f"{name:<36}{value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
