"""A Notion workspace behind its API, shaped after recorded exchanges of version 2025-09-03.

Times are the workspace's own, and only pass when a test says so. Search knows an edit after a
while, and never shows some pages; what is asked for by its id is always as it is.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

from tests.simulators.api import Answer, Asked

Json = dict[str, Any]

START = datetime(2026, 7, 4, 9, 0, 30, tzinfo=UTC)
TOKEN = "ntn_of_the_simulator"
PAGE_SIZE = 100
# Of a property, in a page object.
MAX_ITEMS = 25
BOT = "7775f3a3-893f-43fa-b625-460c61094c78"


def moment(at: datetime) -> str:
    """A time as Notion tells it: rounded to the minute."""
    return at.replace(second=0, microsecond=0).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def rich_text(text: str) -> list[Json]:
    """A text as one run; none where it is empty."""
    if not text:
        return []
    plain = ("bold", "italic", "strikethrough", "underline", "code")
    annotations = {**dict.fromkeys(plain, False), "color": "default"}
    content = {"content": text, "link": None}
    return [
        {
            "type": "text",
            "text": content,
            "annotations": annotations,
            "plain_text": text,
            "href": None,
        }
    ]


@dataclass
class Block:
    """A block: its text, and what is below it.

    Attributes:
        id: its id; of a child page or database theirs.
        kind: paragraph, toggle, …
        text: what it says.
        children: blocks below it.
        synced_from: the original, of a copy of a synced block.
    """

    id: str
    kind: str = "paragraph"
    text: str = ""
    children: list[Block] = field(default_factory=list)
    synced_from: str | None = None


@dataclass
class Page:
    """A page or row.

    Attributes:
        id: its id.
        parent: as the API tells it.
        title: of the page.
        blocks: right below it.
        edited: when it was changed last.
        is_trashed: whether it was moved to the bin itself.
        is_shared: whether the integration may see it and what is below.
        related: ids in a relation, of which the page object shows the first 25.
        overlay: fields of the page object to answer with instead, for hostile input.
    """

    id: str
    parent: Json
    title: str
    blocks: list[Block] = field(default_factory=list)
    created: datetime = START
    edited: datetime = START
    is_trashed: bool = False
    is_shared: bool = True
    related: list[str] = field(default_factory=list)
    overlay: Json = field(default_factory=dict)


@dataclass
class Source:
    """A data source with its database."""

    id: str
    database_id: str
    title: str
    parent: Json
    edited: datetime = START
    is_trashed: bool = False
    is_shared: bool = True


class Refusal(Exception):  # noqa: N818 - it is an answer
    """An answer that says no."""

    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(message)
        self.answer = Answer(
            {
                "object": "error",
                "status": status,
                "code": code,
                "message": message or code,
                "request_id": str(uuid.uuid4()),
            },
            status,
        )


class Workspace:
    """The workspace.

    Attributes:
        now: what its clock says.
        date_skew: by how much the `Date` of answers is ahead of it.
        lag: how late search shows an edit.
        missed: ids that search does not show.
        refused: capabilities that the integration has not: users, comments.
        during: called before the request of that number is answered, counted from the last call of
            `before`.
    """

    def __init__(self) -> None:
        self.now = START
        self.date_skew = timedelta()
        self.lag = timedelta()
        self.pages: dict[str, Page] = {}
        self.sources: dict[str, Source] = {}
        self.users: dict[str, Json] = {}
        # Comments that are not resolved, by their id.
        self.comments: dict[str, Json] = {}
        self.missed: set[str] = set()
        self.refused: set[str] = set()
        self.broken_entries: list[Any] = []
        self.during: dict[int, Callable[[], None]] = {}
        self._answered = 0
        self._ids = 0
        # What search knows: the time of the last edit by id; and when it will know the others.
        self._index: dict[str, datetime] = {}
        self._to_index: list[tuple[datetime, str]] = []
        self.add_user("Ana Lima", "ana@example.com")

    # What people do.

    def add_page(
        self, title: str = "", parent: str | None = None, *, source: str | None = None
    ) -> Page:
        """A page at the top, below a page, or a row of a data source."""
        told: Json = {"type": "workspace", "workspace": True}
        if parent:
            told = {"type": "page_id", "page_id": parent}
        elif source:
            told = {
                "type": "data_source_id",
                "data_source_id": source,
                "database_id": self.sources[source].database_id,
            }
        page = Page(self._new_id(), told, title, created=self.now, edited=self.now)
        self.pages[page.id] = page
        if parent:
            self.pages[parent].blocks.append(Block(page.id, "child_page", title))
            self.touch(parent)
        self.touch(page.id)
        return page

    def add_source(self, title: str, parent: str) -> Source:
        """A database with one data source, on a page."""
        told = {"type": "page_id", "page_id": parent}
        source = Source(self._new_id(), self._new_id(), title, told, edited=self.now)
        self.sources[source.id] = source
        self.pages[parent].blocks.append(Block(source.database_id, "child_database", title))
        self.touch(parent)
        self.touch(source.id)
        return source

    def add_block(
        self,
        page: str,
        text: str = "",
        kind: str = "paragraph",
        *,
        below: Block | None = None,
        synced_from: str | None = None,
    ) -> Block:
        """A block at the end of a page, or below a block of it."""
        block = Block(self._new_id(), kind, text, synced_from=synced_from)
        (below.children if below else self.pages[page].blocks).append(block)
        self.touch(page)
        return block

    def edit(self, page: str, title: str) -> None:
        """Change a page's title, where its parent shows it too."""
        self.pages[page].title = title
        for block in self._blocks_of(self.pages[page]):
            block.text = title
            self.touch(self.pages[page].parent["page_id"])
        self.touch(page)

    def trash(self, page: str, *, is_trashed: bool = True) -> None:
        """Move a page to the bin, or back."""
        found = self.pages[page]
        found.is_trashed = is_trashed
        parent = self.pages.get(found.parent.get("page_id", ""))
        if parent:
            if is_trashed:
                parent.blocks = [block for block in parent.blocks if block.id != page]
            else:
                parent.blocks.append(Block(page, "child_page", found.title))
            self.touch(parent.id)
        self.touch(page)

    def move(self, page: str, parent: str) -> None:
        """Move a page below another one."""
        found = self.pages[page]
        before = self.pages.get(found.parent.get("page_id", ""))
        if before:
            before.blocks = [block for block in before.blocks if block.id != page]
            self.touch(before.id)
        found.parent = {"type": "page_id", "page_id": parent}
        self.pages[parent].blocks.append(Block(page, "child_page", found.title))
        self.touch(parent)
        self.touch(page)

    def destroy(self, page: str) -> None:
        """Delete a page for good, with what is below it."""
        self.trash(page)
        for each in [each for each in self.pages if page in self._line(each)]:
            del self.pages[each]

    def comment(self, page: str, text: str, block: str | None = None) -> str:
        """Write a comment on a page or a block of it; it is no edit of the page."""
        identity = self._new_id()
        parent = {"type": "page_id", "page_id": page}
        if block:
            parent = {"type": "block_id", "block_id": block}
        self.comments[identity] = {
            "object": "comment",
            "id": identity,
            "parent": parent,
            "discussion_id": self._new_id(),
            "created_time": moment(self.now),
            "last_edited_time": moment(self.now),
            "created_by": {"object": "user", "id": BOT},
            "rich_text": rich_text(text),
            "display_name": {"type": "user", "resolved_name": "Ana Lima"},
        }
        return identity

    def add_user(self, name: str, email: str) -> str:
        """A person."""
        identity = self._new_id()
        self.users[identity] = {
            "object": "user",
            "id": identity,
            "name": name,
            "avatar_url": None,
            "type": "person",
            "person": {"email": email},
        }
        return identity

    def touch(self, identity: str) -> None:
        """Something was edited now; search knows it when its lag is over."""
        known = self.pages.get(identity) or self.sources[identity]
        known.edited = self.now
        self._to_index.append((self.now + self.lag, identity))

    def catch_up(self) -> None:
        """Search knows all edits."""
        self._to_index = [(self.now, identity) for _, identity in self._to_index]

    def before(self, number: int, happens: Callable[[], None]) -> None:
        """Let something happen before a request is answered, counted from now."""
        self.during[self._answered + number] = happens

    # What is so.

    def is_visible(self, identity: str) -> bool:
        """Whether the integration may see a page or data source, in the bin or not."""
        held = self._held(identity)
        return bool(held) and all(each is not None and each.is_shared for each in held)

    def is_there(self, identity: str) -> bool:
        """Whether it may see it, outside of the bin."""
        held = self._held(identity)
        return self.is_visible(identity) and not any(each and each.is_trashed for each in held)

    def is_shown(self, identity: str) -> bool:
        """Whether search shows it as of its last edit."""
        self._update_index()
        known = self.pages.get(identity)
        return (
            known is not None
            and identity not in self.missed
            and self._index.get(identity) == known.edited
        )

    def payload(self, page: str) -> Json:
        """A page with its blocks, as it is to be landed."""
        found = self.pages[page]
        told = self._page(found)
        told["properties"] = self._properties(found, is_whole=True)
        return {
            "page": told,
            "blocks": [self._whole(block, page, "page_id") for block in found.blocks],
        }

    def current(self) -> dict[str, dict[str, Json]]:
        """All that is to be landed, by table and id."""
        there = [page for page in self.pages if self.is_there(page)]
        sources = [each for each in self.sources.values() if self.is_there(each.id)]
        return {
            "pages": {page: self.payload(page) for page in there},
            "data_sources": {each.id: self._source(each) for each in sources},
            "databases": {each.database_id: self._database(each) for each in sources},
            "users": dict(self.users),
            "comments": {
                identity: comment
                for identity, comment in self.comments.items()
                if comment["parent"].get("page_id") in there
            },
        }

    # What it answers.

    def answer(self, asked: Asked) -> Answer:
        """What the API says."""
        self._answered += 1
        if happens := self.during.pop(self._answered, None):
            happens()
        try:
            if asked.headers.get("authorization") != f"Bearer {TOKEN}":
                raise Refusal(401, "unauthorized", "API token is invalid.")
            if not asked.headers.get("notion-version"):
                raise Refusal(400, "missing_version")
            answer = self._route(asked)
        except Refusal as refusal:
            answer = refusal.answer
        answer.headers["date"] = format_datetime(self.now + self.date_skew, usegmt=True)
        return answer

    def _route(self, asked: Asked) -> Answer:
        _, version, *parts = asked.path.split("/")
        content = asked.query if asked.method == "GET" else asked.body or {}
        match asked.method, version, *parts:
            case "POST", "v1", "search":
                return self._list(self._search(), content, "page_or_data_source", self._entry)
            case "GET", "v1", "users":
                self._require("users")
                return self._list(list(self.users.items()), content, "user")
            case "GET", "v1", "users", identity:
                self._require("users")
                return self._one(self.users.get(identity), "user", identity)
            case "GET", "v1", "pages", identity:
                page = self.pages.get(identity) if self.is_visible(identity) else None
                return self._one(page and self._page(page), "page", identity)
            case "GET", "v1", "pages", identity, "properties", name if name == "rel":
                return self._list(self._related(identity), content, "property_item")
            case "GET", "v1", "data_sources", identity:
                known = self.sources.get(identity) if self.is_visible(identity) else None
                return self._one(known and self._source(known), "data_source", identity)
            case "POST", "v1", "data_sources", identity, "query":
                rows = self._rows(identity)
                return self._list(rows, content, "page_or_data_source", self._page)
            case "GET", "v1", "databases", identity:
                known = next((s for s in self.sources.values() if s.database_id == identity), None)
                if known and not self.is_visible(known.id):
                    known = None
                return self._one(known and self._database(known), "database", identity)
            case "GET", "v1", "blocks", identity, "children":
                return self._list(self._children(identity), content, "block")
            case "GET", "v1", "comments":
                self._require("comments")
                return self._list(self._comments_on(asked.query["block_id"]), content, "comment")
        raise Refusal(400, "invalid_request_url", "Invalid request URL.")

    def _require(self, capability: str) -> None:
        if capability in self.refused:
            raise Refusal(403, "restricted_resource", "Insufficient permissions.")

    def _one(self, value: Json | None, kind: str, identity: str) -> Answer:
        if value is None:
            raise Refusal(404, "object_not_found", f"Could not find {kind} with ID: {identity}.")
        return Answer({**value, "request_id": str(uuid.uuid4())})

    def _list(
        self,
        entries: list[tuple[str, Any]],
        content: Json,
        kind: str,
        told: Callable[[Any], Json] = lambda value: value,
    ) -> Answer:
        """A part of a list, whose entries come with what a cursor to them says."""
        size = min(PAGE_SIZE, int(content.get("page_size", PAGE_SIZE)))
        start = 0
        if cursor := content.get("start_cursor"):
            keys = [key for key, _ in entries]
            if cursor not in keys:
                if kind != "page_or_data_source":
                    raise Refusal(400, "validation_error", "The start_cursor provided is invalid.")
                keys = sorted([*keys, cursor])
            start = keys.index(cursor)
        shown, rest = entries[start : start + size], entries[start + size :]
        answer = {
            "object": "list",
            "results": [told(value) for _, value in shown],
            "next_cursor": rest[0][0] if rest else None,
            "has_more": bool(rest),
            "type": kind,
            kind: {},
            "request_id": str(uuid.uuid4()),
        }
        return Answer(answer)

    def _search(self) -> list[tuple[str, Any]]:
        """What search knows, newest first; an edit moves to the top while it is listed."""
        self._update_index()
        found = [
            (f"{10**12 - int(edited.timestamp()):013d}{identity}", identity)
            for identity, edited in self._index.items()
            if identity not in self.missed and self.is_there(identity)
        ]
        return [*((f"0{n}", [e]) for n, e in enumerate(self.broken_entries)), *sorted(found)]

    def _entry(self, identity: Any) -> Any:
        """What search tells of an object: it as it is, with the time that search knows."""
        if not isinstance(identity, str):
            return identity[0]
        known = self.pages.get(identity)
        value = self._page(known) if known else self._source(self.sources[identity])
        return {**value, "last_edited_time": moment(self._index[identity])}

    def _update_index(self) -> None:
        waiting = []
        for ready_at, identity in self._to_index:
            known = self.pages.get(identity) or self.sources.get(identity)
            if ready_at <= self.now and known:
                self._index[identity] = known.edited
            elif known:
                waiting.append((ready_at, identity))
        self._to_index = waiting
        for identity in [e for e in self._index if e not in self.pages and e not in self.sources]:
            del self._index[identity]

    def _rows(self, source: str) -> list[tuple[str, Page]]:
        if not self.is_visible(source):
            raise Refusal(404, "object_not_found")
        return [
            (page.id, page)
            for page in sorted(self.pages.values(), key=lambda page: page.id)
            if page.parent.get("data_source_id") == source and self.is_there(page.id)
        ]

    def _related(self, page: str) -> list[tuple[str, Json]]:
        if not self.is_visible(page):
            raise Refusal(404, "object_not_found")
        return [
            (
                identity,
                {
                    "object": "property_item",
                    "id": "rel",
                    "type": "relation",
                    "relation": {"id": identity},
                },
            )
            for identity in self.pages[page].related
        ]

    def _children(self, identity: str) -> list[tuple[str, Json]]:
        found = self._find(identity)
        if found is None:
            raise Refusal(404, "object_not_found", f"Could not find block with ID: {identity}.")
        page, blocks = found
        kind = "page_id" if identity == page else "block_id"
        return [(block.id, self._block(block, identity, kind)) for block in blocks]

    def _find(self, identity: str) -> tuple[str, list[Block]] | None:
        """The page of a page or block, and the blocks right below."""
        if identity in self.pages:
            page = self.pages[identity]
            return (identity, page.blocks) if self.is_visible(identity) else None
        for page in self.pages.values():
            for block in _all(page.blocks):
                if block.id == identity and block.kind not in ("child_page", "child_database"):
                    # Of a copy there are no children: those of the original are asked for.
                    visible = self.is_visible(page.id) and not block.synced_from
                    return (page.id, block.children) if visible else None
        return None

    def _comments_on(self, identity: str) -> list[tuple[str, Json]]:
        found = self._find(identity)
        if found is None:
            raise Refusal(404, "object_not_found")
        kind = "page_id" if identity == found[0] else "block_id"
        return [(k, v) for k, v in self.comments.items() if v["parent"].get(kind) == identity]

    # How things are told.

    def _page(self, page: Page) -> Json:
        is_trashed = not self.is_there(page.id)
        return {
            "object": "page",
            "id": page.id,
            "created_time": moment(page.created),
            "last_edited_time": moment(page.edited),
            "created_by": {"object": "user", "id": BOT},
            "last_edited_by": {"object": "user", "id": BOT},
            "cover": None,
            "icon": None,
            "parent": page.parent,
            "in_trash": is_trashed,
            "is_archived": is_trashed,
            "is_locked": False,
            "properties": self._properties(page),
            "url": f"https://app.notion.com/p/{page.id.replace('-', '')}",
            "public_url": None,
            "archived": is_trashed,
            **page.overlay,
        }

    def _properties(self, page: Page, *, is_whole: bool = False) -> Json:
        title = {"id": "title", "type": "title", "title": rich_text(page.title)}
        properties: Json = {"Name": title}
        if page.related:
            shown = page.related if is_whole else page.related[:MAX_ITEMS]
            relation: Json = {"id": "rel", "type": "relation"}
            relation["relation"] = [{"id": identity} for identity in shown]
            if not is_whole or len(page.related) < MAX_ITEMS:
                relation["has_more"] = len(page.related) > MAX_ITEMS
            properties["Related"] = relation
        return properties

    def _source(self, source: Source) -> Json:
        parent = {"type": "database_id", "database_id": source.database_id}
        return {
            "object": "data_source",
            "id": source.id,
            "cover": None,
            "icon": None,
            "created_time": moment(START),
            "last_edited_time": moment(source.edited),
            "title": rich_text(source.title),
            "description": [],
            "properties": {"Name": {"id": "title", "name": "Name", "type": "title", "title": {}}},
            "parent": parent,
            "database_parent": source.parent,
            "url": f"https://app.notion.com/p/{source.id.replace('-', '')}",
            "in_trash": not self.is_there(source.id),
        }

    def _database(self, source: Source) -> Json:
        return {
            "object": "database",
            "id": source.database_id,
            "title": rich_text(source.title),
            "description": [],
            "parent": source.parent,
            "is_inline": False,
            "in_trash": not self.is_there(source.id),
            "created_time": moment(START),
            "last_edited_time": moment(source.edited),
            "data_sources": [{"id": source.id, "name": source.title}],
        }

    def _block(self, block: Block, parent: str, kind: str) -> Json:
        content: Json = {"rich_text": rich_text(block.text), "color": "default"}
        has_children = bool(block.children)
        if block.kind in ("child_page", "child_database"):
            content, has_children = {"title": block.text}, block.kind == "child_page"
        elif block.kind == "unsupported":
            content = {"block_type": "button"}
        elif block.kind == "synced_block":
            origin = {"type": "block_id", "block_id": block.synced_from}
            content = {"synced_from": origin if block.synced_from else None}
            has_children = has_children or block.synced_from is not None
        return {
            "object": "block",
            "id": block.id,
            "parent": {"type": kind, kind: parent},
            "created_time": moment(START),
            "last_edited_time": moment(self.now),
            "has_children": has_children,
            "in_trash": False,
            "type": block.kind,
            block.kind: content,
        }

    def _whole(self, block: Block, parent: str, kind: str) -> Json:
        """A block with its children, those of its original where it is a copy."""
        told = self._block(block, parent, kind)
        if not told["has_children"] or block.kind in ("child_page", "unsupported"):
            return told
        owner, children = block.id, block.children
        if block.synced_from:
            found = self._find(block.synced_from)
            owner, children = block.synced_from, found[1] if found else []
        told["children"] = [self._whole(each, owner, "block_id") for each in children]
        return told

    # How things hang together.

    def _line(self, identity: str) -> list[str]:
        """A page or data source, and what it is in, up to the top."""
        line: list[str] = []
        at: str | None = identity
        while at:
            line.append(at)
            known = self.pages.get(at) or self.sources.get(at)
            parent = known.parent if known else {}
            at = parent.get("page_id") or parent.get("data_source_id")
        return line

    def _held(self, identity: str) -> list[Page | Source | None]:
        return [self.pages.get(each) or self.sources.get(each) for each in self._line(identity)]

    def _blocks_of(self, page: Page) -> Iterator[Block]:
        parent = self.pages.get(page.parent.get("page_id", ""))
        return (block for block in (parent.blocks if parent else []) if block.id == page.id)

    def _new_id(self) -> str:
        self._ids += 1
        return str(uuid.UUID(int=(0x393A << 112) + self._ids))


def _all(blocks: list[Block]) -> Iterator[Block]:
    for block in blocks:
        yield block
        yield from _all(block.children)
