"""The snapshots that a dataset was made from, and the tags that keep them."""

from __future__ import annotations

from collections import deque
from functools import lru_cache

from pyiceberg.table import Table

from loreline.datasets.registry import Upstream
from loreline.errors import LorelineError
from loreline.lake.catalog import find_table, load_catalog
from loreline.lake.commits import locked
from loreline.lake.made_from import MadeFrom, made_from
from loreline.settings import Settings


def dataset_table(settings: Settings, given: str) -> str:
    """The `namespace.table` of a dataset, of which the beginning of the name may be given.

    Raises:
        LorelineError: there is none, or more than one.
    """
    from loreline.lake.catalog import list_tables

    namespace = f"{settings.prefix}datasets"
    names = list_tables(load_catalog(settings), namespace)
    wanted = given.rsplit(".", 1)[-1]
    found = [name for name in names if name == wanted] or [
        name for name in names if name.startswith(wanted) and name.endswith("_dataset")
    ]
    if len(found) != 1:
        there = ", ".join(name for name in names if name.endswith("_dataset")) or "none"
        raise LorelineError(
            f"{given} is {'several datasets' if found else 'no dataset that was built'}",
            f"built are: {there}; `loreline build datasets` builds them",
        )
    return f"{namespace}.{found[0]}"


def current(settings: Settings, name: str) -> tuple[int, MadeFrom]:
    """The current snapshot of a dataset, and what it was made from.

    Raises:
        LorelineError: it has none, or it is not known what it was made from.
    """
    table = find_table(load_catalog(settings), name)
    snapshot = table.current_snapshot() if table else None
    made = made_from(table, snapshot) if table and snapshot else None
    if snapshot is None or made is None:
        raise LorelineError(
            f"it is not recorded what {name} was made from",
            "make it a `table` model and build it again: loreline build datasets",
        )
    return snapshot.snapshot_id, made


def upstream(settings: Settings, name: str, snapshot_id: int, tag: str) -> list[Upstream]:
    """Every snapshot that a dataset was made from: what it read, and what that was made from.

    Seeds, landed tables and incremental models are where this ends: their snapshots hold all that
    they are.

    Raises:
        LorelineError: a snapshot has expired, or belongs to another target.
    """
    catalog = load_catalog(settings)
    load = lru_cache(maxsize=None)(lambda table: find_table(catalog, table))
    read_by: dict[tuple[str, int], list[str]] = {}
    recorded: dict[tuple[str, int], MadeFrom | None] = {}
    waiting = deque([(name, snapshot_id)])
    while waiting:
        reader, reader_snapshot = waiting.popleft()
        made = _recorded(load(reader), reader, reader_snapshot, name)
        recorded[reader, reader_snapshot] = made
        for table, read in made.inputs if made else ():
            # An empty table has no snapshot to keep; a table's own past is not gone through.
            if read is None:
                continue
            if not table.startswith(settings.prefix):
                raise LorelineError(
                    f"{reader} was made from {table}, which belongs to another target",
                    "build what it reads in this target, without --defer, and freeze again",
                )
            known = read_by.setdefault((table, read), [])
            if not known and table != reader:
                waiting.append((table, read))
            if reader not in known:
                known.append(reader)
    tags: dict[str, int] = {name: 1}
    found = []
    for (table, read), readers in read_by.items():
        if (table, read) == (name, snapshot_id):
            continue
        tags[table] = number = tags.get(table, 0) + 1
        own = tag if number == 1 else f"{tag}@{number}"
        made = recorded.get((table, read)) or _recorded(load(table), table, read, name)
        found.append(Upstream(table, read, own, tuple(readers), made.to_json() if made else ""))
    return sorted(found, key=lambda one: (one.table, one.tag))


def keep(settings: Settings, table: str, snapshot_id: int, tag: str) -> None:
    """Tag a snapshot, so that it never expires.

    Raises:
        LorelineError: it has expired.
    """
    with locked(settings, table) as held:
        stored = held.stored
        _check_kept(stored, table, snapshot_id)
        assert stored is not None
        if tag not in stored.refs():
            stored.manage_snapshots().create_tag(snapshot_id, tag).commit()


def let_go(settings: Settings, table: str, tag: str) -> None:
    """Remove a tag, if it is there."""
    with locked(settings, table) as held:
        if held.stored is not None and tag in held.stored.refs():
            held.stored.manage_snapshots().remove_tag(tag).commit()


def tagged(settings: Settings, table: str, tag: str, snapshot_id: int) -> None:
    """Make sure that a tag is there and names the snapshot that was recorded.

    Raises:
        LorelineError: somebody has removed or moved it.
    """
    stored = find_table(load_catalog(settings), table)
    reference = stored.refs().get(tag) if stored else None
    if reference is None or reference.snapshot_id != snapshot_id:
        raise LorelineError(
            f"tag {tag} of {table} is {'gone' if reference is None else 'on another snapshot'}",
            f"it was on snapshot {snapshot_id}: set it again if that is still there",
        )


def _recorded(stored: Table | None, table: str, snapshot_id: int, dataset: str) -> MadeFrom | None:
    _check_kept(stored, table, snapshot_id, dataset)
    assert stored is not None
    snapshot = stored.snapshot_by_id(snapshot_id)
    assert snapshot is not None
    return made_from(stored, snapshot)


def _check_kept(
    stored: Table | None, table: str, snapshot_id: int, dataset: str = "the dataset"
) -> None:
    if stored is None or stored.snapshot_by_id(snapshot_id) is None:
        raise LorelineError(
            f"snapshot {snapshot_id} of {table}, which {dataset} was made from, has expired",
            "build what it was made from again, then freeze: loreline build datasets",
        )
