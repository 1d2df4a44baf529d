"""Upkeep: compaction, expiry and orphan files, without a reader or a writer noticing."""

import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow.fs import FileSelector, FileType
from pyiceberg.table import Table

from loreline.errors import LorelineError
from loreline.lake import commits, compaction, duck
from loreline.lake.catalog import load_catalog
from loreline.lake.commits import Writer, locked, rewritten
from loreline.lake.maintenance import Action, maintain
from loreline.lake.objects import object_store
from loreline.postgres import connect
from loreline.settings import Settings

WRITER = Writer("invocation", "model", "1.0+abc")
MONTHS_LATER = timedelta(days=60)
KILLS = [0, *(pytest.param(i, marks=pytest.mark.soak) for i in range(1, 33))]


@pytest.fixture
def name(settings: Settings) -> str:
    return f"{settings.prefix}upkeep.things"


def things(first: int, count: int = 10) -> pa.Table:
    ids = range(first, first + count)
    kinds = [("a b", "é/%", None)[i % 3] for i in ids]
    return pa.table({"id": pa.array(ids, pa.int64()), "kind": pa.array(kinds, pa.string())})


def append(settings: Settings, name: str, times: int, **options: object) -> None:
    for i in range(times):
        with locked(settings, name) as table:
            table.append(things(10 * i), WRITER, **options)


def sql(settings: Settings, statement: str) -> list[tuple]:
    with duck.connect(settings, read_only=False) as connection:
        return connection.execute(statement).fetchall()


def rows(settings: Settings, name: str, version: int | None = None) -> list[tuple]:
    at = f" at (version => {version})" if version else ""
    return sql(settings, f"select * from lake.{name}{at} order by all")


def loaded(settings: Settings, name: str) -> Table:
    return load_catalog(settings).load_table(name)


def snapshots(settings: Settings, name: str) -> list[int]:
    return [snapshot.snapshot_id for snapshot in loaded(settings, name).snapshots()]


def recorded(settings: Settings, name: str) -> list[tuple]:
    with connect(settings) as connection:
        return connection.execute(
            f"select snapshot_id, operation, batch, rows from {settings.prefix}operations.commits"
            " where table_name = %s order by committed_at",
            (name,),
        ).fetchall()


def files(settings: Settings, name: str) -> set[str]:
    """What the store holds under a table's location."""
    location = loaded(settings, name).metadata.location.removeprefix("s3://")
    listed = object_store(settings).get_file_info(FileSelector(location, recursive=True))
    return {info.path.removeprefix(location) for info in listed if info.type is FileType.File}


def put(settings: Settings, name: str, path: str) -> None:
    location = loaded(settings, name).metadata.location.removeprefix("s3://")
    with object_store(settings).open_output_stream(location + path) as stream:
        stream.write(b"nobody refers to this")


def later() -> datetime:
    return datetime.now(UTC) + MONTHS_LATER


def kinds(actions: list[Action]) -> list[str]:
    return [action.kind for action in actions]


# compaction


def test_small_files_become_one_and_the_rows_stay(settings: Settings, name: str) -> None:
    append(settings, name, 8)
    before, history = rows(settings, name), snapshots(settings, name)
    numbers = [row[2] for row in recorded(settings, name)]

    [action] = maintain(settings, tables=[name])

    assert (action.kind, action.files, action.files_after) == ("compact", 8, 1)
    assert rows(settings, name) == before
    assert loaded(settings, name).inspect.data_files().num_rows == 1
    assert snapshots(settings, name)[:-1] == history
    assert rows(settings, name, history[2]) == [row for row in before if row[0] < 30]
    assert recorded(settings, name)[-1][1:] == ("compact", numbers[-1], 80)
    with connect(settings) as connection:
        assert not rewritten(connection, settings, name, -1, numbers[-1])
    with locked(settings, name) as table:
        assert table.last_batch() == numbers[-1]

    assert maintain(settings, tables=[name]) == []
    assert len(snapshots(settings, name)) == len(history) + 1


def test_few_small_files_are_left_alone(settings: Settings, name: str) -> None:
    append(settings, name, compaction.FEW_FILES - 1)
    assert maintain(settings, tables=[name]) == []


