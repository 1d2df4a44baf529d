"""Raw tables are append-only histories: what lands, what does not, and in which order."""

import itertools
import json
import random
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dlt
import duckdb
import orjson
import psycopg
import pyarrow as pa
import pytest
from dlt.common.storages import LoadStorage
from dlt.pipeline.exceptions import PipelineStepFailed

from dlt_sources import destination, landing, load, pipeline, sightings
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.quarantine import Reject
from dlt_sources.slices import MAX_PAYLOAD_BYTES, Observation
from dlt_sources.versions import (
    NO_METADATA,
    Resource,
    canonical_json,
    json_hash,
    microseconds,
    row_id,
)
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.catalog import find_table, load_catalog
from loreline.postgres import connect

DAY_1, DAY_2, DAY_3, DAY_4 = (datetime(2026, 10, n, tzinfo=UTC) for n in (1, 2, 3, 4))
THINGS = Resource("things", volatile=("request_id",), metadata=("url",))


@pytest.fixture
def land(settings, monkeypatch, tmp_path):
    """Land observations, or iterators of them, as one load of a source called `test`."""
    inputs = itertools.count()

    def run(*items, resource=THINGS, **options):
        @dlt.source(name="test")
        def source(location, observed_at, landing):
            return raw_resource(landing.rows(resource, flattened(items)), resource.name)

        monkeypatch.setitem(pipeline.SOURCES, "test", source)
        # Each load reads an input of its own, so that none is taken for one that was landed.
        location = tmp_path / "input"
        location.write_text(str(next(inputs)))
        return load(settings, "test", location, **options)

    return run


def flattened(items):
    for item in items:
        yield from item if isinstance(item, Iterator) else [item]


def seen(text, at=DAY_1, changed=None, identity="x", **fields):
    return Observation(identity, {"text": text, **fields}, at, changed)


def gone(at, changed=None, identity="x"):
    return Observation(identity, None, at, changed, is_deleted=True)


def rows(settings, table="raw_test.things"):
    """The rows of a raw table in the order in which they landed."""
    with duck.connect(settings) as connection:
        query = f"select * from lake.{settings.prefix}{table} order by _batch, landed_at"
        return connection.execute(query).to_arrow_table().to_pylist()


def texts(settings):
    """What each row says, in the order of landing; None where it is a deletion."""
    return [
        None if row["is_deleted"] else json.loads(row["payload"])["text"] for row in rows(settings)
    ]


def snapshots(settings, table="raw_test.things"):
    found = find_table(load_catalog(settings), f"{settings.prefix}{table}")
    return [snapshot.snapshot_id for snapshot in found.snapshots()] if found else []


def test_a_raw_row_has_the_agreed_shape(settings, land):
    changed = datetime(2026, 9, 30, 12, 0, 0, 123456, tzinfo=UTC)
    summary = land(seen("a", DAY_1, changed, url="u", request_id="r"))
    (row,) = rows(settings)
    assert row["external_id"] == "x"
    assert json.loads(row["payload"]) == {"text": "a", "url": "u", "request_id": "r"}
    assert row["raw_object_uri"] is None
    assert row["source_updated_at"] == changed.replace(tzinfo=None)
    assert row["observed_at"] == DAY_1.replace(tzinfo=None)
    assert (row["is_deleted"], row["landed_by"], row["delivery_id"]) == (False, "file", None)
    assert len(row["content_hash"]) == len(row["metadata_hash"]) == len(row["_dlt_id"]) == 64
    assert row["_dlt_load_id"] and row["_code_version"] and row["_batch"] >= 0
    assert abs(row["landed_at"] - datetime.now(UTC).replace(tzinfo=None)) < timedelta(minutes=5)
    assert summary.rows == 1 and summary.seconds > 0
    assert summary.snapshots == {f"{settings.prefix}raw_test.things": snapshots(settings)}


def test_a_b_a_lands_three_rows_in_three_loads(settings, land):
    for text, at in [("A", DAY_1), ("B", DAY_2), ("A", DAY_3)]:
        assert land(seen(text, at)).rows == 1
    assert texts(settings) == ["A", "B", "A"]


def test_a_b_a_lands_three_rows_at_the_very_same_time(settings, land):
    for text in "ABA":
        land(seen(text))
    assert texts(settings) == ["A", "B", "A"]
    assert len({row["_dlt_id"] for row in rows(settings)}) == 3


