"""The commit protocol: one writer per table, recorded once, whatever is killed in between."""

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest

from loreline.errors import LorelineError
from loreline.lake import commits, duck, snapshots
from loreline.lake.catalog import create_table, find_table, load_catalog
from loreline.lake.commits import LockedTable, Watermarks, Writer, locked, rewritten
from loreline.postgres import connect
from loreline.settings import Settings

WRITER = Writer("invocation", "model", "1.0+abc")
OTHER = Writer("later invocation", "model", "1.1+def")


@pytest.fixture
def name(settings: Settings) -> str:
    return f"{settings.prefix}lake_tests.things"


def numbers(*values: int) -> pa.Table:
    names = pa.array([f"n{value}" for value in values], pa.string())
    return pa.table({"id": pa.array(values, pa.int64()), "name": names})


def stored(settings: Settings, name: str, columns: str = "id") -> list[tuple]:
    with duck.connect(settings) as connection:
        query = f"select {columns} from lake.{name} order by all"
        return connection.execute(query).fetchall()


def snapshot_ids(settings: Settings, name: str) -> list[int]:
    table = find_table(load_catalog(settings), name)
    return [snapshot.snapshot_id for snapshot in table.snapshots()] if table else []


def recorded(settings: Settings, name: str) -> list[tuple]:
    """(snapshot, writer's invocation, operation, batch, rows) in the order of the batches."""
    with connect(settings) as connection:
        return connection.execute(
            f"select snapshot_id, invocation_id, operation, batch, rows"
            f" from {settings.prefix}operations.commits where table_name = %s"
            " order by batch, committed_at",
            (name,),
        ).fetchall()


def watermarks(settings: Settings) -> dict[tuple[str, str, str], int]:
    with connect(settings) as connection:
        rows = connection.execute(
            f"select model, upstream, variant, last_batch"
            f" from {settings.prefix}operations.watermarks"
        )
        return {row[:3]: row[3] for row in rows}


def start(code: str, *arguments: str) -> subprocess.Popen:
    """A Python process with the test's settings in its environment."""
    imports = """
        import os, signal, sys, time
        import pyarrow as pa
        from loreline.lake.commits import *
        from loreline.settings import Settings
        settings, name = Settings.load(), sys.argv[1]
    """
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(imports) + textwrap.dedent(code), *arguments],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_job_is_written_once(settings: Settings, name: str) -> None:
    first = commits.append(settings, name, numbers(1, 2), writer=WRITER, job_id="load-1/job-1")
    assert first and first.rows == 2

    def not_again() -> pa.Table:
        raise AssertionError("the rows of a job that is there must not even be read")

    assert commits.append(settings, name, not_again, writer=WRITER, job_id="load-1/job-1") is None
    assert commits.append(settings, name, numbers(3), writer=WRITER, job_id="load-1/job-2")
    assert stored(settings, name) == [(1,), (2,), (3,)]
    assert len(snapshot_ids(settings, name)) == 2


def test_nothing_to_write_makes_no_snapshot_but_moves_the_watermark(
    settings: Settings, name: str
) -> None:
    with locked(settings, name) as table:
        table.append(numbers(1), WRITER)
        assert table.append(numbers(), WRITER, watermarks=Watermarks("m", {("u", ""): 7})) is None
    assert len(snapshot_ids(settings, name)) == 1
    assert watermarks(settings) == {("m", "u", ""): 7}


def test_a_watermark_never_moves_back(settings: Settings, name: str) -> None:
    with locked(settings, name) as table:
        table.save_watermarks(Watermarks("m", {("u", ""): 7, ("u", "variant"): 3}))
        table.save_watermarks(Watermarks("m", {("u", ""): 5, ("u", "variant"): 4}))
        assert watermarks(settings) == {("m", "u", ""): 7, ("m", "u", "variant"): 4}
        table.forget_watermarks("m")
    assert watermarks(settings) == {}