def test_deleted_rows_and_their_delete_files_go(settings: Settings, name: str) -> None:
    append(settings, name, 2)
    sql(settings, f"delete from lake.{name} where id in (3, 13, 14)")
    sql(
        settings,
        f"merge into lake.{name} as old using (select 5 as id) as new on old.id = new.id"
        " when matched then update set kind = 'changed'",
    )
    before = rows(settings, name)
    assert loaded(settings, name).inspect.delete_files().num_rows > 0

    [action] = maintain(settings, tables=[name])

    assert (action.kind, action.files_after) == ("compact", 1)
    assert rows(settings, name) == before
    table = loaded(settings, name)
    assert table.scan().to_arrow().num_rows == len(before) == 17
    assert table.inspect.delete_files().num_rows == 0
    current = table.current_snapshot()
    assert current and current.summary
    assert current.summary["total-delete-files"] == "0"
    assert current.summary["total-position-deletes"] == "0"
    assert current.summary["total-records"] == "17"
    assert maintain(settings, tables=[name]) == []


def test_a_file_whose_rows_are_all_deleted_goes(settings: Settings, name: str) -> None:
    append(settings, name, 2)
    sql(settings, f"delete from lake.{name}")
    [action] = maintain(settings, tables=[name])
    assert (action.files, action.files_after) == (2, 0)
    assert rows(settings, name) == []
    append(settings, name, 1)
    assert len(rows(settings, name)) == 10


def test_each_partition_is_compacted_by_itself(settings: Settings, name: str) -> None:
    append(settings, name, 6, partition_by=("kind",))
    sql(settings, f"delete from lake.{name} where id = 4")
    before = rows(settings, name)
    [action] = maintain(settings, tables=[name])
    assert (action.files, action.files_after) == (18, 3)
    assert rows(settings, name) == before
    table = loaded(settings, name)
    assert table.inspect.partitions()["file_count"].to_pylist() == [1, 1, 1]
    assert table.scan(row_filter="kind = 'a b'").to_arrow().num_rows == len(
        [row for row in before if row[1] == "a b"]
    )
    # Nothing that the table needs looks like an orphan, whatever the names of its folders.
    maintain(settings, tables=[name], now=later())
    assert rows(settings, name) == before


def test_files_of_several_schemas_are_compacted(settings: Settings, name: str) -> None:
    with locked(settings, name) as table:
        for i in range(3):
            table.append(pa.table({"id": pa.array([i], pa.int32()), "list": [[1, i]]}), WRITER)
        for i in range(3, 6):
            wide = pa.table({"id": pa.array([2**40 + i]), "new": [{"a": i}]})
            table.append(wide, WRITER)
    before = rows(settings, name)
    assert kinds(maintain(settings, tables=[name])) == ["compact"]
    assert rows(settings, name) == before
    table = loaded(settings, name)
    assert table.inspect.data_files().num_rows == 1
    # Columns are found by their numbers, those within lists and structs included.
    path = table.inspect.data_files()["file_path"][0].as_py().removeprefix("s3://")
    ids = pq.read_schema(path, filesystem=object_store(settings))
    nested = ids.field("list").type.value_field, ids.field("new").type.field("a")
    assert all(b"PARQUET:field_id" in field.metadata for field in (*ids, *nested))