def test_a_b_a_in_one_load_lands_three_rows_once(settings, land):
    whole = [seen(text) for text in "AABBA"]
    assert land(*whole).rows == 3
    before = snapshots(settings)
    again = land(*whole)
    assert (again.rows, again.unchanged) == (0, 5)
    assert texts(settings) == ["A", "B", "A"]
    assert snapshots(settings) == before
    # The same beginning and one more change.
    assert land(*whole, seen("C")).rows == 1
    assert texts(settings) == ["A", "B", "A", "C"]


def test_the_order_within_one_load_is_told(settings, land):
    land(*[seen(text) for text in "ABCA"])
    found = rows(settings)
    assert [row["landed_at"] for row in found] == sorted({row["landed_at"] for row in found})
    assert len({row["_batch"] for row in found}) == 1


def test_landing_the_same_again_changes_nothing(settings, land):
    things = [seen("a", identity=f"x{n}") for n in range(50)] + [gone(DAY_1, identity="y")]
    land(*things)
    before, ids = rows(settings), snapshots(settings)
    with connect(settings) as connection:
        query = f"select * from {settings.prefix}operations.commits"
        commits = connection.execute(query).fetchall()
        summary = land(*things)
        assert connection.execute(query).fetchall() == commits
    assert (summary.rows, summary.unchanged, summary.snapshots) == (0, 51, {})
    assert rows(settings) == before
    assert snapshots(settings) == ids


def test_metadata_alone_makes_a_row_and_volatile_fields_make_none(settings, land):
    land(seen("a", DAY_1, url="one", request_id="1"))
    assert land(seen("a", DAY_2, url="one", request_id="2")).unchanged == 1
    assert land(seen("a", DAY_3, url="two", request_id="3")).rows == 1
    first, second = rows(settings)
    assert first["content_hash"] == second["content_hash"]
    assert first["metadata_hash"] != second["metadata_hash"]


def test_the_newest_of_many_large_payloads_are_read_in_little_memory(settings, land):
    """A sweep asks each payload for something: only what it asks for is held."""
    filler = " ".join(f"word{n}" for n in range(1500))
    land(seen(f"{filler} {n}", identity=str(n)) for n in range(6000))
    land(gone(DAY_2, identity="17"), seen("short", DAY_2, identity="23"))
    with Landing(settings, "test") as held:
        held.duckdb.execute("set memory_limit = '128MB'")
        newest = held.duckdb.execute(
            f"""
            select count(*), count(*) filter (where contains(payload, 'word7'))
            from ({held.latest(THINGS)})
            where not is_deleted
            """
        ).fetchone()
    assert newest == (5999, 5998)


def test_two_objects_with_the_same_text_are_two(settings, land):
    land(seen("a", identity="x"), seen("a", identity="y"))
    land(gone(DAY_2, identity="x"))
    assert [(row["external_id"], row["is_deleted"]) for row in rows(settings)] == [
        ("x", False),
        ("y", False),
        ("x", True),
    ]


def test_an_older_observation_of_a_known_object_does_not_land(settings, land):
    land(seen("new", DAY_2))
    assert land(seen("old", DAY_1)).outdated == 1
    assert land(seen("older at the source", DAY_2, DAY_1 - timedelta(days=9))).rows == 1
    assert land(seen("without a time at the source", DAY_2)).outdated == 1
    assert texts(settings) == ["new", "older at the source"]


def test_an_older_observation_of_an_unknown_object_lands(settings, land):
    land(seen("new", DAY_2))
    assert land(seen("unknown", DAY_1, identity="y")).rows == 1


def test_an_old_export_does_not_outrank_what_was_later_seen_to_be_unchanged(settings, land):
    land(seen("A", DAY_1), seen("A", DAY_1, identity="y"))
    assert land(seen("A", DAY_3)).unchanged == 1
    between = land(seen("B", DAY_2), seen("B", DAY_2, identity="y"))
    assert (between.outdated, between.rows) == (1, 1)
    assert land(seen("B", DAY_4)).rows == 1
    assert texts(settings) == ["A", "A", "B", "B"]


