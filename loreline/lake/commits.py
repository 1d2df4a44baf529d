"""How every write to the lake is done: one writer per table at a time, recorded, repeatable.

A commit goes through these steps, in this order:

1. take the table's lock (a Postgres advisory lock, freed by the server when the process dies);
2. record snapshots that an earlier process committed but was killed before recording;
3. take a number for `_batch`, write one Iceberg snapshot that carries the number, the writer and
   the watermarks in its properties;
4. record the snapshot and the watermarks in `operations`, in one transaction.

A process killed before 3 changed nothing; killed between 3 and 4, step 2 of the next writer makes
up for it from the snapshot's own properties.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import pyarrow as pa
from psycopg.sql import SQL, Identifier
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot

from loreline.lake.catalog import (
    add_columns,
    create_table,
    find_table,
    load_catalog,
    replace_layout,
)
from loreline.lake.snapshots import Changes, ReplaceFiles, write_files
from loreline.postgres import connect
from loreline.settings import Settings

BOOKKEEPING = pa.schema([("_batch", pa.int64()), ("_code_version", pa.string())])
Rows = pa.RecordBatchReader | pa.Table


@dataclass(frozen=True)
class Writer:
    """Who writes: the run, the model or source, and the version of its code."""

    invocation_id: str
    model: str
    code_version: str


@dataclass(frozen=True)
class Commit:
    """One recorded write: its last snapshot, the `_batch` of its rows, and how many there were."""

    table: str
    snapshot_id: int
    batch: int
    rows: int
    seconds: float


@dataclass(frozen=True)
class Watermarks:
    """How far a model has read: highest `_batch` per (upstream table, variant)."""

    model: str
    read: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def to_json(self) -> str:
        """As a snapshot property."""
        rows = [[upstream, variant, batch] for (upstream, variant), batch in self.read.items()]
        return json.dumps([self.model, rows])

    @classmethod
    def from_json(cls, text: str) -> Watermarks:
        """Read a snapshot property back."""
        model, rows = json.loads(text)
        return cls(model, {(upstream, variant): batch for upstream, variant, batch in rows})


class LockedTable:
    """A table whose lock is held: the only way to write to it.

    Args:
        settings: the stores.
        name: `namespace.table` as the catalog knows it, the target's prefix included.
        connection: the autocommitting connection that holds the lock.

    Attributes:
        stored: the table; None where there is none. No one else changes it while the lock is held:
            it is loaded once, and again after a write of DuckDB's.
    """

    def __init__(self, settings: Settings, name: str, connection: psycopg.Connection) -> None:
        self.settings = settings
        self.name = name
        self.connection = connection
        self.catalog = load_catalog(settings)
        self.stored = find_table(self.catalog, name)
        self._record_missed_snapshots()

    def next_batch(self) -> int:
        """The number for the rows of the commit that is about to be made, above all before it.

        Also where the sequence has fallen behind, because Postgres was restored from a backup.
        """
        last = self.last_batch()
        row = self._execute("select nextval('{}batch_numbers')").fetchone()
        if row is not None and row[0] <= last:
            row = self._execute("select setval('{}batch_numbers', %s)", (last + 1,)).fetchone()
        assert row is not None
        return row[0]

    def last_batch(self) -> int:
        """The highest `_batch` recorded for this table; -1 when nothing was."""
        return last_batch(self.connection, self.settings, self.name)

    def last_job_is(self, job_id: str) -> bool:
        """Whether a snapshot of this table came from the given job."""
        return self.stored is not None and any(
            _property(snapshot, "job-id") == job_id for snapshot in self.stored.snapshots()
        )

    def content_digest(self) -> str | None:
        """The digest that the last overwrite stored, if the current snapshot is that overwrite."""
        snapshot = self.stored.current_snapshot() if self.stored else None
        return _property(snapshot, "content-digest") if snapshot else None

    def append(
        self,
        rows: Rows,
        writer: Writer,
        *,
        watermarks: Watermarks | None = None,
        properties: Mapping[str, str] | None = None,
        partition_by: tuple[str, ...] = (),
    ) -> Commit | None:
        """Append rows as one snapshot; without rows nothing is committed, the watermarks move."""
        return self._write(rows, writer, watermarks, properties, partition_by, overwrite=False)

    def overwrite(
        self,
        rows: Rows,
        writer: Writer,
        *,
        watermarks: Watermarks | None = None,
        properties: Mapping[str, str] | None = None,
        partition_by: tuple[str, ...] = (),
    ) -> Commit | None:
        """Replace every row in one atomic commit; the history stays."""
        return self._write(rows, writer, watermarks, properties, partition_by, overwrite=True)

    def record(
        self,
        writer: Writer,
        batch: int,
        rows: int,
        seconds: float,
        watermarks: Watermarks | None,
        operation: str,
        table: Table | None = None,
    ) -> Commit:
        """Record the snapshots made since the last recorded one as this writer's."""
        table = self.stored = table or find_table(self.catalog, self.name)
        assert table is not None
        snapshots = self._unrecorded(table)
        with self.connection.transaction():
            for snapshot in snapshots:
                self._insert_commit(snapshot, writer, operation, batch, seconds)
            self.save_watermarks(watermarks)
        current = table.current_snapshot()
        assert current is not None
        return Commit(self.name, current.snapshot_id, batch, rows, seconds)

    def save_watermarks(self, watermarks: Watermarks | None) -> None:
        """Remember how far the model has read; a watermark never moves back."""
        if not watermarks:
            return
        for (upstream, variant), batch in watermarks.read.items():
            self._execute(
                "insert into {}watermarks as w (model, upstream, variant, last_batch)"
                " values (%s, %s, %s, %s) on conflict (model, upstream, variant)"
                " do update set last_batch = greatest(w.last_batch, excluded.last_batch)",
                (watermarks.model, upstream, variant, batch),
            )

    def forget_watermarks(self, model: str) -> None:
        """Make the model read everything again."""
        self._execute("delete from {}watermarks where model = %s", (model,))

    def _write(
        self,
        rows: Rows,
        writer: Writer,
        watermarks: Watermarks | None,
        properties: Mapping[str, str] | None,
        partition_by: tuple[str, ...],
        *,
        overwrite: bool,
    ) -> Commit | None:
        started = time.monotonic()
        batches = iter(rows.to_batches() if isinstance(rows, pa.Table) else rows)
        first = next((batch for batch in batches if batch.num_rows), None)
        if first is None and not overwrite:
            self.save_watermarks(watermarks)
            return None
        number = self.next_batch()
        stamped = _Stamped(rows.schema, number, writer.code_version)
        table = self.stored
        replaces = overwrite and table is not None and table.current_snapshot() is not None
        if table is None:
            table = create_table(self.catalog, self.name, stamped.schema, partition_by)
        elif not replaces:
            add_columns(table, stamped.schema)
        summary = {
            "loreline.operation": "overwrite" if overwrite else "append",
            "loreline.batch": str(number),
            "loreline.invocation-id": writer.invocation_id,
            "loreline.model": writer.model,
            "loreline.code-version": writer.code_version,
            **({"loreline.watermarks": watermarks.to_json()} if watermarks else {}),
            **{f"loreline.{key}": value for key, value in (properties or {}).items()},
        }
        remaining = batches if first is None else itertools.chain([first], batches)
        with Changes(table) as transaction:
            if replaces:
                replace_layout(transaction, stamped.schema, partition_by)
                snapshot = ReplaceFiles(transaction, Operation.OVERWRITE, summary)
                for task in table.scan().plan_files():
                    snapshot.delete_data_file(task.file)
            else:
                snapshot = transaction.update_snapshot(summary).fast_append()
            metadata, stamps = transaction.table_metadata, stamped.batches(remaining)
            with snapshot:
                for file in write_files(table, metadata, stamped.schema, stamps):
                    snapshot.append_data_file(file)
        seconds = time.monotonic() - started
        operation = summary["loreline.operation"]
        return self.record(writer, number, stamped.rows, seconds, watermarks, operation, table)

    def _record_missed_snapshots(self) -> None:
        """Make up for a process that was killed between its commit and its record."""
        table = self.stored
        for snapshot in self._unrecorded(table) if table else []:
            batch = _property(snapshot, "batch")
            writer = Writer(
                *(_property(snapshot, k) or "" for k in ("invocation-id", "model", "code-version"))
            )
            number = int(batch) if batch else _highest_batch(table, snapshot)
            with self.connection.transaction():
                # DuckDB's MERGE sets no properties of ours.
                operation = _property(snapshot, "operation") or "merge"
                self._insert_commit(snapshot, writer, operation, number, 0.0)
                if text := _property(snapshot, "watermarks"):
                    self.save_watermarks(Watermarks.from_json(text))

    def _unrecorded(self, table: Table) -> list[Snapshot]:
        """Snapshots newer than the last recorded one, oldest first."""
        current = table.current_snapshot()
        if current is None:
            return []
        recorded = {
            row[0]
            for row in self._execute(
                "select snapshot_id from {}commits where table_name = %s"
                " order by committed_at desc limit 100",
                (self.name,),
            )
        }
        found: list[Snapshot] = []
        snapshot: Snapshot | None = current
        while snapshot is not None and snapshot.snapshot_id not in recorded:
            found.append(snapshot)
            parent = snapshot.parent_snapshot_id
            snapshot = table.snapshot_by_id(parent) if parent is not None else None
        return found[::-1]

    def _insert_commit(
        self, snapshot: Snapshot, writer: Writer, operation: str, batch: int, seconds: float
    ) -> None:
        self._execute(
            "insert into {}commits (table_name, snapshot_id, invocation_id, model, code_version,"
            " operation, batch, rows, seconds) values (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
            " on conflict do nothing",
            (
                self.name,
                snapshot.snapshot_id,
                writer.invocation_id,
                writer.model,
                writer.code_version,
                operation,
                batch,
                int(_summary(snapshot).get("added-records", 0)),
                seconds,
            ),
        )

    def _execute(self, statement: str, parameters: tuple[object, ...] = ()) -> psycopg.Cursor:
        schema = f"{self.settings.prefix}operations."
        return self.connection.execute(statement.replace("{}", schema).encode(), parameters or None)


