"""What dbt's materializations do in the lake: `table`, `incremental` and `seed`.

The Jinja side only gathers a `Model`; everything with an order of steps, a lock or a `finally`
happens here, where it can be tested without dbt.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import duckdb
import psycopg
import pyarrow as pa

from loreline.errors import LorelineError
from loreline.lake.catalog import add_columns, find_table
from loreline.lake.commits import (
    Commit,
    LockedTable,
    Watermarks,
    Writer,
    last_batch,
    locked,
    rewritten,
)
from loreline.lake.made_from import (
    MadeFrom,
    code_of,
    current_snapshots,
    remember,
    snapshot_read,
    tables_read,
)
from loreline.postgres import connect
from loreline.settings import Settings

READ_ROWS = 50_000
TEMPORARY = "loreline_result"
# The macro `newer_than_watermark` writes these names; DuckDB folds the variables into constants, so
# that file statistics prune what was read before.
WATERMARK_VARIABLE = re.compile(r"getvariable\('low:([^']+)'\)")


@dataclass(frozen=True)
class Model:
    """One dbt node to be materialized.

    Args:
        relation: `schema.table` in the lake.
        name: the node's name, under which its watermarks are kept.
        strategy: append or merge; only for incremental models.
        unique_key: columns that identify a row; empty for an append of anything.
        is_incremental: how the model's code was compiled: to add to what is there, or as a whole.
        empty: run with `--empty`, so that nothing was read.
        columns: declared columns as (name, type, not null), checked when the contract is enforced.
        upstream: the lake tables that a Python model may read, as `namespace.table`.
        project: the folder of the dbt project.
        variables: dbt's `--vars`.
    """

    relation: str
    name: str
    invocation_id: str
    code_version: str
    materialized: str = "table"
    strategy: str = "append"
    unique_key: tuple[str, ...] = ()
    is_incremental: bool = False
    full_refresh: bool = False
    empty: bool = False
    contract: bool = False
    columns: tuple[tuple[str, str, bool], ...] = ()
    partition_by: tuple[str, ...] = ()
    on_schema_change: str = "append_new_columns"
    upstream: tuple[str, ...] = ()
    project: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)

    @property
    def writer(self) -> Writer:
        """Who the commits of this model name as their writer."""
        return Writer(self.invocation_id, self.name, self.code_version)


@dataclass
class Reading:
    """What a model reads in this run: per (upstream, variant) rows of low < `_batch` <= high.

    Args:
        connection: asked for the bounds, such as the one that holds the table's lock; without one,
            each question opens its own.
        inputs: of a Python `table` model: the snapshots that were current when it began.
    """

    settings: Settings
    model: str
    from_start: bool
    empty: bool = False
    connection: psycopg.Connection | None = None
    bounds: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    inputs: list[tuple[str, int | None]] = field(default_factory=list)

    def range(self, upstream: str, variant: str = "") -> tuple[int, int]:
        """Fix the bounds for one upstream; the same answer for the rest of the run."""
        key = (upstream, variant)
        if key not in self.bounds:
            with self._connected() as connection:
                low = -1 if self.from_start else self._watermark(connection, key)
                self.bounds[key] = low, last_batch(connection, self.settings, upstream)
        return self.bounds[key]

    def watermarks(self) -> Watermarks:
        """The state after everything within the bounds was read."""
        if self.empty:
            return Watermarks(self.model)
        moved = {key: high for key, (low, high) in self.bounds.items() if high > low}
        return Watermarks(self.model, moved)

    def earliest_repeat(self) -> int:
        """The `_batch` after which the target may hold rows that this run derives again.

        Numbers come from one sequence, so what was derived from rows above a watermark has numbers
        above it too. Where an upstream table was written anew, or is a deferred one whose numbers
        come from elsewhere, any row may come again: -1. An upstream without
        new rows repeats nothing, however long ago its watermark was set.
        """
        unread = {key: (low, high) for key, (low, high) in self.bounds.items() if high > low}
        with self._connected() as connection:
            for (upstream, _), (low, high) in unread.items():
                is_deferred = not upstream.startswith(self.settings.prefix)
                if (
                    low < 0
                    or is_deferred
                    or rewritten(connection, self.settings, upstream, low, high)
                ):
                    return -1
        return min((low for low, _ in unread.values()), default=-1)

    def check_still_unread(self) -> None:
        """Make sure that no other build has read the same rows since the bounds were fixed.

        Raises:
            LorelineError: one has, and what this one has made of them is not to be written.
        """
        with self._connected() as connection:
            for key, (low, high) in self.bounds.items():
                now = self._watermark(connection, key)
                if now > high if self.from_start else now != low:
                    raise LorelineError(
                        f"another build of {self.model} has read {key[0]} meanwhile",
                        "run it again; the table is as that build left it",
                    )

    def _connected(self) -> AbstractContextManager[psycopg.Connection]:
        if self.connection:
            return nullcontext(self.connection)
        return connect(self.settings, autocommit=True)

    def _watermark(self, connection: psycopg.Connection, key: tuple[str, str]) -> int:
        row = connection.execute(
            f"select last_batch from {self.settings.prefix}operations.watermarks"
            " where model = %s and upstream = %s and variant = %s",
            (self.model, *key),
        ).fetchone()
        return row[0] if row else -1


def materialize_sql(
    settings: Settings,
    cursor: duckdb.DuckDBPyConnection,
    model: Model,
    sql: str,
    already_read: Reading | None = None,
) -> str:
    """Run a model's SQL and commit what it changes; returns dbt's one-line message.

    The table's lock is held from before the watermarks are read until they are recorded: a second
    build of the same model waits, then finds nothing left to do.

    Args:
        settings: the stores.
        cursor: DuckDB with the lake attached, no transaction open.
        model: what is materialized, and how.
        sql: its rows.
        already_read: what a Python model read, without the lock, to make the rows.

    Raises:
        LorelineError: the contract does not hold, a key repeats or is null, the schema may not
            change, or another build has read the same rows meanwhile.
    """
    with locked(settings, model.relation) as table, _temporary(cursor):
        # How the SQL was compiled decides, though another build may have made the table since.
        fresh = not model.is_incremental
        reading = already_read or Reading(
            settings, model.name, fresh, model.empty, connection=table.connection
        )
        if already_read:
            reading.check_still_unread()
        for upstream in dict.fromkeys(WATERMARK_VARIABLE.findall(sql)):
            low, high = reading.range(upstream)
            cursor.execute(f"""set variable "low:{upstream}" = {low}""")
            cursor.execute(f"""set variable "high:{upstream}" = {high}""")
        try:
            made = _read(settings, cursor, model, sql, already_read)
        finally:
            for upstream, _ in reading.bounds:
                cursor.execute(f"""reset variable "low:{upstream}" """)
                cursor.execute(f"""reset variable "high:{upstream}" """)
        _check_contract(cursor, model)
        watermarks = reading.watermarks()
        if model.materialized != "incremental":
            return _message(_replace(table, cursor, model, made))
        if fresh:
            _check_unique(cursor, model)
            if model.empty:
                table.forget_watermarks(model.name)
            commit = table.overwrite(
                _rows(cursor), model.writer, watermarks=watermarks, partition_by=model.partition_by
            )
        else:
            _evolve(table, cursor, model)
            if model.strategy == "merge":
                commit = _merge(table, cursor, model, watermarks)
            else:
                commit = _append(table, cursor, model, reading)
        return _message(commit)


def materialize_batches(
    settings: Settings,
    cursor: duckdb.DuckDBPyConnection,
    model: Model,
    batches: pa.RecordBatchReader,
    reading: Reading,
) -> str:
    """Commit each batch of a Python model as an append of its own, a valid snapshot each.

    The work of the model happens between the commits, outside any lock. A row whose key a killed or
    a concurrent run has committed is left out.

    Raises:
        LorelineError: the contract does not hold, there is no key, or one repeats within a batch or
            is null.
    """
    if not model.unique_key:
        raise LorelineError(
            f"{model.name} gives its rows in batches, but has no unique_key",
            "set one: by it a run goes on where a killed one stopped",
        )
    commits: list[Commit] = []
    if model.full_refresh:
        with locked(settings, model.relation) as table:
            reading.check_still_unread()
            if model.empty:
                table.forget_watermarks(model.name)
            commits += _kept(
                table.overwrite(batches, model.writer, partition_by=model.partition_by)
            )
    with locked(settings, model.relation) as table:
        others = own = table.last_batch()
    for batch in batches:
        with locked(settings, model.relation) as table:
            rows = pa.Table.from_batches([batch])
            since = reading.earliest_repeat()
            # What this run has committed cannot come again; what others have, before or since, may.
            if table.last_batch() != own:
                others = table.last_batch()
            with _registered(cursor, rows) as name:
                _check_contract(cursor, model, name)
                _check_unique(cursor, model, name)
                if others > since:
                    absent = _absent(name, model, since, others)
                    rows = cursor.execute(f"from {absent}").to_arrow_table()
            commits += _kept(table.append(rows, model.writer, partition_by=model.partition_by))
            own = table.last_batch()
    with locked(settings, model.relation) as table:
        if find_table(table.catalog, model.relation) is None:
            rows = pa.RecordBatchReader.from_batches(batches.schema, [])
            commits += _kept(table.overwrite(rows, model.writer, partition_by=model.partition_by))
        elif table.stored:
            # Also where there was no row to bring a new column along.
            add_columns(table.stored, batches.schema)
        table.save_watermarks(reading.watermarks())
    if not commits:
        return _message(None)
    return f"{sum(commit.rows for commit in commits)} rows in {len(commits)} commits"


def materialize_seed(
    settings: Settings,
    cursor: duckdb.DuckDBPyConnection,
    model: Model,
    file: str,
    column_types: dict[str, str],
    delimiter: str = ",",
) -> str:
    """Load a CSV file of settings; nothing is committed when its content is what is there."""
    types = ", ".join(f"{_quoted(name)}: {_quoted(kind)}" for name, kind in column_types.items())
    # Said, not guessed: from a few rows DuckDB may take another separator for the right one.
    form = f"header = true, delim = {_quoted(delimiter)}, quote = '\"', escape = '\"'"
    options = f"{form}, types = {{{types}}}" if types else form
    return materialize_sql(
        settings, cursor, model, f"select * from read_csv({_quoted(file)}, {options})"
    )


def _read(
    settings: Settings,
    cursor: duckdb.DuckDBPyConnection,
    model: Model,
    sql: str,
    already_read: Reading | None,
) -> MadeFrom | None:
    """Put a model's rows into the temporary table; what those of a `table` were made from."""
    statement = f"create temp table {TEMPORARY} as {sql}"
    if model.materialized != "table":
        cursor.execute(statement)
        return None
    if already_read:
        cursor.execute(statement)
        # Its reads are its own: what was current at both ends bounds what it read.
        now = current_snapshots(settings, model.upstream)
        inputs = tuple(dict.fromkeys([*already_read.inputs, *now]))
        return MadeFrom(inputs, (), code_of(model.project, "", model.variables))
    in_lake, outside = tables_read(cursor, sql)
    cursor.execute("begin")
    try:
        cursor.execute(statement)
        inputs = tuple((name, snapshot_read(cursor, name)) for name in in_lake)
        cursor.execute("commit")
    except BaseException:
        cursor.execute("rollback")
        raise
    return MadeFrom(inputs, tuple(outside), code_of(model.project, sql, model.variables))


