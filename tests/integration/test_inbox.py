"""Deliveries in Postgres: stored once, and worked on until they are done, whatever happens."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence

import psycopg
import pyarrow as pa
import pytest

from dlt_sources.api import ApiError
from dlt_sources.landing import BusyError
from loreline.cli import main
from loreline.errors import LorelineError
from loreline.inbox import work
from loreline.inbox.senders import Delivery
from loreline.inbox.store import Writer, change, counts, listed, tokens
from loreline.inbox.work import Claimed, WarmBuilds, Worker
from loreline.lake import commits, duck
from loreline.lake.catalog import load_catalog
from loreline.postgres import connect, in_schema
from loreline.settings import Settings
from tests.simulators.api import serving
from tests.simulators.github import GitHub

LOREIPSUM = b'{"it": "is"}'


def store(settings: Settings, *deliveries: Delivery) -> None:
    """Store deliveries, all of them at once."""

    async def put() -> None:
        writer = Writer(settings)
        await asyncio.gather(*(writer.put(delivery, LOREIPSUM) for delivery in deliveries))
        await writer.close()

    asyncio.run(put())


def delivered(number: int, *names: str, source: str = "notion") -> Delivery:
    return Delivery(source, f"d{number}", names or (f"page:{number}",))


def states(settings: Settings) -> dict[str, int]:
    with connect(settings) as connection:
        return {state: count for _, state, count in counts(connection, settings)}


def make_due(settings: Settings) -> None:
    with connect(settings) as connection:
        query = "update {}.inbox set next_attempt_at = now() where state = 'waiting'"
        connection.execute(in_schema(settings, "operations", query))


class Landed:
    """Lands nothing, and remembers what it was to; some names it cannot."""

    def __init__(self, refused: Sequence[str] = (), *, is_down: bool = False) -> None:
        self.groups: list[list[str]] = []
        self.refused = refused
        self.is_down = is_down

    def __call__(self, settings: Settings, source: str, claimed: Sequence[Claimed]) -> int:
        names = sorted({name for each in claimed for name in each.names})
        self.groups.append(names)
        if self.is_down:
            raise LorelineError("it does not answer")
        if set(names) & set(self.refused):
            raise ApiError("it refuses", status=400)
        return len(names)


def test_a_delivery_is_stored_once(settings: Settings) -> None:
    store(settings, *(delivered(n % 10) for n in range(1_200)))
    store(settings, delivered(3), delivered(11))
    assert states(settings) == {"waiting": 11}
    broken = Delivery("slack", "x", fault="it is not JSON \0")
    store(settings, broken)
    assert states(settings) == {"waiting": 11, "parked": 1}


def test_a_token_is_kept_and_not_too_many_of_them(settings: Settings) -> None:
    async def keep() -> None:
        writer = Writer(settings)
        for n in range(9):
            await writer.keep_token("notion", f"secret_{n}")
        await writer.close()

    asyncio.run(keep())
    assert [token for _, token, _ in tokens(settings)] == [f"secret_{n}" for n in range(8, 3, -1)]


def test_a_writer_whose_connection_broke_makes_another(settings: Settings) -> None:
    async def put() -> None:
        writer = Writer(settings)
        await writer.put(delivered(1), LOREIPSUM)
        assert writer._connection is not None
        with connect(settings, autocommit=True) as other:
            backend = writer._connection.info.backend_pid
            other.execute("select pg_terminate_backend(%s)", [backend])
        with pytest.raises(psycopg.Error):
            await writer.put(delivered(2), LOREIPSUM)
        await writer.put(delivered(2), LOREIPSUM)
        await writer.close()

    asyncio.run(put())
    assert states(settings) == {"waiting": 2}


def test_what_names_one_object_is_worked_on_once(settings: Settings) -> None:
    store(settings, *(delivered(n, "page:1") for n in range(20)), delivered(20, "page:2"))
    landed, builds = Landed(), []
    worker = Worker(settings, landed, [builds.append])
    assert worker.step()
    assert landed.groups == [["page:1", "page:2"]]
    assert (states(settings), len(builds)) == ({"done": 21}, 1)
    assert not worker.step()
    assert len(builds) == 1


def test_one_that_fails_does_not_keep_the_others(settings: Settings) -> None:
    store(settings, *(delivered(n) for n in range(40)))
    few = dataclasses.replace(settings, inbox_attempts="2")
    worker = Worker(few, Landed(["page:17"]))
    worker.step()
    assert states(settings) == {"done": 39, "waiting": 1}
    assert not worker.step(), "it is not its time yet"
    make_due(settings)
    worker.step()
    assert states(settings) == {"done": 39, "parked": 1}
    [parked] = listed(settings, "parked", None, 10)
    assert (parked.names, parked.attempts, parked.error) == (["page:17"], 2, "it refuses")
    assert change(settings, "waiting", [parked.number]) == 1
    Worker(few, Landed()).step()
    assert states(settings) == {"done": 40}


def test_a_source_that_is_down_is_not_asked_again_for_each(settings: Settings) -> None:
    store(settings, *(delivered(n) for n in range(40)))
    landed = Landed(is_down=True)
    Worker(settings, landed).step()
    assert len(landed.groups) == 1
    assert states(settings) == {"waiting": 40}


def test_a_source_that_another_load_holds_costs_no_attempt(settings: Settings) -> None:
    store(settings, *(delivered(n) for n in range(3)), delivered(3, "message:1", source="slack"))
    landed = Landed()

    def land(settings: Settings, source: str, claimed: Sequence[Claimed]) -> int:
        if source == "notion":
            raise BusyError("another load of notion is running")
        return landed(settings, source, claimed)

    worker = Worker(settings, land)
    assert worker.step(), "the other source has been worked on"
    assert not worker.step(), "it waits before it looks again"
    assert {each.attempts for each in listed(settings, "waiting", "notion", 9)} == {0}
    Worker(settings, landed).step()
    assert len(listed(settings, "done", None, 9)) == 4


def test_a_build_that_failed_is_tried_again(settings: Settings, monkeypatch) -> None:
    monkeypatch.setattr(work, "FIRST_WAIT", 0.0)
    outcomes = [LorelineError("a model failed"), RuntimeError("oh"), None]
    built = []

    def build(_: Settings) -> None:
        built.append(outcome := outcomes.pop(0))
        if outcome:
            raise outcome

    store(settings, delivered(1))
    worker = Worker(settings, Landed(), [build])
    for _ in range(5):
        worker.step()
    assert len(built) == 3


def test_what_is_searched_is_built_although_the_rest_fails(settings: Settings) -> None:
    built = []

    def fails(_: Settings) -> None:
        raise LorelineError("a model failed")

    worker = Worker(settings, Landed(), [built.append, fails])
    for number in range(3):
        store(settings, delivered(number))
        while worker.step():
            pass
    assert len(built) == 3


def test_what_is_not_searched_is_built_once_it_is_quiet(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    builds = [lambda _: built.append("for search"), lambda _: built.append("the rest")]
    worker = Worker(settings, Landed(), builds)
    while worker.step():
        pass
    assert built == ["for search", "the rest"], "what an earlier worker has left is built at once"
    for number in (1, 2):
        store(settings, delivered(number))
        while worker.step():
            pass
    assert built[2:] == ["for search"] * 2
    monkeypatch.setattr(work, "QUIET_SECONDS", 0.0)
    assert worker.step()
    assert not worker.step()
    assert built[4:] == ["the rest"]
    monkeypatch.undo()
    monkeypatch.setattr(work, "LONGEST_DELAY", 0.0)
    store(settings, delivered(3))
    while worker.step():
        pass
    assert built[5:] == ["for search", "the rest"], "it is put off only so long"


def test_the_files_that_many_builds_leave_are_joined(settings: Settings) -> None:
    many, few = (f"{settings.prefix}knowledge.{name}" for name in ("many", "few"))
    for name, writes in ((many, work.WRITES_BEFORE_COMPACTION), (few, 6)):
        for number in range(writes):
            rows = pa.table({"n": [number]})
            commits.append(settings, name, rows, writer=commits.Writer("i", "m", "v"))
    WarmBuilds().for_upkeep(settings)
    tables = [load_catalog(settings).load_table(name) for name in (many, few)]
    assert [table.inspect.data_files().num_rows for table in tables] == [1, 6]


def test_two_workers_do_not_work_on_one_source(settings: Settings) -> None:
    store(settings, *(delivered(n) for n in range(5)))
    began, ends = threading.Event(), threading.Event()

    def land(*_: object) -> int:
        began.set()
        assert ends.wait(20)
        return 1

    thread = threading.Thread(target=Worker(settings, land).step)
    thread.start()
    assert began.wait(20)
    # What arrives meanwhile is worked on after that.
    store(settings, delivered(6))
    other = Landed()
    Worker(settings, other).step()
    assert other.groups == []
    ends.set()
    thread.join()
    Worker(settings, other).step()
    assert other.groups == [["page:6"]]


def test_a_worker_that_waits_is_woken_by_each_delivery(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loreline.inbox.work.SECONDS_BETWEEN_LOOKS", 600.0)
    stopped, told = threading.Event(), []
    worker = Worker(settings, Landed(), told=told.append)
    running = threading.Thread(target=worker.run, args=[stopped])
    running.start()
    try:
        for number in range(1, 6):
            store(settings, delivered(2 * number), delivered(2 * number + 1))
            until = time.monotonic() + 60
            while states(settings) != {"done": 2 * number}:
                assert time.monotonic() < until, told
                time.sleep(0.02)
    finally:
        stopped.set()
        running.join(30)
    assert not running.is_alive()


def test_what_was_done_long_ago_is_forgotten(settings: Settings) -> None:
    store(settings, delivered(1), delivered(2))
    Worker(settings, Landed()).step()
    with connect(settings) as connection:
        query = (
            "update {}.inbox set finished_at = now() - interval '8 days' where delivery_id = 'd1'"
        )
        connection.execute(in_schema(settings, "operations", query))
    Worker(settings, Landed()).step()
    assert states(settings) == {"done": 1}


def test_the_command(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    store(settings, delivered(1), Delivery("slack", "x", fault="it is not JSON"))
    assert main(["inbox", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {c["state"]: c["deliveries"] for c in told["counts"]} == {"waiting": 1, "parked": 1}
    number = str(next(d["number"] for d in told["deliveries"] if d["state"] == "parked"))
    assert main(["inbox", "show", number]) == 0
    assert '{"it": "is"}' in capsys.readouterr().out
    assert main(["inbox", "list"]) == 0
    assert "it is not JSON" in capsys.readouterr().out
    assert main(["status"]) in (0, 1)
    assert "parked" in capsys.readouterr().out
    assert main(["inbox", "drop", number]) == 0
    assert states(settings) == {"waiting": 1, "dropped": 1}
    assert main(["inbox", "retry"]) == 1
    assert main(["inbox", "show", "999999"]) == 1


def test_a_thousand_deliveries_and_a_worker_that_is_killed(settings: Settings) -> None:
    chance = random.Random(7)
    service = GitHub()
    issues = range(1, 41)
    for number in issues:
        service.write(number)
    with serving(service, latency=0.002) as server:
        environment = {
            **os.environ,
            "LORELINE_GITHUB_TOKEN": "ghp_test",
            "LORELINE_GITHUB_REPOSITORIES": "acme/till",
            "LORELINE_GITHUB_URL": server.url,
            "LORELINE_GITHUB_RATE": "0",
        }
        command = "from loreline.cli import main; main()"
        arguments = [sys.executable, "-c", command, "inbox", "work", "--no-build"]
        sent = 0
        for kill in range(4):
            deliveries = []
            for _ in range(250):
                number = chance.choice(issues)
                service.say(number, f"comment {sent}")
                sent += 1
                deliveries.append(delivered(sent, f"acme/till#{number}", source="github"))
            store(settings, *deliveries)
            make_due(settings)
            worker = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL)
            if kill < 3:
                answered = server.answered
                while server.answered < answered + chance.randint(1, 60):
                    assert worker.poll() is None
                    time.sleep(0.01)
                worker.kill()
                worker.wait()
        until = time.monotonic() + 120
        while states(settings) != {"done": 1_000}:
            assert time.monotonic() < until, states(settings)
            make_due(settings)
            time.sleep(0.2)
        worker.terminate()
        assert worker.wait(30) == 0
    with duck.connect(settings) as lake:
        rows = lake.execute(
            f"select payload from lake.{settings.prefix}raw_github.issues qualify row_number() over"
            " (partition by external_id order by observed_at desc) = 1"
        ).fetchall()
    said = Counter(
        (issue["issue"]["number"], comment["body"])
        for issue in (json.loads(payload) for (payload,) in rows)
        for comment in issue["comments"]
    )
    assert said == Counter(
        (number, comment["body"])
        for number, issue in service.issues.items()
        for comment in issue["comments_"]
    )
    assert len(said) == 1_000
