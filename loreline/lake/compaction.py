"""Compaction: small and deleted-from data files of a table rewritten as few, its rows unchanged.

The files are read and written without the table's lock, which is held for the commit only. What
another writer changed meanwhile is left for the next time.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
from pyiceberg.io.pyarrow import (
    ArrowScan,
    ParquetFormatModel,
    _read_deletes,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestEntry
from pyiceberg.table import FileScanTask, Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.typedef import Record

from loreline.errors import LorelineError
from loreline.lake.catalog import find_table
from loreline.lake.commits import LockedTable, Writer, locked
from loreline.lake.snapshots import PAGE_LIMIT, ROW_GROUP_BYTES, Changes, ReplaceFiles, pieces
from loreline.settings import Settings

# Size in the store that the files of a group have together, at most.
TARGET_BYTES = 64 * 1024 * 1024
# A file of this size is left alone, unless rows of it are deleted.
LARGE_BYTES = TARGET_BYTES * 3 // 4
# Fewer small files than this are not worth the rewriting.
FEW_FILES = 5

# The digest lets `table` models see that their content is still the same; what it was made from, a
# freeze of it find that.
KEPT_PROPERTIES = ("loreline.content-digest", "loreline.made-from")


@dataclass
class LiveFiles:
    """What a table's current snapshot consists of.

    Args:
        data: the entries of the data files, by path.
        deleted: per data file the positions of its deleted rows.
        named: per delete file the data files that it deletes from.
    """

    data: dict[str, ManifestEntry] = field(default_factory=dict)
    deleted: dict[str, list[pa.ChunkedArray]] = field(default_factory=lambda: defaultdict(list))
    named: dict[str, set[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Group:
    """Data files of one partition that become one file, in the order of their commits."""

    files: tuple[DataFile, ...]
    deleted_rows: int

    @property
    def paths(self) -> set[str]:
        """Where the files are."""
        return {file.file_path for file in self.files}

    @property
    def size(self) -> int:
        """Bytes in the store."""
        return sum(file.file_size_in_bytes for file in self.files)

    @property
    def rows(self) -> int:
        """Rows that are not deleted."""
        return sum(file.record_count for file in self.files) - self.deleted_rows


def live_files(table: Table, known: LiveFiles | None = None) -> LiveFiles:
    """Read the manifests of the current snapshot, and the delete files that are not known yet.

    Raises:
        LorelineError: another engine deleted by value, which pyiceberg cannot apply.
    """
    live = LiveFiles()
    snapshot = table.current_snapshot()
    for manifest in snapshot.manifests(table.io) if snapshot else []:
        for entry in manifest.fetch_manifest_entry(table.io):
            file = entry.data_file
            if file.content == DataFileContent.DATA:
                live.data[file.file_path] = entry
            elif file.content == DataFileContent.EQUALITY_DELETES:
                raise LorelineError(
                    f"{'.'.join(table.name())} has equality deletes",
                    "compact it with the engine that wrote them",
                )
            elif known and file.file_path in known.named:
                live.named[file.file_path] = known.named[file.file_path]
            else:
                positions = _read_deletes(table.io, file)
                live.named[file.file_path] = set(positions)
                for path, deleted in positions.items():
                    live.deleted[path].append(deleted)
    return live


def groups_worth_rewriting(table: Table, live: LiveFiles) -> list[Group]:
    """Group the small and deleted-from files of each partition; empty when nothing is to be gained.

    Files stay in the order of their commits, so that the `_batch` of a group's rows spans little.
    Files of an earlier partitioning are left alone.
    """
    by_partition: dict[Record, list[ManifestEntry]] = defaultdict(list)
    for entry in live.data.values():
        file = entry.data_file
        small = file.file_size_in_bytes < LARGE_BYTES
        if file.spec_id == table.spec().spec_id and (small or file.file_path in live.deleted):
            by_partition[file.partition].append(entry)
    groups = [
        Group(tuple(files), sum(_distinct(live.deleted.get(f.file_path)) for f in files))
        for entries in by_partition.values()
        for files in _packed(entries)
    ]
    return [group for group in groups if group.deleted_rows or len(group.files) >= FEW_FILES]


def compact(settings: Settings, table: Table, live: LiveFiles, groups: list[Group]) -> list[Group]:
    """Rewrite each group as one file, all in one commit; returns the groups that were committed.

    Raises:
        LorelineError: the rows that were read are not as many as the manifests say.
    """
    started = time.monotonic()
    written = [(group, _rewrite(table, live, group)) for group in groups]
    with locked(settings, ".".join(table.name())) as held:
        current = find_table(held.catalog, held.name)
        untouched = _untouched(current, table, live) if current else set()
        done = [(group, file) for group, file in written if group.paths <= untouched]
        if current and done:
            _commit(held, current, live, done, started)
    for group, file in written:
        if file and not group.paths <= untouched:
            table.io.delete(file.file_path)
    return [group for group, _ in done]


def _commit(
    held: LockedTable,
    table: Table,
    live: LiveFiles,
    done: list[tuple[Group, DataFile | None]],
    started: float,
) -> None:
    batch = held.last_batch()
    writer = Writer(uuid.uuid4().hex, "loreline maintain", version("loreline"))
    properties = {
        "loreline.operation": "compact",
        "loreline.batch": str(batch),
        "loreline.invocation-id": writer.invocation_id,
        "loreline.model": writer.model,
        "loreline.code-version": writer.code_version,
        **_kept_properties(table),
    }
    replaced = set[str]().union(*(group.paths for group, _ in done))
    with Changes(table) as transaction:
        unneeded = _unneeded(live, replaced)
        with ReplaceFiles(transaction, Operation.REPLACE, properties, unneeded) as snapshot:
            for group, file in done:
                for old in group.files:
                    snapshot.delete_data_file(old)
                if file:
                    snapshot.append_data_file(file)
    rows = sum(group.rows for group, _ in done)
    held.record(writer, batch, rows, time.monotonic() - started, None, "compact", table)


def _packed(entries: list[ManifestEntry]) -> Iterator[list[DataFile]]:
    entries.sort(key=lambda entry: (entry.sequence_number, entry.data_file.file_path))
    packed: list[DataFile] = []
    size = 0
    for file in (entry.data_file for entry in entries):
        if packed and size + file.file_size_in_bytes > TARGET_BYTES:
            yield packed
            packed, size = [], 0
        packed.append(file)
        size += file.file_size_in_bytes
    yield packed


def _distinct(positions: list[pa.ChunkedArray] | None) -> int:
    if not positions:
        return 0
    chunks = itertools.chain.from_iterable(chunked.chunks for chunked in positions)
    return pc.count_distinct(pa.chunked_array(chunks)).as_py()


def _rewrite(table: Table, live: LiveFiles, group: Group) -> DataFile | None:
    """Write the rows of a group as one file; None when all are deleted."""
    scan = ArrowScan(table.metadata, table.io, table.schema(), AlwaysTrue())
    tasks = [FileScanTask(file) for file in group.files]
    batches = scan._record_batches_from_scan_tasks_and_deletes(tasks, live.deleted)
    file = _write_file(table, batches, group.files[0].partition) if group.rows else None
    if (file.record_count if file else 0) != group.rows:
        raise LorelineError(
            f"a compaction of {'.'.join(table.name())} read {file and file.record_count} rows"
            f" where its manifests say {group.rows}",
            "the table is as it was; please report this with its `loreline history`",
        )
    return file


def _write_file(table: Table, batches: Iterable[pa.RecordBatch], partition: Record) -> DataFile:
    path = table.location_provider().new_data_location(f"{uuid.uuid4()}.parquet")
    output = table.io.new_output(path)
    # Files of different writers differ in details, such as lists with long offsets.
    schema = schema_to_pyarrow(table.schema())
    alike = (
        pa.RecordBatch.from_arrays(
            [batch.column(field.name).cast(field.type) for field in schema], schema=schema
        )
        for batch in batches
    )
    model = ParquetFormatModel()
    properties = table.metadata.properties | PAGE_LIMIT
    with model.create_writer(output, table.schema(), properties) as writer:
        for rows in pieces(alike, ROW_GROUP_BYTES):
            writer.write(pa.Table.from_batches(rows))
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=len(output),
        sort_order_id=None,
        spec_id=table.spec().spec_id,
        equality_ids=None,
        key_metadata=None,
        **writer.result().to_serialized_dict(),
    )


def _untouched(current: Table, planned: Table, live: LiveFiles) -> set[str]:
    """The data files that are as they were when they were read."""
    if (
        current.metadata.table_uuid != planned.metadata.table_uuid
        or current.spec() != planned.spec()
    ):
        return set()
    now = live_files(current, known=live)
    # `now.deleted` holds the deletes of files that were not known.
    return now.data.keys() - now.deleted.keys()


def _unneeded(live: LiveFiles, replaced: set[str]) -> set[str]:
    """The delete files that only delete from files which are gone."""
    staying = live.data.keys() - replaced
    return {path for path, named in live.named.items() if not named & staying}


def _kept_properties(table: Table) -> dict[str, str]:
    snapshot = table.current_snapshot()
    properties = snapshot.summary.additional_properties if snapshot and snapshot.summary else {}
    return {name: properties[name] for name in KEPT_PROPERTIES if name in properties}
