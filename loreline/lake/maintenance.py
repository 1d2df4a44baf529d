"""Upkeep of the lake: compaction, expiry of old snapshots, removal of files nothing refers to.

Every step is one atomic commit, or deletes what no snapshot refers to: readers see no error, and a
run that is killed leaves every table whole and its work to the next run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from pyarrow.fs import FileSelector, FileSystem, FileType
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.table.update.snapshot import ExpireSnapshots

from loreline.errors import LorelineError
from loreline.lake.catalog import find_table, load_catalog
from loreline.lake.commits import locked
from loreline.lake.compaction import compact, groups_worth_rewriting, live_files
from loreline.lake.objects import object_store
from loreline.lake.snapshots import Changes
from loreline.postgres import connect
from loreline.settings import Settings

# A file that is not referred to may belong to a commit that is still being prepared.
ORPHAN_AGE = timedelta(days=3)
# A query may go on reading the snapshot that it began with for this long, whatever the policy.
READER_GRACE = timedelta(hours=1)
# What Iceberg writers put under a table's location; anything else there is left alone.
ICEBERG_FOLDERS = ("data", "metadata")
ICEBERG_FILES = (".parquet", ".avro", ".puffin", ".metadata.json")
REQUESTS_AT_ONCE = 8

Kind = Literal["compact", "expire", "remove"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Action:
    """One thing that was done to a table, or would be.

    Args:
        table: `namespace.table`.
        kind: `compact`, `expire` or `remove` (files that nothing refers to).
        files: data files that were rewritten, or files that were deleted from the store.
        bytes: their size; 0 where it is not known.
        files_after: data files that a compaction wrote in their place.
        snapshots: snapshots that expired.
    """

    table: str
    kind: Kind
    files: int
    bytes: int
    files_after: int = 0
    snapshots: int = 0

    def __str__(self) -> str:
        size = f"{self.files} files ({self.bytes / 1e6:,.1f} MB)"
        match self.kind:
            case "compact":
                return f"{self.table}: {size} rewritten as {self.files_after}"
            case "expire":
                return f"{self.table}: {self.snapshots} snapshots expired, {size} deleted"
            case "remove":
                return f"{self.table}: {size} deleted that nothing refers to"


def maintain(
    settings: Settings,
    *,
    dry_run: bool = False,
    tables: Sequence[str] | None = None,
    kinds: Collection[Kind] = KINDS,
    now: datetime | None = None,
    orphan_age: timedelta = ORPHAN_AGE,
    progress: Callable[[Action], None] | None = None,
    began: Callable[[str], None] | None = None,
) -> list[Action]:
    """Compact, expire and clean up the tables that this target has written.

    Args:
        settings: the stores, and how long snapshots are kept.
        dry_run: only say what would be done.
        tables: `namespace.table`, the target's prefix included; None for all.
        kinds: what is done.
        now: the time that ages are measured from; the present unless a test says otherwise.
        orphan_age: files that nothing refers to are kept until they are this old. A write that
            takes longer from its first file to its commit would lose files.
        progress: called with each action when it is done.
        began: told in a line which table's turn it is.

    Raises:
        LorelineError: a table could not be maintained; the others were.
    """
    now = now or datetime.now(UTC)
    cutoff = oldest_kept(settings, now)
    steps: dict[Kind, Callable[[str], Action | None]] = {
        "compact": lambda name: _compact(settings, name, dry_run),
        "expire": lambda name: _expire(settings, name, cutoff, dry_run),
        "remove": lambda name: _remove_orphans(settings, name, now - orphan_age, dry_run),
    }
    actions: list[Action] = []
    failures: dict[str, Exception] = {}
    names = written_tables(settings, tables)
    for number, name in enumerate(names, start=1):
        if began:
            began(f"{name}, {number} of {len(names)}")
        try:
            for kind, step in steps.items():
                if kind in kinds and (action := step(name)):
                    actions.append(action)
                    if progress:
                        progress(action)
        except Exception as error:
            failures[name] = error
    if failures:
        causes = "; ".join(f"{name}: {_line(error)}" for name, error in failures.items())
        raise LorelineError(
            f"{len(failures)} tables could not be maintained ({causes})",
            "the others were, and nothing is half done: run it again",
        ) from next(iter(failures.values()))
    return actions


def expirable(metadata: TableMetadata, cutoff: datetime) -> list[Snapshot]:
    """The snapshots that were current at no moment since `cutoff`, and that no tag names.

    A snapshot's age counts from when the next one took its place: the state of the cutoff itself
    stays readable, and a query keeps what it reads though the table has just been written anew.
    """
    since = cutoff.timestamp() * 1000
    by_id = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
    kept = {ref.snapshot_id for ref in metadata.refs.values()}
    for ref in metadata.refs.values():
        if ref.snapshot_ref_type is SnapshotRefType.BRANCH:
            later = by_id[ref.snapshot_id]
            while later.timestamp_ms >= since and later.parent_snapshot_id in by_id:
                later = by_id[later.parent_snapshot_id]
                kept.add(later.snapshot_id)
    return [s for s in metadata.snapshots if s.snapshot_id not in kept and s.timestamp_ms < since]


def oldest_kept(settings: Settings, now: datetime) -> datetime:
    """From when on the lake stays readable as it was."""
    return now - max(timedelta(days=float(settings.snapshot_days)), READER_GRACE)


def written_tables(settings: Settings, wanted: Sequence[str] | None = None) -> list[str]:
    """`namespace.table` of the tables that this target has written, or of those of them wanted.

    Raises:
        LorelineError: it has not written one that is wanted.
    """
    with connect(settings) as connection:
        statement = (
            f"select distinct table_name from {settings.prefix}operations.commits order by 1"
        )
        names = [row[0] for row in connection.execute(statement.encode())]
    if wanted is None:
        return names
    if unknown := sorted(set(wanted) - set(names)):
        raise LorelineError(
            f"target {settings.target} has written no table {', '.join(unknown)}",
            "name tables as the catalog does: namespace.table",
        )
    return [name for name in names if name in wanted]


def _compact(settings: Settings, name: str, dry_run: bool) -> Action | None:
    table = find_table(load_catalog(settings), name)
    if table is None:
        return None
    live = live_files(table)
    groups = groups_worth_rewriting(table, live)
    if groups and not dry_run:
        groups = compact(settings, table, live, groups)
    if not groups:
        return None
    return Action(
        name,
        "compact",
        files=sum(len(group.files) for group in groups),
        bytes=sum(group.size for group in groups),
        files_after=sum(1 for group in groups if group.rows),
    )


def _expire(settings: Settings, name: str, cutoff: datetime, dry_run: bool) -> Action | None:
    table = find_table(load_catalog(settings), name)
    if table is None:
        return None
    expired = _ids(expirable(table.metadata, cutoff))
    if not expired:
        return None
    action, files = _expiry(table, expired)
    if dry_run:
        return action
    with locked(settings, name):
        table.refresh()
        if not expired <= _ids(expirable(table.metadata, cutoff)):
            return None  # A tag was set meanwhile: the next run sees what it holds.
        with Changes(table) as transaction:
            ExpireSnapshots(transaction).by_ids(list(expired)).commit()
    _delete(object_store(settings), files)
    return action


def _expiry(table: Table, expired: set[int]) -> tuple[Action, set[str]]:
    """What goes with snapshots: the files that no other snapshot refers to.

    No later snapshot will refer to them either: it builds on the current one, which stays.
    """
    snapshots = table.metadata.snapshots
    sizes = _referred(table, [s for s in snapshots if s.snapshot_id in expired])
    kept = [s for s in snapshots if s.snapshot_id not in expired]
    files = sizes.keys() - _referred(table, kept).keys()
    action = Action(
        ".".join(table.name()),
        "expire",
        files=len(files),
        bytes=sum(sizes[file] for file in files),
        snapshots=len(expired),
    )
    return action, files


def _remove_orphans(
    settings: Settings, name: str, older_than: datetime, dry_run: bool
) -> Action | None:
    before = find_table(load_catalog(settings), name)
    if before is None:
        return None
    store = object_store(settings)
    files = _listed(store, _path(before.metadata.location))
    _check_listing(before, files.keys())
    # Read after the listing: a file that is old and not referred to by now never will be.
    table = find_table(load_catalog(settings), name)
    if table is None or table.metadata.table_uuid != before.metadata.table_uuid:
        return None
    orphans = {path for path, (_, changed) in files.items() if changed < older_than}
    orphans -= _referred(table, table.metadata.snapshots).keys()
    orphans -= _metadata_files(table, {path: changed for path, (_, changed) in files.items()})
    if not orphans:
        return None
    if not dry_run:
        _delete(store, orphans)
    return Action(name, "remove", len(orphans), sum(files[path][0] for path in orphans))


def _listed(store: FileSystem, location: str) -> dict[str, tuple[int, datetime]]:
    """Size and time of change of each Iceberg file under a table's location."""
    return {
        info.path: (info.size, info.mtime)
        for folder in ICEBERG_FOLDERS
        for info in store.get_file_info(
            FileSelector(f"{location}/{folder}", recursive=True, allow_not_found=True)
        )
        if info.type is FileType.File and info.path.endswith(ICEBERG_FILES)
    }