@contextmanager
def locked(settings: Settings, name: str) -> Iterator[LockedTable]:
    """Hold the lock of one table; waits for whoever holds it.

    Each lock has a connection of its own, so that releasing one never waits for another. Read the
    lake only after entering: a DuckDB transaction opened before would not see the last commit.
    """
    with connect(settings, autocommit=True) as connection:
        key = f"{settings.catalog_warehouse}.{name}"
        connection.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (key,))
        yield LockedTable(settings, name, connection)


def append(
    settings: Settings,
    name: str,
    rows: Rows | Callable[[], Rows],
    *,
    writer: Writer,
    job_id: str | None = None,
    properties: Mapping[str, str] | None = None,
) -> Commit | None:
    """Append rows to a table once per job.

    Args:
        settings: the stores.
        name: `namespace.table` as the catalog knows it, the target's prefix included.
        rows: what to append; a function is called only when the job is not there yet.
        writer: who writes.
        job_id: repeating a job that was committed already writes nothing.
        properties: more properties for the snapshot, without their `loreline.` prefix.

    Returns:
        The commit, or None where there was nothing to do.
    """
    with locked(settings, name) as table:
        if job_id and table.last_job_is(job_id):
            return None
        named = {**(properties or {}), **({"job-id": job_id} if job_id else {})}
        return table.append(rows() if callable(rows) else rows, writer, properties=named)


