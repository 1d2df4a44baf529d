"""A `table` model records what it really read, whoever writes meanwhile."""

from __future__ import annotations

import pyarrow as pa
import pytest

from loreline.lake import compaction, duck, materialize
from loreline.lake.catalog import load_catalog
from loreline.lake.commits import Writer, locked
from loreline.lake.made_from import made_from, snapshot_read, tables_read
from loreline.lake.maintenance import maintain
from loreline.lake.materialize import Model, Reading, materialize_sql

WRITER = Writer("invocation", "upstream", "1.0+abc")


@pytest.fixture
def lake(settings):
    with duck.connect(settings, read_only=False) as connection:
        yield connection


def write(settings, name, *numbers):
    with locked(settings, settings.prefix + name) as table:
        rows = pa.table({"n": pa.array(numbers, pa.int64())})
        return table.append(rows, WRITER).snapshot_id


def model(settings, **others):
    name = f"{settings.prefix}made.sums"
    return Model(name, name, "run", "1.0+def", **others)


def recorded(settings):
    table = load_catalog(settings).load_table(f"{settings.prefix}made.sums")
    return made_from(table, table.current_snapshot())


def sum_of(settings, *names):
    parts = " union all ".join(f"select n from lake.{settings.prefix}{name}" for name in names)
    return f"with parts as ({parts}) select sum(n)::bigint as total from parts"


def test_what_was_read_is_recorded_though_others_write_meanwhile(settings, lake, monkeypatch):
    first, second = write(settings, "up.a", 1), write(settings, "up.b", 10)

    def late(cursor, table):
        if table.endswith("up.a"):
            write(settings, "up.a", 5)
        return snapshot_read(cursor, table)

    monkeypatch.setattr(materialize, "snapshot_read", late)
    materialize_sql(settings, lake, model(settings), sum_of(settings, "up.a", "up.b"))
    prefix = settings.prefix
    made = recorded(settings)
    assert made.inputs == ((f"{prefix}up.a", first), (f"{prefix}up.b", second))
    assert lake.execute(f"select total from lake.{prefix}made.sums").fetchall() == [(11,)]
    assert made.outside == ()
    assert made.code.sql_sha256


def test_equal_rows_from_other_inputs_are_noted_without_a_snapshot(settings, lake):
    write(settings, "up.a", 1)
    sql = sum_of(settings, "up.a")
    materialize_sql(settings, lake, model(settings), sql)
    table = load_catalog(settings).load_table(f"{settings.prefix}made.sums")
    before, metadata = recorded(settings), table.metadata_location
    materialize_sql(settings, lake, model(settings), sql)
    assert table.refresh().metadata_location == metadata, "equal inputs wrote something"
    moved = write(settings, "up.a", 0)
    materialize_sql(settings, lake, model(settings), sql)
    assert recorded(settings).inputs == ((f"{settings.prefix}up.a", moved),)
    assert recorded(settings) != before
    assert len(table.refresh().snapshots()) == 1
    noted = recorded(settings)
    # Other rows come with what they were made from; the former keep what was noted of them.
    latest = write(settings, "up.a", 7)
    materialize_sql(settings, lake, model(settings), sql)
    assert recorded(settings).inputs == ((f"{settings.prefix}up.a", latest),)
    assert made_from(table, table.refresh().snapshots()[0]) == noted
    # And rows that come back do so from what was read by then.
    back = write(settings, "up.a", -7)
    materialize_sql(settings, lake, model(settings), sql)
    assert len(table.refresh().snapshots()) == 3
    assert recorded(settings).inputs == ((f"{settings.prefix}up.a", back),)


def test_compaction_carries_it_along(settings, lake, monkeypatch):
    write(settings, "up.a", 1)
    materialize_sql(settings, lake, model(settings), sum_of(settings, "up.a"))
    moved = write(settings, "up.a", 0)
    materialize_sql(settings, lake, model(settings), sum_of(settings, "up.a"))
    before = recorded(settings)
    monkeypatch.setattr(compaction, "FEW_FILES", 1)
    [action] = maintain(settings, tables=[f"{settings.prefix}made.sums"])
    assert action.kind == "compact"
    table = load_catalog(settings).load_table(f"{settings.prefix}made.sums")
    assert len(table.snapshots()) == 2
    assert recorded(settings) == before
    assert before.inputs == ((f"{settings.prefix}up.a", moved),)


def test_an_empty_table_has_no_snapshot_to_name(settings, lake):
    lake.execute(f"create schema if not exists lake.{settings.prefix}up")
    lake.execute(f"create table lake.{settings.prefix}up.empty (n bigint)")
    materialize_sql(settings, lake, model(settings), sum_of(settings, "up.empty"))
    [(name, snapshot_id)] = recorded(settings).inputs
    assert name == f"{settings.prefix}up.empty"
    table = load_catalog(settings).load_table(name)
    current = table.current_snapshot()
    assert snapshot_id == (current.snapshot_id if current else None)


def test_what_has_no_snapshots_is_named(settings, lake):
    write(settings, "up.a", 1)
    sql = (
        f"select count(*) as total from lake.{settings.prefix}up.a, "
        f'"pg"."{settings.prefix}operations"."commits" as "c"'
    )
    materialize_sql(settings, lake, model(settings), sql)
    assert [one.rsplit(".", 1)[-1] for one in recorded(settings).outside] == ["commits"]


def test_a_python_model_names_what_was_current_at_both_ends(settings, lake):
    prefix = settings.prefix
    first = write(settings, "up.a", 1)
    python = model(settings, upstream=(f"{prefix}up.a",))
    reading = Reading(settings, python.name, True, inputs=[(f"{prefix}up.a", first)])
    second = write(settings, "up.a", 2)
    lake.register("python_result", pa.table({"total": [3]}))
    materialize_sql(settings, lake, python, "select * from python_result", reading)
    made = recorded(settings)
    assert made.inputs == ((f"{prefix}up.a", first), (f"{prefix}up.a", second))
    assert made.code.sql_sha256 == ""


def test_a_failing_query_leaves_no_transaction_open(settings, lake):
    with pytest.raises(Exception, match="does not exist"):
        materialize_sql(settings, lake, model(settings), f"select * from lake.{settings.prefix}x.y")
    write(settings, "up.a", 1)
    materialize_sql(settings, lake, model(settings), sum_of(settings, "up.a"))


def test_names_are_read_as_duckdb_reads_them(settings, lake):
    write(settings, "up.a", 1)
    name = f"{settings.prefix}up.a"
    quoted = '"lake".' + ".".join(f'"{part}"' for part in name.split("."))
    sql = (
        f"with a as (select 'lake.x.y' as n from {quoted} as z) select * from a, lake.{name},"
        f" (select 1 from LAKE.{name} -- lake.n.o\n) as w"
    )
    assert tables_read(lake, sql)[0] == [name]