def _check_listing(table: Table, listed: Collection[str]) -> None:
    """Refuse a listing without files that are known to be there: it cannot tell what is not."""
    folders = tuple(f"{_path(table.metadata.location)}/{folder}/" for folder in ICEBERG_FOLDERS)
    current = table.current_snapshot()
    known = _referred(table, [current]) if current else {}
    missing = [path for path in known if path.startswith(folders) and path not in listed]
    if missing:
        raise LorelineError(
            f"the store lists no {missing[0]}, to which {'.'.join(table.name())} refers",
            "no file was removed; check that the table can be read",
        )


def _metadata_files(table: Table, changed: dict[str, datetime]) -> set[str]:
    """The metadata files that may be served, among those listed.

    The current one, its log, and all that are no older than the current one: a catalog may number
    its files, and be about to write one under a name that a killed commit left behind.
    """
    metadata = table.metadata
    current = changed.get(_path(table.metadata_location))
    statistics = [*metadata.statistics, *metadata.partition_statistics]
    named = {_path(entry.metadata_file) for entry in metadata.metadata_log}
    named |= {_path(file.statistics_path) for file in statistics}
    newer = {
        path
        for path, time in changed.items()
        if path.endswith(".metadata.json") and (current is None or time >= current)
    }
    return named | newer