def last_batch(connection: psycopg.Connection, settings: Settings, name: str) -> int:
    """The highest `_batch` recorded for a table; -1 when nothing was."""
    statement = SQL("select coalesce(max(batch), -1) from {}.commits where table_name = %s").format(
        _records_of(settings, name)
    )
    row = connection.execute(statement, (name,)).fetchone()
    assert row is not None
    return row[0]


def rewritten(
    connection: psycopg.Connection, settings: Settings, name: str, low: int, high: int
) -> bool:
    """Whether a table was replaced as a whole by a commit with low < batch <= high."""
    statement = SQL(
        "select 1 from {}.commits where table_name = %s and batch > %s and batch <= %s"
        " and operation = 'overwrite' limit 1"
    ).format(_records_of(settings, name))
    return connection.execute(statement, (name, low, high)).fetchone() is not None


def _records_of(settings: Settings, name: str) -> Identifier:
    """The schema that records a table's commits: of a deferred upstream, the plain one."""
    prefix = settings.prefix if name.startswith(settings.prefix) else ""
    return Identifier(f"{prefix}operations")


class _Stamped:
    """Rows with their bookkeeping columns, counted as they pass."""

    def __init__(self, schema: pa.Schema, batch: int, code_version: str) -> None:
        self.columns = [name for name in schema.names if name not in BOOKKEEPING.names]
        self.schema = pa.schema([*(schema.field(name) for name in self.columns), *BOOKKEEPING])
        self.batch = batch
        self.code_version = code_version
        self.rows = 0

    def batches(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        return map(self._stamp, batches)

    def _stamp(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        self.rows += batch.num_rows
        columns = [batch.column(name) for name in self.columns]
        stamps = [
            pa.repeat(pa.scalar(self.batch, pa.int64()), batch.num_rows),
            pa.repeat(pa.scalar(self.code_version, pa.string()), batch.num_rows),
        ]
        return pa.RecordBatch.from_arrays([*columns, *stamps], schema=self.schema)


def _summary(snapshot: Snapshot) -> Mapping[str, str]:
    return snapshot.summary.additional_properties if snapshot.summary else {}


def _property(snapshot: Snapshot, key: str) -> str | None:
    return _summary(snapshot).get(f"loreline.{key}")


def _highest_batch(table: Table, snapshot: Snapshot) -> int:
    reader = table.scan(
        snapshot_id=snapshot.snapshot_id, selected_fields=("_batch",)
    ).to_arrow_batch_reader()
    numbers = (batch.column("_batch") for batch in reader)
    return max((n.as_py() for column in numbers for n in column), default=-1)
