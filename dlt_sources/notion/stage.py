"""Notion objects from files, gathered in a SQLite file and put together page by page.

Blocks come in any order and from any file, each naming its parent; a page can be assembled only
when everything was read. Nothing but one page is in memory at a time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from dlt_sources.json_files import Document, Record, read_file
from dlt_sources.notion.objects import is_trashed, observation, problem_of
from dlt_sources.notion.settings import MAX_DEPTH, WITHOUT_CHILDREN
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation

Json = dict[str, Any]
_BATCH = 2_000

_SCHEMA = """
pragma journal_mode = off;
pragma synchronous = off;
create table objects (kind text, id text, edited text, body blob, origin text);
create table blocks (
    id text primary key, parent text, answer integer, position integer, edited text, body blob
) without rowid;
-- List answers that say that there is more, or of which a part could not be read.
create table partial_answers (number integer primary key, next_block text);
"""
_INSERT_OBJECT = "insert into objects values (?, ?, ?, ?, ?)"
_INSERT_BLOCK = """
insert into blocks values (?, ?, ?, ?, ?, ?)
on conflict (id) do update set
    parent = excluded.parent,
    answer = excluded.answer,
    position = excluded.position,
    edited = excluded.edited,
    body = excluded.body
where excluded.edited >= blocks.edited
"""
_SELECT_OBJECTS = """
select id, edited, body, origin from objects where kind = ? order by id, edited, rowid
"""
_SELECT_CHILDREN = """
select blocks.answer, blocks.body, partial.number is not null, following.answer
from blocks
left join partial_answers as partial on partial.number = blocks.answer
left join blocks as following on following.id = partial.next_block
where blocks.parent = ?
order by blocks.answer, blocks.position
"""
# What is reached from no page hangs on a page that is absent, or on itself.
_SELECT_UNREACHED = """
with recursive reached (id) as (
    select blocks.id
    from blocks
    where blocks.parent in (select objects.id from objects where objects.kind = 'page')
    union
    select blocks.id from blocks inner join reached on blocks.parent = reached.id
)
select blocks.parent, blocks.body
from blocks
where blocks.id not in (select reached.id from reached)
order by blocks.parent, blocks.answer, blocks.position
"""


class IncompletePage(Exception):  # noqa: N818 - the export is at fault, not the program
    """A page of which a part is known to be missing, or that cannot be written as JSON.

    Args:
        reason: missing_children or nested_too_deep.
        detail: what is missing, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


class _Child(NamedTuple):
    answer: int
    body: bytes
    is_partial: bool
    next_answer: int | None