def _referred(table: Table, snapshots: Iterable[Snapshot]) -> dict[str, int]:
    """Size of each file that the snapshots refer to, their manifests included; 0 if unknown."""
    sizes = {_path(snapshot.manifest_list): 0 for snapshot in snapshots}
    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        manifests = {
            manifest.manifest_path: manifest
            for listed in pool.map(lambda snapshot: snapshot.manifests(table.io), snapshots)
            for manifest in listed
        }
        sizes |= {_path(path): m.manifest_length for path, m in manifests.items()}
        for entries in pool.map(lambda m: m.fetch_manifest_entry(table.io), manifests.values()):
            sizes |= {_path(e.data_file.file_path): e.data_file.file_size_in_bytes for e in entries}
    return sizes


def _delete(store: FileSystem, paths: Iterable[str]) -> None:
    def delete(path: str) -> None:
        with suppress(FileNotFoundError):  # another run was faster
            store.delete_file(path)

    with ThreadPoolExecutor(REQUESTS_AT_ONCE) as pool:
        list(pool.map(delete, paths))


def _line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def _ids(snapshots: Iterable[Snapshot]) -> set[int]:
    return {snapshot.snapshot_id for snapshot in snapshots}


def _path(uri: str) -> str:
    """`bucket/key` of `s3://bucket/key`, as the object store names it."""
    return uri.partition("://")[2].rstrip("/")