def _replace(
    table: LockedTable, cursor: duckdb.DuckDBPyConnection, model: Model, made: MadeFrom | None
) -> Commit | None:
    digest = "/".join([_digest(cursor), *model.partition_by])
    if table.content_digest() == digest:
        if made and table.stored:
            remember(table.stored, made)
        return None
    properties = {"content-digest": digest} | ({"made-from": made.to_json()} if made else {})
    return table.overwrite(
        _rows(cursor), model.writer, properties=properties, partition_by=model.partition_by
    )


def _append(
    table: LockedTable, cursor: duckdb.DuckDBPyConnection, model: Model, reading: Reading
) -> Commit | None:
    _check_unique(cursor, model)
    rows = TEMPORARY
    if model.unique_key and _count(cursor, TEMPORARY):
        rows = _absent(TEMPORARY, model, reading.earliest_repeat(), table.last_batch())
    return table.append(
        cursor.execute(f"from {rows}").to_arrow_reader(READ_ROWS),
        model.writer,
        watermarks=reading.watermarks(),
        partition_by=model.partition_by,
    )


def _merge(
    table: LockedTable, cursor: duckdb.DuckDBPyConnection, model: Model, watermarks: Watermarks
) -> Commit | None:
    """Insert new keys and update rows that differ; `_` columns are not compared.

    Keys are looked up first, by themselves: where all are new, no other column is read, and the
    rows are appended.
    """
    if not model.unique_key:
        raise LorelineError(f"{model.name} merges without a key", "set `unique_key` in its config")
    _check_unique(cursor, model)
    if not _count(cursor, TEMPORARY):
        table.save_watermarks(watermarks)
        return None
    started = time.monotonic()
    columns = [name for name, _ in _describe(cursor, TEMPORARY) if not name.startswith("_")]
    keys = [_name(key) for key in model.unique_key]
    named = ", ".join(keys)
    same_key = " and ".join(f"old.{key} = new.{key}" for key in keys)
    compared = [_name(column) for column in columns if _name(column) not in keys]
    differs = " or ".join(f"old.{column} is distinct from new.{column}" for column in compared)
    cursor.execute(
        f"create temp table {TEMPORARY}_known as select {named} from {TEMPORARY}"
        f" semi join lake.{model.relation} using ({named})"
    )
    cursor.execute(
        f"create temp table {TEMPORARY}_changed as select new.* from {TEMPORARY} as new"
        f" semi join {TEMPORARY}_known using ({named})"
        f" inner join lake.{model.relation} as old on {same_key} where {differs or 'false'}"
    )
    updated = _count(cursor, f"{TEMPORARY}_changed")
    cursor.execute(
        f"insert into {TEMPORARY}_changed"
        f" from {TEMPORARY} anti join {TEMPORARY}_known using ({named})"
    )
    if not updated:
        rows = cursor.execute(f"select {_names(columns)} from {TEMPORARY}_changed")
        return table.append(
            rows.to_arrow_reader(READ_ROWS),
            model.writer,
            watermarks=watermarks,
            partition_by=model.partition_by,
        )
    changed = _count(cursor, f"{TEMPORARY}_changed")
    batch = table.next_batch()
    values = [*map(_name, columns), "_batch", "_code_version"]
    sources = [*(f"new.{_name(c)}" for c in columns), str(batch), _quoted(model.code_version)]
    updates = ", ".join(
        f"{column} = {source}"
        for column, source in zip(values, sources, strict=True)
        if column not in keys
    )
    cursor.execute(
        f"merge into lake.{model.relation} as old using {TEMPORARY}_changed as new on {same_key}"
        f" when matched then update set {updates}"
        f" when not matched then insert ({', '.join(values)}) values ({', '.join(sources)})"
    )
    seconds = time.monotonic() - started
    return table.record(model.writer, batch, changed, seconds, watermarks, "merge")