def test_sightings_are_merged_and_forget_nothing(settings, land, monkeypatch):
    monkeypatch.setattr(sightings, "MAX_FILES", 2)
    land(*[seen("A", DAY_1, identity=f"x{n}") for n in range(5)])
    for n in range(5):
        land(seen("A", DAY_3 + timedelta(hours=n), identity=f"x{n}"))
    with Landing(settings, "test") as held:
        assert len(held.objects.list(f"sightings/{held.namespace}.things")) == 1
    late = land(*[seen("B", DAY_2, identity=f"x{n}") for n in range(5)])
    assert (late.outdated, late.rows) == (5, 0)


def test_a_deletion_keeps_the_last_payload_and_a_restoration_lands(settings, land):
    land(seen("A", DAY_1, url="u"))
    summary = land(gone(DAY_2))
    assert (summary.rows, summary.tombstones) == (1, 1)
    assert land(gone(DAY_3)).unchanged == 1
    assert land(seen("A", DAY_1)).outdated == 1
    assert land(seen("A", DAY_4, url="u")).rows == 1
    first, deleted, restored = rows(settings)
    assert (deleted["is_deleted"], deleted["payload"]) == (True, first["payload"])
    assert deleted["content_hash"] == first["content_hash"] == restored["content_hash"]
    assert not restored["is_deleted"]


def test_the_deletion_of_an_unknown_object_keeps_older_exports_from_creating_it(settings, land):
    assert land(gone(DAY_2)).tombstones == 1
    assert land(seen("A", DAY_1)).outdated == 1
    (row,) = rows(settings)
    assert row["payload"] is None


def test_a_large_payload_is_an_object_stored_once(settings, land):
    text = "ü" * MAX_PAYLOAD_BYTES
    land(seen(text, DAY_1, identity="x"), seen(text, DAY_1, identity="y"))
    land(gone(DAY_2, identity="x"))
    found = rows(settings)
    assert {row["payload"] for row in found} == {None}
    (uri,) = {row["raw_object_uri"] for row in found}
    assert uri.startswith(f"{settings.landing_url}/objects/")
    with Landing(settings, "test") as held:
        stored = held.objects.files.cat_file(uri)
    assert json.loads(stored) == {"text": text}
    assert land(seen(text, DAY_1, identity="y")).unchanged == 1


def expected_history(observations):
    """The rule, spelled out object by object: (id, text or None) of what lands."""
    latest, landed = {}, []
    for item in observations:
        seen_at, known = latest.get(item.external_id, (None, None))
        text = item.payload["text"] if item.payload else known and known[0]
        state = (text, item.is_deleted)
        if known and item.observed_at < seen_at:
            continue
        latest[item.external_id] = (item.observed_at, state)
        if state != known:
            landed.append((item.external_id, None if item.is_deleted else text))
    return landed


@pytest.mark.parametrize(
    "slice_rows",
    [7, *(pytest.param(rows, marks=pytest.mark.soak) for rows in (1, 1000))],
)
def test_any_sequence_lands_as_the_rule_says(settings, land, monkeypatch, slice_rows):
    monkeypatch.setattr(landing, "SLICE_ROWS", slice_rows)
    monkeypatch.setattr(pipeline, "PACKAGE_BYTES", 4_000)
    chance = random.Random(slice_rows)
    observations = []
    for n in range(150):
        at = DAY_1 + timedelta(hours=n + chance.randrange(-30, 1))
        identity = chance.choice("uvwxyz")
        if chance.random() < 0.15:
            observations.append(gone(at, identity=identity))
        else:
            observations.append(seen(chance.choice("AB"), at, identity=identity))
    first, second = observations[:60], observations[60:]
    expected = expected_history(observations)
    assert 40 < len(expected) < 120
    land(*first)
    summary = land(*second)
    assert summary.rows + len(expected_history(first)) == len(expected)
    found = [
        (row["external_id"], None if row["is_deleted"] else json.loads(row["payload"])["text"])
        for row in rows(settings)
    ]
    assert found == expected
    assert len({row["_dlt_id"] for row in rows(settings)}) == len(expected)
    before = snapshots(settings)
    assert land(*second).rows == 0
    assert snapshots(settings) == before