def test_what_a_writer_could_not_record_the_next_one_does(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked(settings, name) as table:
        table.append(numbers(1), OTHER)
    read = Watermarks("model", {("upstream", ""): 41, ("upstream", "v2"): 12})
    with monkeypatch.context() as patch:
        patch.setattr(LockedTable, "record", lambda *_: (_ for _ in ()).throw(OSError("lost")))
        with pytest.raises(OSError, match="lost"), locked(settings, name) as table:
            table.append(numbers(2, 3), WRITER, watermarks=read)
    assert len(recorded(settings, name)) == 1
    assert watermarks(settings) == {}

    with locked(settings, name):
        pass

    *_, last = recorded(settings, name)
    [(batch,)] = set(stored(settings, name, "_batch")) - {(recorded(settings, name)[0][3],)}
    assert last == (snapshot_ids(settings, name)[-1], "invocation", "append", batch, 2)
    assert watermarks(settings) == {("model", *key): value for key, value in read.read.items()}


def test_what_a_killed_writer_committed_the_next_one_records(settings: Settings, name: str) -> None:
    killed = start(
        """
        def die(*_):
            os.kill(os.getpid(), signal.SIGKILL)
        LockedTable.record = die
        rows = pa.table({"id": [1, 2]})
        writer = Writer("killed", "model", "1.0")
        append(settings, name, rows, writer=writer, job_id="load/job", properties={"note": "x"})
        """,
        name,
    )
    assert killed.wait(60) == -signal.SIGKILL
    assert recorded(settings, name) == []

    assert commits.append(settings, name, numbers(9), writer=WRITER, job_id="load/job") is None

    [(snapshot, invocation, operation, batch, rows)] = recorded(settings, name)
    assert (snapshot, invocation, operation, rows) == (
        snapshot_ids(settings, name)[0],
        "killed",
        "append",
        2,
    )
    assert stored(settings, name, "id, _batch") == [(1, batch), (2, batch)]


def test_a_merge_that_was_not_recorded_is_found_by_its_rows(settings: Settings, name: str) -> None:
    with locked(settings, name) as table:
        table.append(numbers(1, 2), WRITER)
        number = table.next_batch()
    with duck.connect(settings, read_only=False) as connection:
        connection.execute(
            f"merge into lake.{name} as old using (select 2 as id union all select 3) as new"
            " on old.id = new.id"
            f" when matched then update set name = 'changed', _batch = {number}"
            " when not matched then insert (id, name, _batch, _code_version)"
            f" values (new.id, 'new', {number}, 'x')"
        )
    assert number > recorded(settings, name)[0][3]

    with locked(settings, name) as table:
        assert table.last_batch() == number
    merges = recorded(settings, name)[1:]
    assert {row[0] for row in merges} == set(snapshot_ids(settings, name)[1:])
    assert {row[2:4] for row in merges} == {("merge", number)}
    assert sum(row[4] for row in merges) == 2


def test_only_a_replacement_as_a_whole_counts_as_rewritten(settings: Settings, name: str) -> None:
    with locked(settings, name) as table:
        first = table.append(numbers(1, 2), WRITER)
        second = table.append(numbers(3), WRITER)
        third = table.overwrite(numbers(1, 2, 3), WRITER)
    assert first and second and third
    with connect(settings) as connection:
        assert not rewritten(connection, settings, name, first.batch, second.batch)
        assert rewritten(connection, settings, name, second.batch, third.batch)
        assert not rewritten(connection, settings, name, third.batch, third.batch + 1)


def test_numbers_become_visible_in_order_under_many_writers(settings: Settings, name: str) -> None:
    """A reader that has seen number n never finds a smaller one later."""
    with locked(settings, name) as table:
        table.append(numbers(0), WRITER)
    done = threading.Event()
    seen: list[list[int]] = []

    def watch() -> None:
        with duck.connect(settings) as connection:
            while not done.is_set():
                query = f"select distinct _batch from lake.{name} order by all"
                seen.append([batch for (batch,) in connection.execute(query).fetchall()])

    def write(worker: int) -> None:
        for i in range(5):
            commits.append(settings, name, numbers(worker * 100 + i), writer=WRITER)

    with ThreadPoolExecutor() as pool:
        watching = pool.submit(watch)
        processes = [
            start(
                """
                for i in range(5):
                    rows = pa.table({"id": [int(sys.argv[2]) + i], "name": ["x"]})
                    append(settings, name, rows, writer=Writer(sys.argv[2], "m", "1"))
                """,
                name,
                str(1000 * worker),
            )
            for worker in (1, 2)
        ]
        list(pool.map(write, (1, 2, 3)))
        assert [process.wait(60) for process in processes] == [0, 0]
        done.set()
        watching.result()

    ids = [0, *(w + i for w in (100, 200, 300, 1000, 2000) for i in range(5))]
    assert stored(settings, name) == [(i,) for i in ids]
    assert len(snapshot_ids(settings, name)) == len(recorded(settings, name)) == len(ids)
    batches = [row[3] for row in recorded(settings, name)]
    assert len(set(batches)) == len(batches)
    assert snapshot_ids(settings, name) == [row[0] for row in recorded(settings, name)]
    for before, after in itertools.pairwise(seen):
        assert after[: len(before)] == before


def test_numbers_go_on_where_the_sequence_was_set_back(settings: Settings, name: str) -> None:
    """As by a backup of Postgres that is older than the lake."""
    commits.append(settings, name, numbers(1), writer=WRITER)
    last = commits.append(settings, name, numbers(2), writer=WRITER)
    with connect(settings, autocommit=True) as connection:
        operations = f"{settings.prefix}operations"
        connection.execute(f"alter sequence {operations}.batch_numbers restart")
        connection.execute(f"truncate {operations}.commits")
    after = [commits.append(settings, name, numbers(i), writer=WRITER) for i in (3, 4)]
    assert [commit and last and commit.batch - last.batch for commit in after] == [1, 2]


def test_an_append_and_an_overwrite_wait_for_each_other(settings: Settings, name: str) -> None:
    def appends() -> None:
        for i in range(6):
            commits.append(settings, name, numbers(i), writer=WRITER)

    def overwrites() -> None:
        for _ in range(6):
            with locked(settings, name) as table:
                table.overwrite(numbers(100, 101), WRITER)

    with ThreadPoolExecutor() as pool:
        for future in [pool.submit(appends), pool.submit(overwrites)]:
            future.result()

    history = recorded(settings, name)
    assert len(history) == 12
    last_overwrite = max(i for i, row in enumerate(history) if row[2] == "overwrite")
    assert len(stored(settings, name)) == 2 + len(history[last_overwrite + 1 :])


def test_locks_of_different_tables_do_not_wait(settings: Settings, name: str) -> None:
    with locked(settings, name), locked(settings, f"{name}_2") as other:
        assert other.append(numbers(1), WRITER)


def test_a_killed_process_frees_its_lock(settings: Settings, name: str) -> None:
    holder = start("with locked(settings, name): print('held', flush=True); time.sleep(600)", name)
    assert holder.stdout and holder.stdout.readline() == "held\n"
    waiting = ThreadPoolExecutor(1).submit(
        commits.append, settings, name, numbers(1), writer=WRITER
    )
    time.sleep(0.3)
    assert not waiting.done()
    os.kill(holder.pid, signal.SIGKILL)
    assert waiting.result(30)
    holder.wait()


def test_a_failing_writer_frees_its_lock(settings: Settings, name: str) -> None:
    def broken() -> Iterator[pa.RecordBatch]:
        yield from numbers(1).to_batches()
        raise ValueError("no more rows")

    rows = pa.RecordBatchReader.from_batches(numbers().schema, broken())
    with pytest.raises(ValueError, match="no more rows"), locked(settings, name) as table:
        table.append(rows, WRITER)
    assert snapshot_ids(settings, name) == []
    assert (
        ThreadPoolExecutor(1)
        .submit(commits.append, settings, name, numbers(2), writer=WRITER)
        .result(30)
    )
    assert stored(settings, name) == [(2,)]


def test_a_table_takes_new_columns(settings: Settings, name: str) -> None:
    with locked(settings, name) as table:
        table.append(numbers(1), WRITER)
        table.append(numbers(2).append_column("score", [[0.5]]), WRITER)
        table.append(numbers(3), WRITER)
    assert stored(settings, name, "id, score") == [(1, None), (2, 0.5), (3, None)]


def test_an_overwrite_keeps_the_history_and_lets_go_of_delete_files(
    settings: Settings, name: str
) -> None:
    with locked(settings, name) as table:
        table.append(numbers(1, 2, 3), WRITER)
    with duck.connect(settings, read_only=False) as connection:
        connection.execute(f"delete from lake.{name} where id = 2")
    before = snapshot_ids(settings, name)[-1]
    with locked(settings, name) as table:
        table.overwrite(numbers(7), WRITER)
    with duck.connect(settings) as connection:
        query = f"select id from lake.{name} at (version => {before}) order by id"
        assert connection.execute(query).fetchall() == [(1,), (3,)]
    assert stored(settings, name) == [(7,)]
    table = find_table(load_catalog(settings), name)
    assert table and table.inspect.delete_files().num_rows == 0
    assert table.current_snapshot().summary["total-delete-files"] == "0"


def test_partitioned_appends_are_written_in_pieces(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [numbers(*range(i, i + 10)).to_batches()[0] for i in range(0, 100, 10)]
    sources = pa.array(["a b/c", "é%20", None, "a b/c", "."] * 2)
    batches = [batch.append_column("source", sources) for batch in batches]
    monkeypatch.setattr(snapshots, "WRITE_BYTES", 3 * batches[0].nbytes)
    with locked(settings, name) as table:
        rows = pa.RecordBatchReader.from_batches(batches[0].schema, iter(batches))
        commit = table.append(rows, WRITER, partition_by=("source", "bucket(id, 2)"))
    assert commit and commit.rows == 100
    assert len(snapshot_ids(settings, name)) == 1
    table = find_table(load_catalog(settings), name)
    assert table and [field.name for field in table.spec().fields] == ["source", "id_bucket"]
    assert stored(settings, name) == [(i,) for i in range(100)]
    counts = Counter(source for source, _ in stored(settings, name, "source, id"))
    assert counts == {"a b/c": 40, "é%20": 20, None: 20, ".": 20}


def test_a_long_reader_is_not_read_ahead_of_what_is_written(
    settings: Settings, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten files' worth of rows; at no time are more than a few files' rows in memory."""
    batch = numbers(*range(1000)).to_batches()[0]
    monkeypatch.setattr(snapshots, "WRITE_BYTES", batch.nbytes)
    read, written, most = itertools.count(1), itertools.count(1), []
    counts = {"read": 0, "written": 0}
    write = snapshots._dataframe_to_data_files

    def slow_write(*arguments: object) -> object:
        time.sleep(0.05)
        files = list(write(*arguments))
        counts["written"] = next(written)
        return files

    def batches() -> Iterator[pa.RecordBatch]:
        for _ in range(10):
            counts["read"] = next(read)
            most.append(counts["read"] - counts["written"])
            yield batch

    monkeypatch.setattr(snapshots, "_dataframe_to_data_files", slow_write)
    with locked(settings, name) as table:
        commit = table.append(pa.RecordBatchReader.from_batches(batch.schema, batches()), WRITER)
    assert commit and commit.rows == 10_000
    assert max(most) <= snapshots.WRITES_AT_ONCE + 2
    table = find_table(load_catalog(settings), name)
    assert table and table.inspect.files().num_rows == 10


@pytest.mark.parametrize("size", [8_000, 100_000])
def test_large_values_are_read_in_little_memory(settings: Settings, name: str, size: int) -> None:
    """A hundred megabytes of texts, as the pages of a wiki; a page of Parquet stays small."""
    text = " ".join(random.Random(1).choices([f"w{n:04d}" for n in range(2000)], k=size))
    texts = (f"{n:06d} {text[n % size :]}"[:size] for n in range(100_000_000 // size))
    rows = pa.table({"id": pa.array(range(100_000_000 // size)), "name": pa.array(texts)})
    commits.append(settings, name, rows, writer=WRITER)
    with duck.connect(settings) as connection:
        connection.execute("set memory_limit = '128MB'")
        query = f"select sum(length(name)) from lake.{name} where contains(name, 'w0')"
        assert connection.execute(query).fetchall() == [(rows.num_rows * size,)]


def test_first_tables_of_a_namespace_are_created_at_once(settings: Settings) -> None:
    at_once = threading.Barrier(3)

    def create(name: str) -> None:
        catalog = load_catalog(settings)
        at_once.wait()
        create_table(catalog, name, numbers().schema)

    with ThreadPoolExecutor(3) as threads:
        for n in range(20):
            names = [f"{settings.prefix}new{n}.{table}" for table in ("a", "b", "c")]
            list(threads.map(create, names))
            assert all(find_table(load_catalog(settings), name) for name in names)


def test_secrets_are_in_no_message(settings: Settings, name: str) -> None:
    secrets = (
        settings.s3_secret_access_key,
        settings.catalog_credential.partition(":")[2],
        settings.postgres_url.split(":")[2].split("@")[0],
    )
    assert all(len(secret) > 8 for secret in secrets)
    commits.append(settings, name, numbers(1), writer=WRITER)
    nobody = "http://127.0.0.1:1"
    broken = (
        replace(settings, postgres_url=re.sub(r":\d+/", ":1/", settings.postgres_url)),
        replace(settings, postgres_url=settings.postgres_url + "_absent"),
        replace(settings, catalog_uri=nobody),
    )
    uses = (
        lambda s: duck.connect(s).execute(f"select * from lake.{name}"),
        lambda s: commits.append(s, name, numbers(1), writer=WRITER),
    )
    texts = [repr(settings), str(settings)]
    for wrong, use in itertools.product(broken, uses):
        with pytest.raises(LorelineError) as raised:
            use(wrong)
        texts += traceback.format_exception(raised.value)
    with pytest.raises(duckdb.Error) as lost:
        uses[0](replace(settings, s3_endpoint=nobody))
    texts += traceback.format_exception(lost.value)
    assert not [text for text in texts for secret in secrets if secret in text]
