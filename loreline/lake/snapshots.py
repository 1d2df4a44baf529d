"""What pyiceberg 0.12 lacks: writes in bounded memory, cheap commits, no delete files for ever."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa
from pyiceberg.io.pyarrow import _dataframe_to_data_files
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.table import Table, TableProperties, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update import TableUpdate
from pyiceberg.table.update.snapshot import _OverwriteFiles
from pyiceberg.typedef import EMPTY_DICT

# Bytes of Arrow memory written at once: a file, or in a partitioned table one per partition.
WRITE_BYTES = 128 * 1024 * 1024
# Files that are encoded and sent while the rows of the next are gathered.
WRITES_AT_ONCE = 2
# Arrow memory of one row group: DuckDB holds 2,048 values of a column at once, and the pages they
# come from, but of one group alone. Statistics let readers skip groups, too.
ROW_GROUP_BYTES = 16 * 1024 * 1024
# Rows between two looks at how large a page has become. With pyiceberg's 20,000, a page of
# documents was as large as its file, and reading one took 300 MB.
PAGE_LIMIT = {TableProperties.PARQUET_PAGE_ROW_LIMIT: "64"}


def write_files(
    table: Table, metadata: TableMetadata, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[DataFile]:
    """Write rows as data files, to which no snapshot refers yet, in bounded memory.

    pyiceberg hands every file's rows to its thread pool before the first file is written: a long
    reader is held as a whole (3 GB of rows took 4 GB). Here it gets one file's rows at a time.

    Args:
        table: whose store and layout are used.
        metadata: the state in which the rows fit, such as that of a transaction under way.
        schema: of the batches.
        batches: the rows; read once, a few files ahead of what is written.
    """

    def write(rows: list[pa.RecordBatch]) -> list[DataFile]:
        piece = pa.Table.from_batches(rows, schema)
        layout = metadata.model_copy(update={"properties": metadata.properties | _layout(piece)})
        return list(_dataframe_to_data_files(layout, piece, table.io, uuid.uuid4()))

    with ThreadPoolExecutor(WRITES_AT_ONCE) as pool:
        under_way: deque[Future[list[DataFile]]] = deque()
        for rows in pieces(batches, WRITE_BYTES):
            if len(under_way) == WRITES_AT_ONCE:
                yield from under_way.popleft().result()
            under_way.append(pool.submit(write, rows))
        for writing in under_way:
            yield from writing.result()


def _layout(piece: pa.Table) -> dict[str, str]:
    """Properties by which pyiceberg writes row groups and pages that can be read in little memory.

    A group has a number of rows, not of bytes: rows of a file count as equally large.
    """
    groups = -(-piece.nbytes // ROW_GROUP_BYTES)
    rows = -(-piece.num_rows // max(groups, 1))
    return {TableProperties.PARQUET_ROW_GROUP_LIMIT: str(max(rows, 1)), **PAGE_LIMIT}


def pieces(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[list[pa.RecordBatch]]:
    """Gather batches into lists of at most `size` bytes of Arrow memory, or of one batch."""
    piece: list[pa.RecordBatch] = []
    gathered = 0
    for batch in batches:
        if piece and gathered + batch.nbytes > size:
            yield piece
            piece, gathered = [], 0
        piece.append(batch)
        gathered += batch.nbytes
    if piece:
        yield piece


class Changes(Transaction):
    """A transaction that works its state out once for each change.

    pyiceberg copies the metadata, every snapshot included, as often as it is asked for: fifteen
    times in an append, which made one take 1 s of CPU at 700 snapshots.
    """

    _state: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table with the changes so far."""
        before, updates = self._table.metadata, self._updates
        if not updates:
            return before
        if self._state is None or self._state[0] is not before or self._state[1] is not updates:
            self._state = before, updates, super().table_metadata
        return self._state[2]


class ReplaceFiles(_OverwriteFiles):
    """A snapshot in which data files are swapped, and delete files that apply to none are gone.

    pyiceberg's own overwrite carries every delete file along for ever, and the lists of what former
    snapshots removed; and it cannot mark a snapshot as one that changes files but no rows.

    Args:
        transaction: of the table.
        operation: `OVERWRITE`, or `REPLACE` when the rows stay what they are.
        properties: of the snapshot.
        unneeded_deletes: paths of delete files that apply to none of the data files that stay;
            None when no data file stays. A manifest goes when all its delete files are among them.
    """

    def __init__(
        self,
        transaction: Transaction,
        operation: Operation,
        properties: Mapping[str, str],
        unneeded_deletes: Collection[str] | None = None,
    ) -> None:
        # pyiceberg computes the totals of no REPLACE: the name is put in afterwards.
        super().__init__(
            Operation.OVERWRITE,
            transaction,
            transaction._table.io,
            snapshot_properties=dict(properties),
        )
        self.operation = operation
        self.unneeded_deletes = unneeded_deletes
        self.dropped_deletes: list[DataFile] = []

    def _existing_manifests(self) -> list[ManifestFile]:
        self.dropped_deletes = []
        return [manifest for manifest in super()._existing_manifests() if not self._drops(manifest)]

    def _drops(self, manifest: ManifestFile) -> bool:
        if not manifest.has_added_files() and not manifest.has_existing_files():
            return True
        if manifest.content != ManifestContent.DELETES:
            return False
        deletes = [entry.data_file for entry in self.fetch_manifest_entry(manifest)]
        needed = self.unneeded_deletes is not None and any(
            file.file_path not in self.unneeded_deletes for file in deletes
        )
        if not needed:
            self.dropped_deletes += deletes
        return not needed

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        properties = dict(super()._summary(snapshot_properties).additional_properties)
        files = len(self.dropped_deletes)
        rows = sum(file.record_count for file in self.dropped_deletes)
        if files:
            properties["removed-delete-files"] = str(files)
            properties["removed-position-deletes"] = str(rows)
            for total, removed in (("total-delete-files", files), ("total-position-deletes", rows)):
                properties[total] = str(max(0, int(properties.get(total, 0)) - removed))
        return Summary(self.operation, **properties)
