"""Landing from an API: what is committed when, and what an interruption leaves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from dlt_sources import landing, live
from dlt_sources.api import Api, Waiting
from dlt_sources.landing import BusyError, Landing, LoadSummary
from dlt_sources.live import Batch, Plan, Run, load_live, plan_live
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.sweeps import Sweep
from dlt_sources.versions import Resource
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.postgres import connect, in_schema
from loreline.settings import Settings

NOTES = Resource("notes", volatile=("seen",))
EVENTS = Resource("events")
START = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass
class Notes:
    """A service of notes, each with a time: a list of all, and notes by themselves."""

    notes: dict[str, int] = field(default_factory=dict)
    breaks_after: int | None = None
    fetched: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)

    def fetch(self, run: Run) -> Iterator[Batch]:
        sweep = Sweep(run.landing, NOTES)
        sweep.show((i, START + timedelta(seconds=n)) for i, n in self.notes.items())
        for identity in list(sweep.changed()):
            yield self._one(identity)
        if run.sweeps:
            run.rails.check("notes", "notes", *sweep.count_absent())
            gone = [
                Observation(i, None, datetime.now(UTC), is_deleted=True) for i in sweep.absent()
            ]
            yield Batch([(NOTES, each) for each in gone], {"ended": True})

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        for name in names:
            batch = self._one(name)
            _, note = batch.observations[0]
            note.delivery_id = run.deliveries[name]
            yield batch

    def plan(self, run: Run) -> Plan:
        return Plan("everything", len(self.notes), 2.0, len(self.notes))

    def _one(self, identity: str) -> Batch:
        if self.breaks_after is not None and len(self.fetched) >= self.breaks_after:
            raise LorelineError("the service of notes does not answer", "try again")
        self.fetched.append(identity)
        seconds = self.notes[identity]
        note = Observation(
            identity,
            {"id": identity, "text": f"note {seconds}"},
            datetime.now(UTC),
            START + timedelta(seconds=seconds),
        )
        return Batch(
            [(NOTES, note)], {"last": identity}, lambda: self.acknowledged.append(identity)
        )


def current(settings: Settings) -> dict[str, str]:
    with duck.connect(settings) as lake:
        rows = lake.execute(
            f"select external_id, payload from lake.{settings.prefix}raw_notes.notes"
            " qualify row_number() over (partition by external_id order by observed_at desc) = 1"
            " and not is_deleted"
        ).fetchall()
    return {identity: payload.split('"text":"')[1].rstrip('"}') for identity, payload in rows}


def cursors(settings: Settings) -> dict[str, object]:
    with connect(settings) as connection:
        query = in_schema(settings, "operations", "select name, value from {}.source_cursors")
        return dict(connection.execute(query).fetchall())


def test_what_is_new_lands_and_what_is_gone_is_deleted(settings: Settings) -> None:
    service = Notes({"a": 1, "b": 2, "c": 3})
    first = load_live(settings, "notes", service)
    assert (first.rows, service.acknowledged) == (3, service.fetched)
    assert {"last", "ended", "swept_at"} <= cursors(settings).keys()

    again = load_live(settings, "notes", service)
    assert (again.rows, again.snapshots, len(service.fetched)) == (0, {}, 3)

    service.notes = {"a": 1, "b": 9, "d": 4}
    changed = load_live(settings, "notes", service, sweep=True)
    assert (changed.rows, changed.tombstones) == (3, 1)
    assert current(settings) == {"a": "note 1", "b": "note 9", "d": "note 4"}

    service.notes["c"] = 3
    assert load_live(settings, "notes", service).rows == 1
    assert "c" in current(settings)


def test_what_came_before_a_failure_is_landed_and_not_fetched_again(settings: Settings) -> None:
    service = Notes({str(n): n for n in range(10)}, breaks_after=4)
    with pytest.raises(LorelineError, match="does not answer"):
        load_live(settings, "notes", service)
    assert len(current(settings)) == 4
    assert len(service.acknowledged) == 4
    assert "ended" not in cursors(settings)
    service.breaks_after = None
    assert load_live(settings, "notes", service).rows == 6
    assert sorted(service.fetched) == sorted(service.notes)


def test_too_much_is_not_deleted_by_accident(settings: Settings) -> None:
    service = Notes({str(n): n for n in range(40)})
    load_live(settings, "notes", service)
    service.notes = {str(n): n for n in range(20)}
    with pytest.raises(LorelineError, match="20 of 40 notes notes are gone, more than 15%"):
        load_live(settings, "notes", service, sweep=True)
    assert len(current(settings)) == 40
    done = load_live(settings, "notes", service, sweep=True, allow_deletes=True)
    assert done.tombstones == 20


def test_a_delivery_fetches_what_it_names(settings: Settings) -> None:
    service = Notes({"a": 1, "b": 2})
    done = load_live(settings, "notes", service, deliveries={"b": "delivery-7"})
    assert (done.rows, service.fetched) == (1, ["b"])
    with duck.connect(settings) as lake:
        table = f"lake.{settings.prefix}raw_notes.notes"
        rows = lake.execute(f"select landed_by, delivery_id from {table}").fetchall()
    assert rows == [("webhook", "delivery-7")]


def test_a_delivery_is_let_in_by_a_walk(settings: Settings, monkeypatch) -> None:
    monkeypatch.setattr(live, "SECONDS_BETWEEN_LOOKS", 0.0)
    load_live(settings, "notes", Notes({"0": 0, "1": 1}))
    walked = Notes({str(n): 100 + n for n in range(8)})
    edited = Notes({"5": 999, "6": 106, "new": 1})
    done: list[LoadSummary] = []

    def deliver() -> None:
        names = dict.fromkeys(["5", "6", "new"], "d")
        done.append(load_live(settings, "notes", edited, deliveries=names, waits=False))

    class Walk(Notes):
        """Fetches all before anything of it lands, and the delivery comes after that."""

        def fetch(self, run: Run) -> Iterator[Batch]:
            batches = [walked._one(each) for each in walked.notes]
            thread = threading.Thread(target=deliver)
            for number, batch in enumerate(batches):
                yield batch
                if number == 1:
                    thread.start()
                    while not run.landing.is_wanted():
                        time.sleep(0.01)
                elif number == 2:
                    assert [summary.rows for summary in done] == [3]
            thread.join()

    summary = load_live(settings, "notes", Walk())
    # The note that was edited was seen before it was; the other one is known by now.
    assert (summary.rows, summary.outdated, summary.unchanged) == (6, 1, 1)
    expected = {str(n): f"note {100 + n}" for n in range(8)} | {"5": "note 999", "new": "note 1"}
    assert current(settings) == expected


def test_a_walk_that_waits_for_an_answer_lets_a_delivery_in(settings: Settings) -> None:
    edited, done = Notes({"1": 5}), threading.Event()

    def deliver() -> None:
        load_live(settings, "notes", edited, deliveries={"1": "d"}, waits=False)
        done.set()

    class Slow(Notes):
        """A service that answers the walk after the delivery has landed."""

        def fetch(self, run: Run) -> Iterator[Batch]:
            with Api("notes", "http://127.0.0.1:1", {}) as api:
                thread = threading.Thread(target=deliver)
                thread.start()
                asked = time.monotonic()
                for is_done in api.map_or_wait(lambda _: done.wait(60), ["1"]):
                    yield Batch() if isinstance(is_done, Waiting) else self._one("1")
                assert time.monotonic() - asked < 60, "it was not let in"
                thread.join()

    summary = load_live(settings, "notes", Slow({"1": 5, "2": 1}))
    assert (summary.rows, summary.unchanged) == (0, 1)
    assert current(settings) == {"1": "note 5"}


def test_an_urgent_load_leaves_where_nobody_lets_it_in(settings: Settings, monkeypatch) -> None:
    monkeypatch.setattr(landing, "SECONDS_TO_BE_LET_IN", 1)
    with Landing(settings, "notes"), pytest.raises(BusyError):
        load_live(settings, "notes", Notes({"a": 1}), deliveries={"a": "d"}, waits=False)
    assert load_live(settings, "notes", Notes({"a": 1}), deliveries={"a": "d"}).rows == 1


def test_a_cursor_is_not_saved_without_its_rows(settings: Settings, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise LorelineError("the catalog does not answer")

    with monkeypatch.context() as broken:
        broken.setattr(live, "land_tables", fail)
        with pytest.raises(LorelineError, match="the catalog"):
            load_live(settings, "notes", Notes({"a": 1}))
    assert "last" not in cursors(settings)


def test_a_second_run_leaves(settings: Settings) -> None:
    with (
        Landing(settings, "notes"),
        pytest.raises(BusyError, match="another load of notes is running"),
    ):
        load_live(settings, "notes", Notes({"a": 1}), waits=False)


def test_a_plan_lands_nothing(settings: Settings) -> None:
    service = Notes({"a": 1, "b": 2})
    assert plan_live(settings, "notes", service).seconds == 1.0
    assert service.fetched == []


def test_rows_in_bulk_and_what_is_set_aside(settings: Settings) -> None:
    class Stream(Notes):
        def fetch(self, run: Run) -> Iterator[Batch]:
            ids = [str(n) for n in range(5_000)]
            rows = pa.table(
                {
                    "external_id": ids,
                    "payload": [f'{{"n":{n}}}' for n in ids],
                    "observed_at": [START] * len(ids),
                }
            )
            broken = Reject("broken_json", "no event", b"{", "message 17")
            yield Batch([(EVENTS, rows), (EVENTS, broken)], committed=self.acknowledge)

        def acknowledge(self) -> None:
            self.acknowledged.append("all")

    stream = Stream()
    done = load_live(settings, "notes", stream)
    assert (done.rows, done.quarantined, stream.acknowledged) == (
        5_000,
        {"broken_json": 1},
        ["all"],
    )
    assert load_live(settings, "notes", stream).rows == 0


def test_cursors_without_their_tables_are_not_believed(settings: Settings) -> None:
    from loreline.lake.catalog import load_catalog

    load_live(settings, "notes", Notes({"a": 1}))
    load_catalog(settings).drop_table(f"{settings.prefix}raw_notes.notes")
    with Landing(settings, "notes"):
        pass
    service = Notes({"a": 1})
    assert load_live(settings, "notes", service).rows == 1