def _evolve(table: LockedTable, cursor: duckdb.DuckDBPyConnection, model: Model) -> None:
    """Follow the model's columns as `on_schema_change` says; dropping is never done for it."""
    stored = table.stored
    assert stored is not None
    ours = [name for name, _ in _describe(cursor, TEMPORARY)]
    theirs = [f.name for f in stored.schema().fields if not f.name.startswith("_")]
    added = [name for name in ours if name not in theirs and not name.startswith("_")]
    missing = [name for name in theirs if name not in ours]
    if model.on_schema_change == "fail" and (added or missing):
        raise LorelineError(
            f"the columns of {model.relation} changed (new: {added}, gone: {missing})",
            "run with --full-refresh, or set on_schema_change",
        )
    if added and model.on_schema_change == "ignore":
        kept = _names(name for name in ours if name in theirs)
        cursor.execute(
            f"create or replace temp table {TEMPORARY} as select {kept} from {TEMPORARY}"
        )
    schema = cursor.execute(f"from {TEMPORARY} limit 0").to_arrow_table().schema
    add_columns(stored, pa.schema([field for field in schema if not field.name.startswith("_")]))
    for name in missing:
        kind = next(t for n, t in _describe(cursor, f"lake.{model.relation}") if n == name)
        cursor.execute(f"alter table {TEMPORARY} add column {_name(name)} {kind}")