class Stage:
    """The objects of one export.

    Args:
        files: what to read, each with its name for messages.
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
        self._objects: list[tuple[str, str, str, bytes, str]] = []
        self._blocks: list[tuple[str, str, int, int, str, bytes]] = []
        self._is_read = False

    def observations(self, kind: str) -> Iterator[Observation | Reject]:
        """All objects of a kind: page, user, database or data_source, in the order of their ids.

        Versions of one object come in the order of their `last_edited_time`. A page's payload is
        `{"page": …, "blocks": […]}`, each block with its `children`. What cannot be used comes as a
        `Reject`.
        """
        if not self._is_read:
            self._is_read = True
            yield from self._read()
        objects = self.database.execute(_SELECT_OBJECTS, (kind,))
        if kind != "page":
            for _, _, body, _ in objects:
                value = orjson.loads(body)
                yield observation(value, value, self.observed_at)
            return
        for identity, versions in groupby(objects, itemgetter(0)):
            yield from self._page(identity, list(versions))
        yield from self._unreached_blocks()

    def _read(self) -> Iterator[Reject]:
        self.database.execute("begin")
        number = 0
        for path, name in self.files:
            for document in read_file(path, name):
                number += 1
                if isinstance(document, Reject):
                    yield document
                else:
                    yield from self._add(document, number)
        self._flush()
        self.database.execute("create index blocks_by_parent on blocks (parent)")
        self.database.execute("commit")

    def _add(self, document: Document, number: int) -> Iterator[Reject]:
        is_whole = not document.header.get("has_more")
        for position, record in enumerate(document.records):
            reject = record if isinstance(record, Reject) else _rejected(record)
            if reject:
                is_whole = False
                yield reject
            else:
                self._keep(record, number, position)
        if document.is_list and not is_whole:
            partial = (number, document.header.get("next_cursor"))
            self.database.execute("insert into partial_answers values (?, ?)", partial)

    def _keep(self, record: Record, answer: int, position: int) -> None:
        value = record.value
        body = record.raw or orjson.dumps(value)
        edited = value.get("last_edited_time") or ""
        if value["object"] == "block":
            parent = value["parent"][value["parent"]["type"]]
            self._blocks.append((value["id"], parent, answer, position, edited, body))
        else:
            self._objects.append((value["object"], value["id"], edited, body, record.origin))
        if len(self._blocks) + len(self._objects) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        self.database.executemany(_INSERT_OBJECT, self._objects)
        self.database.executemany(_INSERT_BLOCK, self._blocks)
        self._objects.clear()
        self._blocks.clear()

    def _page(
        self, identity: str, versions: list[tuple[str, str, bytes, str]]
    ) -> Iterator[Observation | Reject]:
        """All versions of a page, with the one state of its blocks that there is."""
        incomplete = None
        try:
            blocks = self._children(identity, ())
        except IncompletePage as found:
            incomplete, blocks = found, []
        for _, _, body, origin in versions:
            page = orjson.loads(body)
            payload = {"page": page, "blocks": blocks}
            # That a page is gone is known whatever is missing of it.
            if incomplete and not is_trashed(page):
                reason, detail, raw = incomplete.reason, incomplete.detail, orjson.dumps(payload)
                yield Reject(reason, detail, raw, origin, "pages", identity)
            else:
                yield observation(page, payload, self.observed_at)

    def _children(self, parent: str, above: tuple[str, ...]) -> list[Json]:
        """The blocks below a page or block, each with its own `children`.

        Raises:
            IncompletePage: a block has children that are not there, or a list of blocks goes on.
        """
        if len(above) > MAX_DEPTH:
            raise IncompletePage("nested_too_deep", f"blocks below {above[0]} never end")
        children = [
            _Child(*row) for row in self.database.execute(_SELECT_CHILDREN, (parent,)).fetchall()
        ]
        if any(child.is_partial and child.next_answer is None for child in children):
            raise IncompletePage("missing_children", f"not all blocks of {parent} are there")
        blocks = [orjson.loads(child.body) for child in _in_list_order(children)]
        for block in blocks:
            if block.get("has_children") and block.get("type") not in WITHOUT_CHILDREN:
                block["children"] = self._nested(block, (*above, parent))
        return blocks

    def _nested(self, block: Json, above: tuple[str, ...]) -> list[Json]:
        """The children of a block, or for a synced copy those of its original."""
        origin = (block.get(block["type"]) or {}).get("synced_from") or {}
        for identity in (block["id"], origin.get("block_id")):
            if identity in above:
                return []
            if identity and (children := self._children(identity, above)):
                return children
        raise IncompletePage("missing_children", f"block {block['id']} has children not there")

    def _unreached_blocks(self) -> Iterator[Reject]:
        unreached = self.database.execute(_SELECT_UNREACHED)
        for parent, rows in groupby(unreached, itemgetter(0)):
            raw = b"[" + b",".join(body for _, body in rows) + b"]"
            detail = f"blocks below {parent}, of which there is no page"
            yield Reject("missing_page", detail, raw, "", "pages", parent)


def _rejected(record: Record) -> Reject | None:
    """Why a record cannot be used, if it cannot."""
    problem = problem_of(record.value)
    if problem is None:
        return None
    return record.reject(
        problem.reason, problem.detail, resource=problem.table, external_id=problem.external_id
    )


def _in_list_order(children: list[_Child]) -> list[_Child]:
    """Children as the API orders them: an answer names the block that the next begins with."""
    following = {c.answer: c.next_answer for c in children if c.next_answer is not None}
    if not following:
        return children
    answers = {answer: list(rows) for answer, rows in groupby(children, itemgetter(0))}
    ordered: list[_Child] = []
    later = set(following.values())
    for first in sorted(answers, key=lambda answer: (answer in later, answer)):
        answer: int | None = first
        while answer in answers:
            ordered += answers.pop(answer)
            answer = following.get(answer)
    return ordered
