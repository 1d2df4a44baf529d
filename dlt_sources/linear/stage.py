"""Linear objects from files, gathered in a SQLite file and put together object by object.

The same object may come several times in one export: listed by itself, in a list of another object,
in parts by several queries. What says the same of it, by its id and `updatedAt`, is one
observation. Nothing but one object is in memory at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from dlt_sources.json_files import read_file
from dlt_sources.linear.answers import (
    Node,
    Page,
    is_list_of_members,
    items,
    observed,
    sortable,
    table_of_file,
)
from dlt_sources.linear.settings import MEMBERSHIPS
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation

Json = dict[str, Any]
_BATCH = 2_000

_SCHEMA = """
pragma journal_mode = off;
pragma synchronous = off;
create table objects (
    kind text, id text, updated text, is_whole integer, fields integer, body blob, origin text
);
create table lists (
    kind text, field text, owner text, is_whole integer, primary key (kind, field, owner)
) without rowid;
-- Objects of which something could not be used; one without an id may be any of its kind, and what
-- is of no known kind any of all.
create table left_out (kind text, id text);
"""
_INSERT_OBJECT = "insert into objects values (?, ?, ?, ?, ?, ?, ?)"
_INSERT_LIST = """
insert into lists values (?, ?, ?, ?)
on conflict do update set is_whole = max(lists.is_whole, excluded.is_whole)
"""
# What is whole and has most fields is last, and so has the last word.
_SELECT_OBJECTS = """
select id, updated, is_whole, body, origin
from objects
where kind = ?
order by id, updated, is_whole, fields, body
"""


class Stage:
    """The objects of one export.

    Args:
        files: what to read, each with its path below the export.
        path: where to keep the objects meanwhile; the file must not exist.
        observed_at: when the export was made.
    """

    def __init__(
        self, files: Sequence[tuple[Path, str]], path: Path, observed_at: datetime
    ) -> None:
        self.files = files
        self.observed_at = observed_at
        self.database = sqlite3.connect(path, isolation_level=None)
        self.database.executescript(_SCHEMA)
        self._objects: list[tuple[str, str, str, bool, int, bytes, str]] = []
        self._is_read = False

    def observations(self, table: str) -> Iterator[Observation | Reject]:
        """All objects of a table, in the order of their ids.

        Versions of one object come in the order of their `updatedAt`. A payload has no connections
        but those that say something of the object itself, and names the object in whose list it
        was found. What cannot be used comes as a `Reject`.
        """
        if not self._is_read:
            self._is_read = True
            yield from self._read()
        rows = self.database.execute(_SELECT_OBJECTS, (table,))
        for identity, parts in groupby(rows, itemgetter(0)):
            for item in self._versions(table, identity, list(parts)):
                if isinstance(item, Reject):
                    self._leave_out(table, identity)
                yield item

    def lists_all(self, table: str) -> bool:
        """Whether the export holds a list of all objects of a table, to its end and readable."""
        row = self.database.execute(
            "select 1 from lists where kind = ? and field = '' and is_whole", (table,)
        ).fetchone()
        return row is not None

    def is_readable(self, table: str) -> bool:
        """Whether no object of a table may be among what could not be read."""
        row = self.database.execute(
            "select 1 from left_out where kind in (?, '') and id is null", (table,)
        ).fetchone()
        return row is None

    def lists_of_owners(self, table: str) -> pa.Table:
        """The lists of a table's objects in other objects: `field`, `owner`, `is_whole`."""
        rows = self.database.execute(
            "select field, owner, is_whole from lists where kind = ? and field <> ''", (table,)
        ).fetchall()
        columns = list(zip(*rows, strict=True)) or [(), (), ()]
        return pa.table(
            {
                "field": pa.array(columns[0], pa.string()),
                "owner": pa.array(columns[1], pa.string()),
                "is_whole": pa.array([bool(whole) for whole in columns[2]], pa.bool_()),
            }
        )

    def left_out(self, table: str) -> pa.Table:
        """`id` of the objects of a table that are there, but could not be used."""
        rows = self.database.execute(
            "select id from left_out where kind = ? and id is not null", (table,)
        ).fetchall()
        return pa.table({"id": pa.array([identity for (identity,) in rows], pa.string())})

    def _read(self) -> Iterator[Reject]:
        self.database.execute("begin")
        for path, name in self.files:
            table, is_empty = table_of_file(name), True
            for document in read_file(path, name):
                for record in [document] if isinstance(document, Reject) else document.records:
                    is_empty = False
                    yield from self._add(record, table)
            if table and is_empty:
                self._keep(Page(table, "", "", is_last=True))
        self._flush()
        self.database.execute("create index objects_by_id on objects (kind, id)")
        self.database.execute("commit")

    def _add(self, record: Any, table: str | None) -> Iterator[Reject]:
        for item in [record] if isinstance(record, Reject) else items(record, table):
            if isinstance(item, Reject):
                self._leave_out(item.resource or table or "", item.external_id)
                yield item
            else:
                self._keep(item)

    def _keep(self, item: Node | Page) -> None:
        if isinstance(item, Page):
            self.database.execute(_INSERT_LIST, (item.table, item.field, item.owner, item.is_last))
            return
        value = item.value
        updated = sortable(value.get("updatedAt"))
        body = orjson.dumps(value)
        self._objects.append(
            (item.table, value["id"], updated, item.is_whole, len(value), body, item.origin)
        )
        if len(self._objects) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self.database.executemany(_INSERT_OBJECT, self._objects)
        self._objects.clear()

    def _leave_out(self, table: str, identity: str | None) -> None:
        self.database.execute("insert into left_out values (?, ?)", (table, identity))

    def _versions(
        self, table: str, identity: str, parts: list[tuple[str, str, bool, bytes, str]]
    ) -> Iterator[Observation | Reject]:
        """The versions of an object that the export shows."""
        states = [
            (updated, any(row[2] for row in rows), [orjson.loads(row[3]) for row in rows])
            for updated, rows in ((key, list(group)) for key, group in groupby(parts, _UPDATED))
        ]
        if len(states) > 1 and not states[0][0]:
            # Parts that do not say when it was changed belong to its newest state.
            (_, is_whole, undated), *states = states
            updated, is_newest_whole, newest = states[-1]
            states[-1] = (updated, is_whole or is_newest_whole, [*undated, *newest])
        if not any(is_whole for _, is_whole, _ in states):
            # It is there, and that is all that is known.
            self._leave_out(table, identity)
        for updated, is_whole, fragments in states:
            node = Node(table, _united(table, fragments), parts[0][4], is_whole)
            yield from observed(node, updated, self.observed_at)


_UPDATED = itemgetter(1)


def _united(table: str, fragments: list[Json]) -> Json:
    """What the parts of an object say together."""
    united: Json = {}
    for fragment in fragments:
        pages = {
            name: _united_pages(united[name], fragment[name])
            for name in MEMBERSHIPS.get(table, {})
            if is_list_of_members(united.get(name)) and is_list_of_members(fragment.get(name))
        }
        united |= fragment | pages
    return united


def _united_pages(first: Json, second: Json) -> Json:
    """Two pages of one list; it is whole where one of them is its last."""
    if "pageInfo" not in first and "pageInfo" not in second:
        return second
    nodes = {node["id"]: node for node in (*first["nodes"], *second["nodes"])}
    united = {"nodes": [nodes[identity] for identity in sorted(nodes)]}
    if "pageInfo" in first and "pageInfo" in second:
        united["pageInfo"] = first["pageInfo"]
    return united