def test_rows_in_bulk_land_like_rows_one_by_one(settings, land):
    values = [{"n": n, "text": f"line {n}"} for n in range(1_000)]
    plain = Resource("things")
    table = pa.table(
        {
            "external_id": [f"x{n}" for n in range(1_000)],
            "payload": [canonical_json(value).decode() for value in values],
            "observed_at": pa.array([DAY_1] * 1_000, pa.timestamp("us", "UTC")),
            "source_updated_at": pa.array([None, DAY_1] * 500, pa.timestamp("ms", "UTC")),
        }
    )
    singly = [
        Observation(f"x{n}", value, DAY_1, DAY_1 if n % 2 else None, raw=orjson.dumps(value))
        for n, value in enumerate(values)
    ]
    assert land(table, resource=plain).rows == 1_000
    assert land(*singly, resource=plain).unchanged == 1_000
    assert land(table, resource=plain).unchanged == 1_000
    changed = table.set_column(1, "payload", pa.array(['{"text":"other"}'] * 1_000)).slice(10, 5)
    later = changed.set_column(2, "observed_at", pa.array([DAY_2] * 5, pa.timestamp("us", "UTC")))
    assert land(later, resource=plain).rows == 5
    assert {row["_dlt_id"] for row in rows(settings)} == _expected_ids(singly, later)


def _expected_ids(singly, later):
    """Row ids by the formula itself: of the rows one by one, and of the five changed later."""
    first = [
        (o.external_id, json_hash(o.payload), o.observed_at, o.source_updated_at) for o in singly
    ]
    other = json_hash({"text": "other"})
    second = [
        (row["external_id"], other, DAY_2, row["source_updated_at"]) for row in later.to_pylist()
    ]
    return {
        row_id("test.things", x, content, NO_METADATA, False, microseconds(at), microseconds(edit))
        for x, content, at, edit in [*first, *second]
    }


def test_a_large_payload_in_bulk_is_an_object(settings, land):
    payload = canonical_json({"text": "y" * (MAX_PAYLOAD_BYTES + 1)}).decode()
    table = pa.table(
        {
            "external_id": ["x", "y"],
            "payload": [payload, '{"text":"short"}'],
            "observed_at": pa.array([DAY_1] * 2, pa.timestamp("us", "UTC")),
        }
    )
    land(table, resource=Resource("things"))
    first, second = rows(settings)
    assert first["payload"] is None and first["raw_object_uri"]
    assert second["payload"] == '{"text":"short"}' and second["raw_object_uri"] is None


def test_what_was_read_before_a_failure_lands(settings, land):
    def failing():
        yield seen("A")
        raise LorelineError("the rest cannot be read", "mend it")

    with pytest.raises(LorelineError, match="the rest cannot be read"):
        land(failing())
    assert texts(settings) == ["A"]


def test_what_was_set_aside_is_kept_before_the_rows_after_it_are_committed(settings, monkeypatch):
    """A load that is killed afterwards has them, and so does one that fails."""

    def set_aside():
        with connect(settings) as connection:
            query = f"select reason from {settings.prefix}operations.quarantine order by reason"
            return [reason for (reason,) in connection.execute(query)]

    def observations():
        yield Reject("first", "", b"1", "a:1")
        yield seen("a")
        yield seen("b", identity="y")
        yield Reject("second", "", b"2", "a:2")
        raise LorelineError("the file ends here", "")

    monkeypatch.setattr(landing, "SLICE_ROWS", 1)
    with Landing(settings, "test") as load_of_its_own:
        found = load_of_its_own.rows(THINGS, observations())
        assert next(found).num_rows == 1
        assert set_aside() == ["first"]
        with pytest.raises(LorelineError, match="the file ends here"):
            list(found)
        assert set_aside() == ["first", "second"]


def test_a_store_that_fails_is_told_in_a_line(settings, land, monkeypatch):
    def fail(*_, **__):
        raise duckdb.IOException("could not reach the bucket")

    with monkeypatch.context() as patched:
        patched.setattr(landing.LandedVersions, "compare", fail)
        with pytest.raises(LorelineError, match=r"could not reach the bucket.*land again"):
            land(seen("A"))
    with monkeypatch.context() as patched:
        patched.setattr(destination, "append", fail)
        with pytest.raises(LorelineError, match=r"could not reach the bucket.*land again"):
            land(seen("A"))
    summary = land(seen("A"), seen("B", identity="y"))
    assert (summary.unchanged, summary.rows) == (1, 1)


def test_a_mistake_of_ours_is_not_dressed_up(settings, land):
    with pytest.raises(Exception, match="hashed as they are") as caught:
        land(pa.table({"external_id": ["x"], "payload": ["{}"]}))
    assert not isinstance(caught.value, LorelineError)


