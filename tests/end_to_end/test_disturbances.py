"""Whatever is killed, or done at once: the same state in the end, and no error for any reader.

A round of kills takes the sample workspace through two days. In each of its steps, on one of the
days, the process is killed at a moment that a seeded generator chooses; the step is then simply run
again. There are LORELINE_KILL_ROUNDS of them, 30 by default, all in `make soak`. The number of a
round decides its moments, which it prints.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loreline.settings import PROJECT_ROOT, Settings
from tests.end_to_end.lakehouse import (
    Lakehouse,
    Rows,
    State,
    differences,
    temporary_lakehouse,
    vectors,
)
from tests.end_to_end.watching import counting_all_the_while, searching_all_the_while
from tests.steps import Step

DAYS = ("day_one", "day_two")
SOURCES = ("notion", "slack")
STEPS = ("ingest", "build", "embed", "push", "maintain")

# The nodes during which a build is killed: from the start of the first to the end of the last.
NODES = {
    "build": ("stg_notion__pages", "chunks"),
    "embed": ("text_embeddings", "text_embeddings"),
    "push": ("vector_manifest", "vector_collections"),
}

# In each, each step is killed on each day.
ROUNDS = int(os.environ.get("LORELINE_KILL_ROUNDS", "30"))

KEYS = {
    "raw_notion.pages": "_dlt_id",
    "raw_slack.messages": "_dlt_id",
    "staging.stg_slack__messages": "raw_dlt_id",
    "knowledge.documents": "doc_id, version_number",
    "knowledge.documents_current": "doc_id",
    "knowledge.chunks": "chunk_id",
    "embedding.text_embeddings": "text_hash, config_hash",
    "serving.vector_manifest": "vector_collection, chunk_id",
}

PUBLIC = ("public",)
MEMBER = ("slack:U01VE6QFCNA",)  # of the private channel, on both days
PRIVATE_CHANNEL = "slack:C04GJM0PM9R:"


@dataclass
class Undisturbed:
    """A run that nothing disturbs: what there is after each day, and how long each step takes.

    Attributes:
        states: all that is held, by day.
        current: what holds now, without the way that led there, by day.
        seconds: by day and step; an ingest by day and source.
    """

    states: dict[str, State] = field(default_factory=dict)
    current: dict[str, State] = field(default_factory=dict)
    seconds: dict[tuple[str, str], float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def undisturbed(
    stack: Settings, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Undisturbed:
    run = Undisturbed()
    folder = tmp_path_factory.mktemp("undisturbed")
    with temporary_lakehouse(
        stack, folder, tiny_model=tiny_model, in_small_slices=True
    ) as lakehouse:
        for day in DAYS:
            for source in SOURCES:
                run.seconds[day, source] = seconds_of(start_landing(lakehouse, day, source))
            times = lakehouse.build().times
            for step, (first, last) in NODES.items():
                run.seconds[day, step] = times[last][1] - times[first][0]
            run.seconds[day, "maintain"] = seconds_of(start_maintaining(lakehouse))
            lakehouse.check_contents()
            run.states[day], run.current[day] = lakehouse.state(), current_state(lakehouse)
    return run


@pytest.fixture
def disturbed(stack: Settings, tiny_model: Path, tmp_path: Path) -> Iterator[Lakehouse]:
    with temporary_lakehouse(
        stack, tmp_path, tiny_model=tiny_model, in_small_slices=True
    ) as lakehouse:
        yield lakehouse


@pytest.mark.soak
@pytest.mark.parametrize("number", range(ROUNDS))
def test_what_was_killed_and_run_again_ends_as_if_nothing_had_happened(
    number: int, undisturbed: Undisturbed, disturbed: Lakehouse
) -> None:
    moments = random.Random(number)

    def kill(name: str, day: str, step: Step) -> None:
        seconds = undisturbed.seconds[day, name]
        moment = moments.uniform(0, seconds)
        step.wait_until_started()
        end = "killed" if step.kill(after=moment) else "over"
        print(f"{day}, {name}: {end} {moment:.3f} s after its start, of about {seconds:.3f}")

    for place, day in enumerate(DAYS):
        killed = {step for n, step in enumerate(STEPS) if (number + n) % len(DAYS) == place}
        victim = moments.choice(SOURCES)
        for source in SOURCES:
            if "ingest" in killed and source == victim:
                kill(source, day, start_landing(disturbed, day, source))
            start_landing(disturbed, day, source).result()
        for step, (first, _) in NODES.items():
            if step in killed:
                kill(step, day, disturbed.start_build(from_node=first))
        disturbed.build()
        check_state(disturbed, undisturbed.states[day])
        if "maintain" in killed:
            kill("maintain", day, start_maintaining(disturbed))
        start_maintaining(disturbed).result()
        check_state(disturbed, undisturbed.states[day])


@pytest.mark.soak
def test_two_builds_at_once_do_what_one_does(
    undisturbed: Undisturbed, disturbed: Lakehouse
) -> None:
    for day in DAYS:
        for source in SOURCES:
            start_landing(disturbed, day, source).result()
        # Before the first build there is nothing to be read.
        reading = reading_all_the_while if day != DAYS[0] else contextlib.nullcontext
        with reading(disturbed):
            builds = [disturbed.start_build(), disturbed.start_build()]
            faults = [build.result().faults for build in builds]
        assert faults == [{}, {}]
        check_state(disturbed, undisturbed.states[day])


@pytest.mark.soak
def test_builds_during_an_ingest_lose_and_double_nothing(
    undisturbed: Undisturbed, disturbed: Lakehouse
) -> None:
    for source in SOURCES:
        start_landing(disturbed, DAYS[0], source).result()
    disturbed.build()
    with reading_all_the_while(disturbed):
        for source in SOURCES:
            landing = start_landing(disturbed, DAYS[1], source)
            landing.wait_until_started()
            while landing.is_running():
                disturbed.build()
            landing.result()
        disturbed.build()
    assert not differences(current_state(disturbed), undisturbed.current[DAYS[1]])
    disturbed.check_contents()
    disturbed.build("test", "--exclude-resource-type", "unit_test")


@contextlib.contextmanager
def reading_all_the_while(lakehouse: Lakehouse) -> Iterator[None]:
    """Search Postgres and count in the lake until the block ends; what is wrong fails the test."""
    anything = vectors(lakehouse)[0]
    with (
        counting_all_the_while(lakehouse, KEYS),
        searching_all_the_while(lakehouse, [PUBLIC, MEMBER], "checkout", anything) as watches,
    ):
        yield
    for watch in watches.values():
        watch.check_documents_are_whole(lakehouse)
    assert any(d.startswith(PRIVATE_CHANNEL) for d in watches[MEMBER].documents)
    assert not any(d.startswith(PRIVATE_CHANNEL) for d in watches[PUBLIC].documents)


def check_state(lakehouse: Lakehouse, expected: State) -> None:
    """Compare all that is held, and make sure that every snapshot has its record."""
    found = differences(lakehouse.state(), expected)
    assert not found, found
    lakehouse.check_contents()
    prefix = lakehouse.settings.prefix
    recorded = set(lakehouse.execute("select table_name, snapshot_id from {operations}.commits"))
    for table, snapshots in lakehouse.snapshots().items():
        assert {(prefix + table, snapshot) for snapshot in snapshots} <= recorded, table


def current_state(lakehouse: Lakehouse) -> State:
    """What is known and served now, whatever versions led there."""
    documents = lakehouse.query(
        "select doc_id, title, url, author_id, container, parent_doc_id, is_deleted, visibility,"
        " allowed_principals, content_hash from {lake}knowledge.documents_current order by doc_id"
    )
    served: dict[str, Rows] = {
        collection.vector_collection: lakehouse.execute(
            "select doc_id, chunk_index, text, embedding, title, heading_path, container,"
            f" allowed_principals from {{serving}}.chunks_{collection.table_number} order by 1, 2"
        )
        for collection in lakehouse.collections()
    }
    return {"documents": documents, **served}


def start_landing(lakehouse: Lakehouse, day: str, source: str) -> Step:
    location = PROJECT_ROOT / "sample_workspace" / day / source
    return lakehouse.start("land", source=source, location=location)


def start_maintaining(lakehouse: Lakehouse) -> Step:
    """So much later that every old snapshot expires, and every orphan is old."""
    return lakehouse.start("maintain", days_later=60)


def seconds_of(step: Step) -> float:
    """How long a step takes once it has begun."""
    step.wait_until_started()
    started = time.monotonic()
    step.result()
    return time.monotonic() - started
