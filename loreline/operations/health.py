"""How the tables of the lake are, as their metadata say: no row of data is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg.sql import SQL, Identifier
from pyiceberg.manifest import DataFileContent
from pyiceberg.table import Table

from loreline.lake.catalog import find_table, load_catalog
from loreline.lake.compaction import LARGE_BYTES, LiveFiles, groups_worth_rewriting
from loreline.lake.maintenance import expirable, oldest_kept, written_tables
from loreline.postgres import connect
from loreline.settings import Settings

TABLES_AT_ONCE = 8


@dataclass(frozen=True)
class TableHealth:
    """A table of the lake.

    Attributes:
        table_name: `namespace.table`.
        measured_at: when this was.
        rows: rows, as the files count them, without those deleted by position.
        data_files: files of the current snapshot that hold rows.
        small_files: those of them that a compaction may join.
        delete_files: files that name deleted rows, which every reader has to apply.
        bytes: size of all these files.
        snapshots: snapshots that can be read.
        expirable_snapshots: those of them that maintenance would let go by now.
        oldest_snapshot_at: how far back time travel reaches.
        last_commit_at: when the table was last written.
        needs_compaction: whether maintenance would rewrite files.
    """

    table_name: str
    measured_at: datetime
    rows: int
    data_files: int
    small_files: int
    delete_files: int
    bytes: int
    snapshots: int
    expirable_snapshots: int
    oldest_snapshot_at: datetime | None
    last_commit_at: datetime | None
    needs_compaction: bool

    @property
    def small_share(self) -> float:
        """The share of small files among the data files, 0 to 1."""
        return self.small_files / self.data_files if self.data_files else 0.0

    @property
    def wants(self) -> str:
        """What maintenance would do, in words; empty where nothing."""
        wishes = ["compact"] if self.needs_compaction else []
        if self.expirable_snapshots:
            wishes.append(f"expire {self.expirable_snapshots:,}")
        return ", ".join(wishes)


def measure(
    settings: Settings,
    tables: Sequence[str] | None = None,
    *,
    now: datetime | None = None,
    progress: Callable[[str], None] | None = None,
) -> list[TableHealth]:
    """Look at tables that this target has written, and keep what was seen in Postgres.

    Args:
        settings: the stores, and how long snapshots are kept.
        tables: `namespace.table`, the target's prefix included; None for all.
        now: the time that ages are measured from; the present unless a test says otherwise.
        progress: told in a line what goes on.
    """
    now = now or datetime.now(UTC)
    names = written_tables(settings, tables)
    catalog = load_catalog(settings)

    def look(name: str) -> TableHealth | None:
        table = find_table(catalog, name)
        return table and _measured(table, now, oldest_kept(settings, now))

    found: list[TableHealth] = []
    with ThreadPoolExecutor(TABLES_AT_ONCE) as pool:
        for number, health in enumerate(pool.map(look, names), start=1):
            if progress:
                progress(f"{number} of {len(names)} tables")
            if health:
                found.append(health)
    _keep(settings, found, gone=set(names) - {health.table_name for health in found})
    return found


def _measured(table: Table, now: datetime, cutoff: datetime) -> TableHealth:
    live, deleted_rows, delete_files, size = LiveFiles(), 0, 0, 0
    current = table.current_snapshot()
    for manifest in current.manifests(table.io) if current else []:
        for entry in manifest.fetch_manifest_entry(table.io):
            file = entry.data_file
            size += file.file_size_in_bytes
            if file.content == DataFileContent.DATA:
                live.data[file.file_path] = entry
            else:
                delete_files += 1
                if file.content == DataFileContent.POSITION_DELETES:
                    deleted_rows += file.record_count
    data = [entry.data_file for entry in live.data.values()]
    snapshots = table.metadata.snapshots
    return TableHealth(
        table_name=".".join(table.name()),
        measured_at=now,
        rows=sum(file.record_count for file in data) - deleted_rows,
        data_files=len(data),
        small_files=sum(file.file_size_in_bytes < LARGE_BYTES for file in data),
        delete_files=delete_files,
        bytes=size,
        snapshots=len(snapshots),
        expirable_snapshots=len(expirable(table.metadata, cutoff)),
        oldest_snapshot_at=_moment(min((s.timestamp_ms for s in snapshots), default=None)),
        last_commit_at=_moment(current and current.timestamp_ms),
        # What deletes from which file is not read: that there is a delete file is enough.
        needs_compaction=delete_files > 0 or bool(groups_worth_rewriting(table, live)),
    )


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None:
        return None
    return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=milliseconds)


def _keep(settings: Settings, found: Sequence[TableHealth], gone: set[str]) -> None:
    names = [field.name for field in fields(TableHealth)]
    statement = SQL(
        "insert into {} ({}) values ({}) on conflict (table_name) do update set {}"
    ).format(
        _table(settings),
        _columns(),
        SQL(", ").join(SQL("%s") for _ in names),
        SQL(", ").join(SQL("{0} = excluded.{0}").format(Identifier(name)) for name in names[1:]),
    )
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.execute(
            SQL("delete from {} where table_name = any(%s)").format(_table(settings)), [list(gone)]
        )
        rows: list[list[Any]] = [[getattr(health, name) for name in names] for health in found]
        cursor.executemany(statement, rows)


def _columns() -> Any:
    return SQL(", ").join(Identifier(field.name) for field in fields(TableHealth))


def _table(settings: Settings) -> Identifier:
    return Identifier(f"{settings.prefix}operations", "table_health")