def test_groups_have_a_size_and_follow_the_order_of_commits(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(settings, name, 12)
    size = loaded(settings, name).inspect.data_files()["file_size_in_bytes"][0].as_py()
    monkeypatch.setattr(compaction, "TARGET_BYTES", 6 * size + size // 2)
    monkeypatch.setattr(compaction, "LARGE_BYTES", size + 1)
    [action] = maintain(settings, tables=[name])
    assert (action.files, action.files_after) == (12, 2)
    numbers = [row[2] for row in recorded(settings, name)[:12]]
    metrics = loaded(settings, name).inspect.data_files()["readable_metrics"].to_pylist()
    bounds = [file["_batch"] for file in metrics]
    assert sorted((b["lower_bound"], b["upper_bound"]) for b in bounds) == [
        (numbers[0], numbers[5]),
        (numbers[6], numbers[11]),
    ]


def test_what_writers_do_meanwhile_is_kept(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An append does not matter; a group with a row deleted meanwhile is left for the next time."""
    append(settings, name, 6, partition_by=("kind",))
    write = compaction._rewrite
    meanwhile = iter([f"delete from lake.{name} where id = 0", None])

    def written(*arguments: object) -> object:
        if statement := next(meanwhile, None):
            sql(settings, statement)
            append(settings, name, 1)
        return write(*arguments)

    monkeypatch.setattr(compaction, "_rewrite", written)
    [action] = maintain(settings, tables=[name])
    assert (action.files, action.files_after) == (12, 2)
    ids = sorted([*range(60), *range(10)])
    assert [row[0] for row in rows(settings, name)] == ids[1:]
    assert kinds(maintain(settings, tables=[name])) == ["compact"]
    assert [row[0] for row in rows(settings, name)] == ids[1:]
    # What was written in vain was deleted at once.
    in_four_days = datetime.now(UTC) + timedelta(days=4)
    assert maintain(settings, tables=[name], now=in_four_days) == []


def test_a_table_written_anew_meanwhile_stays_as_it_is(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(settings, name, 6)
    write = compaction._rewrite

    def overwritten(*arguments: object) -> object:
        with locked(settings, name) as table:
            table.overwrite(things(500), WRITER)
        return write(*arguments)

    monkeypatch.setattr(compaction, "_rewrite", overwritten)
    assert maintain(settings, tables=[name]) == []
    assert [row[0] for row in rows(settings, name)] == list(range(500, 510))
    # What was written in vain is gone at once: seven data files of the table, and no more.
    assert len([path for path in files(settings, name) if path.startswith("/data/")]) == 7


def test_rows_that_would_be_lost_stop_a_compaction(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(settings, name, 6)
    before = rows(settings, name)
    monkeypatch.setattr(compaction, "pieces", lambda batches, size: [[next(iter(batches))]])
    with pytest.raises(LorelineError, match="read 10 rows where its manifests say 60"):
        maintain(settings, tables=[name])
    assert rows(settings, name) == before
    assert len(snapshots(settings, name)) == 6


def test_a_compaction_that_was_not_recorded_is_made_up_for(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(settings, name, 6)
    with monkeypatch.context() as patch:
        patch.setattr(
            commits.LockedTable, "record", lambda *_: (_ for _ in ()).throw(OSError("lost"))
        )
        with pytest.raises(LorelineError, match="lost"):
            maintain(settings, tables=[name])
    append(settings, name, 1)
    operations = [row[1] for row in recorded(settings, name)]
    assert operations == [*["append"] * 6, "compact", "append"]
    numbers = [row[2] for row in recorded(settings, name)]
    assert numbers[6] == numbers[5] < numbers[7]


def test_a_compaction_keeps_the_digest_of_the_content(settings: Settings, name: str) -> None:
    """By which a `table` model sees that there is nothing to write."""
    append(settings, name, 6, properties={"content-digest": "60:abc"})
    assert kinds(maintain(settings, tables=[name])) == ["compact"]
    with locked(settings, name) as table:
        assert table.content_digest() == "60:abc"


# expiry


def test_old_snapshots_expire_with_their_files(settings: Settings, name: str) -> None:
    append(settings, name, 3)
    with locked(settings, name) as table:
        table.overwrite(things(100), WRITER)
        table.overwrite(things(200), WRITER)
    history, commits_before = snapshots(settings, name), recorded(settings, name)
    loaded(settings, name).manage_snapshots().create_tag(history[3], "frozen").commit()

    [action] = maintain(settings, tables=[name], now=later())

    assert (action.kind, action.snapshots) == ("expire", 3)
    assert snapshots(settings, name) == history[3:]
    assert [row[0] for row in rows(settings, name)] == list(range(200, 210))
    assert [row[0] for row in rows(settings, name, history[3])] == list(range(100, 110))
    assert len([path for path in files(settings, name) if path.startswith("/data/")]) == 2
    assert len([path for path in files(settings, name) if "/snap-" in path]) == 2
    assert recorded(settings, name) == commits_before
    with pytest.raises(duckdb.Error):
        rows(settings, name, history[0])
    assert maintain(settings, tables=[name], now=later()) == []


def test_a_snapshot_ages_from_when_another_took_its_place(settings: Settings, name: str) -> None:
    """What was current at the limit stays readable, however long before it was written."""
    append(settings, name, 2)
    limit = datetime.now(UTC)
    time.sleep(0.01)
    append(settings, name, 1)
    _, kept, current = snapshots(settings, name)
    then = limit + timedelta(days=float(settings.snapshot_days))
    [action] = maintain(settings, tables=[name], now=then)
    assert (action.kind, action.snapshots) == ("expire", 1)
    assert snapshots(settings, name) == [kept, current]


def test_how_long_snapshots_are_kept_is_a_setting(settings: Settings, name: str) -> None:
    append(settings, name, 3)
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert maintain(settings, tables=[name], now=tomorrow) == []
    shorter = replace(settings, snapshot_days="0.5")
    assert kinds(maintain(shorter, tables=[name], now=tomorrow)) == ["expire"]


def test_no_policy_takes_a_snapshot_from_a_query_under_way(settings: Settings, name: str) -> None:
    append(settings, name, 3)
    assert maintain(replace(settings, snapshot_days="0"), tables=[name]) == []


# orphan files


def test_files_that_nothing_refers_to_go_when_they_are_old(settings: Settings, name: str) -> None:
    append(settings, name, 2)
    orphans = {"/data/lost.parquet", "/data/kind=x/lost.parquet", "/metadata/lost-m0.avro"}
    for path in orphans:
        put(settings, name, path)
    before = rows(settings, name)
    in_two_days = datetime.now(UTC) + timedelta(days=2)
    assert maintain(settings, tables=[name], now=in_two_days) == []
    assert orphans <= files(settings, name)

    in_four_days = datetime.now(UTC) + timedelta(days=4)
    [action] = maintain(settings, tables=[name], now=in_four_days)
    assert (action.kind, action.files, action.bytes) == ("remove", 3, 3 * 21)
    assert not orphans & files(settings, name)
    assert rows(settings, name) == before
    assert maintain(settings, tables=[name], now=in_four_days) == []


def test_metadata_that_may_be_served_stays(settings: Settings, name: str) -> None:
    append(settings, name, 1)
    put(settings, name, "/metadata/00000-before.metadata.json")
    time.sleep(1.1)  # Times in the store have whole seconds.
    append(settings, name, 1)
    put(settings, name, "/metadata/v99.metadata.json")
    before = rows(settings, name)
    in_four_days = datetime.now(UTC) + timedelta(days=4)
    [action] = maintain(settings, tables=[name], now=in_four_days)
    assert (action.kind, action.files) == ("remove", 1)
    assert "/metadata/00000-before.metadata.json" not in files(settings, name)
    assert "/metadata/v99.metadata.json" in files(settings, name)
    assert rows(settings, name) == before


def test_a_listing_that_lacks_files_removes_none(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from loreline.lake import maintenance

    append(settings, name, 2)
    put(settings, name, "/data/lost.parquet")
    listed = maintenance._listed
    monkeypatch.setattr(
        maintenance,
        "_listed",
        lambda *arguments: dict(list(listed(*arguments).items())[1:]),
    )
    with pytest.raises(LorelineError, match="the store lists no"):
        maintain(settings, tables=[name], now=datetime.now(UTC) + timedelta(days=4))
    assert "/data/lost.parquet" in files(settings, name)


# the whole


def test_a_dry_run_says_what_the_run_will_do(settings: Settings, name: str) -> None:
    append(settings, name, 6)
    sql(settings, f"delete from lake.{name} where id = 7")
    put(settings, name, "/data/lost.parquet")
    state = snapshots(settings, name), files(settings, name), recorded(settings, name)
    in_five_days = datetime.now(UTC) + timedelta(days=5)
    short = replace(settings, snapshot_days="10")
    announced = maintain(short, tables=[name], now=in_five_days, dry_run=True)
    assert kinds(announced) == ["compact", "remove"]
    one = maintain(short, tables=[name], kinds=["compact"], now=in_five_days, dry_run=True)
    assert one == announced[:1]
    assert (snapshots(settings, name), files(settings, name), recorded(settings, name)) == state
    shown: list[Action] = []
    assert maintain(short, tables=[name], now=in_five_days, progress=shown.append) == announced
    assert shown == announced
    assert "6 files (0.0 MB) rewritten as 1" in str(announced[0])

    expiring = replace(settings, snapshot_days="1")
    announced = maintain(expiring, tables=[name], now=in_five_days, dry_run=True)
    assert kinds(announced) == ["expire"]
    assert maintain(expiring, tables=[name], now=in_five_days) == announced


def test_only_tables_that_this_target_has_written_are_maintained(
    settings: Settings, name: str
) -> None:
    append(settings, name, 6)
    append(settings, f"{name}_too", 6)
    catalog = load_catalog(settings)
    foreign = catalog.create_table(f"{settings.prefix}upkeep.foreign", things(0).schema)
    for _ in range(6):
        foreign.append(things(0))
    assert {action.table for action in maintain(settings, dry_run=True)} == {name, f"{name}_too"}
    with pytest.raises(LorelineError, match="foreign"):
        maintain(settings, tables=[f"{settings.prefix}upkeep.foreign"])
    assert {action.table for action in maintain(settings, tables=[name])} == {name}
    catalog.drop_table(name)
    assert {action.table for action in maintain(settings)} == {f"{name}_too"}


def test_a_broken_table_does_not_keep_the_others_from_upkeep(settings: Settings, name: str) -> None:
    append(settings, name, 6)
    append(settings, f"{name}_too", 6)
    table = loaded(settings, name)
    table.io.delete(table.inspect.data_files()["file_path"][0].as_py())
    with pytest.raises(LorelineError, match="1 tables could not be maintained") as raised:
        maintain(settings)
    assert name in str(raised.value)
    assert loaded(settings, f"{name}_too").inspect.data_files().num_rows == 1
    assert len(snapshots(settings, name)) == 6


def test_readers_see_no_error_and_all_rows(settings: Settings, name: str) -> None:
    append(settings, name, 6)
    sql(settings, f"delete from lake.{name} where id = 3")
    done = threading.Event()
    seen: list[tuple] = []

    def read() -> None:
        with duck.connect(settings) as connection:
            while not done.is_set():
                query = f"select count(*), sum(id), count(distinct _batch) from lake.{name}"
                seen.append(connection.execute(query).fetchone() or ())

    with ThreadPoolExecutor() as pool:
        readers = [pool.submit(read) for _ in range(2)]
        for i in range(3):
            append(settings, name, 6)
            sql(settings, f"delete from lake.{name} where id = {i + 4}")
            assert kinds(maintain(settings, tables=[name])) == ["compact"]
            time.sleep(0.2)
        # Snapshots that nobody reads any more expire under the readers of the current one.
        assert "expire" in kinds(maintain(settings, tables=[name], now=later()))
        time.sleep(0.2)
        done.set()
        for reader in readers:
            reader.result()
    counts = {row[0] for row in seen}
    assert seen[-1][0] == len(rows(settings, name))
    assert len(counts) > 1
    assert min(counts) >= 59


@pytest.mark.parametrize("round_", KILLS)
def test_a_run_that_is_killed_leaves_the_table_whole(
    settings: Settings, name: str, round_: int
) -> None:
    append(settings, name, 8)
    sql(settings, f"delete from lake.{name} where id in (3, 33)")
    append(settings, name, 2)
    before = rows(settings, name)
    code = """
        from datetime import datetime, timedelta, UTC
        from loreline.lake.catalog import load_catalog
        from loreline.lake.maintenance import maintain
        from loreline.settings import Settings
        import sys
        settings = Settings.load()
        load_catalog(settings)
        print("ready", flush=True)
        maintain(settings, tables=[sys.argv[1]], now=datetime.now(UTC) + timedelta(days=60))
    """
    killed = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), name], stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout and killed.stdout.readline() == "ready\n"
    moment = random.Random(round_).uniform(0.05, 0.6)
    time.sleep(moment)
    killed.send_signal(signal.SIGKILL)
    killed.wait()

    assert rows(settings, name) == before, moment
    assert loaded(settings, name).scan().to_arrow().num_rows == len(before)

    maintain(settings, tables=[name], now=later())
    maintain(settings, tables=[name], now=later())
    assert maintain(settings, tables=[name], now=later()) == []
    assert rows(settings, name) == before
    table = loaded(settings, name)
    assert table.inspect.data_files().num_rows == 1
    assert len(table.snapshots()) == 1
    assert len([path for path in files(settings, name) if path.startswith("/data/")]) == 1
    assert recorded(settings, name)[-1][1] == "compact"