def _check_contract(cursor: duckdb.DuckDBPyConnection, model: Model, rows: str = TEMPORARY) -> None:
    if not model.contract:
        return
    declared = ", ".join(f"{_name(name)} {kind}" for name, kind, _ in model.columns)
    cursor.execute(f"create or replace temp table {TEMPORARY}_contract ({declared})")
    expected = dict(_describe(cursor, f"{TEMPORARY}_contract"))
    actual = {n: t for n, t in _describe(cursor, rows) if not n.startswith("_")}
    faults = [
        f"{name}: declared {expected.get(name, 'not at all')}, is {actual.get(name, 'missing')}"
        for name in dict.fromkeys([*expected, *actual])
        if not name.startswith("_") and expected.get(name) != actual.get(name)
    ]
    for name, _, not_null in model.columns:
        if not_null and not name.startswith("_") and name in actual:
            nulls = cursor.execute(
                f"select count(*) from {rows} where {_name(name)} is null"
            ).fetchone()
            if nulls and nulls[0]:
                faults.append(f"{name}: {nulls[0]} rows are null")
    if faults:
        raise LorelineError(
            f"the contract of {model.name} does not hold ({'; '.join(faults)})",
            "change the model or its contract; the table is as it was",
        )


def _check_unique(cursor: duckdb.DuckDBPyConnection, model: Model, rows: str = TEMPORARY) -> None:
    if not model.unique_key:
        return
    keys = _names(model.unique_key)
    for key in model.unique_key:
        if cursor.execute(f"select 1 from {rows} where {_name(key)} is null limit 1").fetchone():
            raise LorelineError(
                f"{model.name} gave a row whose {key} is null",
                "every part of the model's unique_key needs a value; the table is as it was",
            )
    row = cursor.execute(
        f"select {keys} from {rows} group by {keys} having count(*) > 1 limit 1"
    ).fetchone()
    if row:
        raise LorelineError(
            f"{model.name} gave several rows for {', '.join(model.unique_key)} = {row}",
            "make the model's key unique; the table is as it was",
        )