def test_a_commit_that_was_made_is_not_made_again(settings, land, monkeypatch):
    """As after a kill between the commit and dlt's record of it: dlt runs the job once more."""
    attempts = []
    run = destination.AppendJob.run

    def die_after_the_commit(job):
        run(job)
        attempts.append(job)
        if len(attempts) == 1:
            raise ConnectionError("killed")

    monkeypatch.setattr(destination.AppendJob, "run", die_after_the_commit)
    land(seen("A"), seen("B", identity="y"))
    assert len(attempts) == 2
    assert len(rows(settings)) == 2
    assert len(snapshots(settings)) == 1


def test_an_interrupted_package_is_finished_by_the_next_load(settings, land, monkeypatch):
    def die(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(dlt.Pipeline, "load", die)
        with pytest.raises(KeyboardInterrupt):
            land(seen("A"))
    assert snapshots(settings) == []
    summary = land(seen("A"), seen("B", identity="y"))
    assert texts(settings) == ["A", "B"]
    assert (summary.unchanged, summary.rows) == (1, 1)


def test_a_package_is_not_normalized_again_after_a_kill_just_then(settings, land, monkeypatch):
    """dlt puts a normalized package in its place before it removes the extracted one."""

    def die(*_, **__):
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        commit = LoadStorage.commit_new_load_package
        patched.setattr(
            LoadStorage, "commit_new_load_package", lambda *given: (commit(*given), die())
        )
        with pytest.raises(PipelineStepFailed, match="killed"):
            land(seen("A"))
    assert snapshots(settings) == []
    summary = land(seen("A"), seen("B", identity="y"))
    assert texts(settings) == ["A", "B"]
    assert (summary.unchanged, summary.rows) == (1, 1)


def test_one_load_of_a_source_waits_for_the_other(settings, land):
    lines = []
    waiting = threading.Event()

    def progress(line):
        lines.append(line)
        waiting.set()

    with Landing(settings, "test"):
        second = threading.Thread(target=_enter, args=(settings, progress))
        second.start()
        assert waiting.wait(30)
        second.join(0.3)
        assert second.is_alive()
    second.join(30)
    assert not second.is_alive()
    assert lines == ["test: waiting for another load to end"]


def _enter(settings, progress):
    with Landing(settings, "test", progress=progress):
        pass


def test_loads_of_two_sources_do_not_wait(settings):
    with Landing(settings, "one"), Landing(settings, "two"):
        pass


def test_freshness_is_what_the_table_holds(settings, land):
    land(seen("A", DAY_1, DAY_1), seen("A", DAY_1, DAY_2, identity="y"))
    land(gone(DAY_3))
    query = (
        "select resource, last_source_update, rows, tombstones, now() - last_landed_at"
        f" from {settings.prefix}operations.source_freshness where source = 'test'"
    )
    with connect(settings) as connection:
        ((resource, updated, count, tombstones, age),) = connection.execute(query).fetchall()
    assert (resource, updated, count, tombstones) == ("things", DAY_2, 3, 1)
    assert timedelta() < age < timedelta(minutes=5)


def test_commits_name_the_load(settings, land):
    land(seen("A"))
    with connect(settings) as connection, connection.cursor(row_factory=psycopg.rows.dict_row) as c:
        query = f"select * from {settings.prefix}operations.commits"
        (commit,) = c.execute(query).fetchall()
    assert commit["table_name"] == f"{settings.prefix}raw_test.things"
    assert (commit["model"], commit["rows"]) == (f"{settings.prefix}raw_test", 1)
    table = find_table(load_catalog(settings), commit["table_name"])
    summary = table.current_snapshot().summary.additional_properties
    assert summary["loreline.load-id"] in summary["loreline.job-id"]


def test_without_a_catalog_nothing_is_landed_anywhere(settings, monkeypatch):
    import dataclasses

    nowhere = dataclasses.replace(settings, catalog_uri="")
    with pytest.raises(LorelineError, match="LORELINE_CATALOG_URI"):
        load(nowhere, "gateway", "anything.jsonl")


def test_an_unknown_source_is_an_error(settings):
    with pytest.raises(LorelineError, match="no source is called"):
        load(settings, "sharepoint", "anything")