def _absent(rows: str, model: Model, since: int, until: int) -> str:
    """SQL for the rows whose key is not among those with since < `_batch` <= until."""
    keys = _names(model.unique_key)
    return (
        f"{rows} anti join (select {keys} from lake.{model.relation}"
        f" where _batch > {since} and _batch <= {until}) as newer using ({keys})"
    )


def _digest(cursor: duckdb.DuckDBPyConnection) -> str:
    """A digest of the rows that does not depend on their order, `_` columns left out."""
    described = [(n, t) for n, t in _describe(cursor, TEMPORARY) if not n.startswith("_")]
    packed = ", ".join(f"{_name(name)} := {_name(name)}" for name, _ in described)
    row = cursor.execute(
        "select count(*), coalesce(sum(md5_number_lower(to_json(struct_pack("
        f"{packed})))::hugeint), 0) from {TEMPORARY}"
    ).fetchone()
    assert row is not None
    types = ",".join(f"{name} {kind}" for name, kind in described)
    return f"{row[0]}:{row[1]}:{types}"


@contextmanager
def _registered(cursor: duckdb.DuckDBPyConnection, rows: pa.Table) -> Iterator[str]:
    name = f"{TEMPORARY}_slice"
    cursor.register(name, rows)
    try:
        yield name
    finally:
        cursor.unregister(name)


@contextmanager
def _temporary(cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
    try:
        yield
    finally:
        for suffix in ("", "_known", "_changed", "_contract"):
            cursor.execute(f"drop table if exists temp.{TEMPORARY}{suffix}")


def _rows(cursor: duckdb.DuckDBPyConnection) -> pa.RecordBatchReader:
    return cursor.execute(f"from {TEMPORARY}").to_arrow_reader(READ_ROWS)


def _describe(cursor: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    return [(row[0], row[1]) for row in cursor.execute(f"describe {table}").fetchall()]


def _count(cursor: duckdb.DuckDBPyConnection, table: str) -> int:
    row = cursor.execute(f"select count(*) from {table}").fetchone()
    assert row is not None
    return row[0]


def _kept(commit: Commit | None) -> Iterable[Commit]:
    return [commit] if commit else []


def _message(commit: Commit | None) -> str:
    return f"{commit.rows} rows" if commit else "nothing changed"


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _name(column: str) -> str:
    return '"' + column.replace('"', '""') + '"'


def _names(columns: Iterable[str]) -> str:
    return ", ".join(map(_name, columns))
