"""Writes pages of the story as the Notion API returns them, Notion-Version 2025-09-03.

Shapes follow recorded answers of the API: page, database and data source objects, and
`GET /v1/blocks/{id}/children` answers of at most 100 blocks, one parent after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from company import Company, digest, iso, moment, uuid_of
from links import address, page_id, page_url
from notion_markup import Block, PageSource, cells, spans

PAGE_SIZE = 100
ANNOTATIONS = ("bold", "italic", "strikethrough", "underline", "code")
WITHOUT_RICH_TEXT = {"divider", "column_list", "table_of_contents", "unsupported"}
Json = dict[str, Any]


@dataclass
class NotionState:
    """The workspace at one moment: sources as edited so far, and what happened to them."""

    exported_at: datetime
    pages: dict[str, PageSource]
    edited: dict[str, tuple[str, str]] = field(default_factory=dict)
    edited_blocks: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    trashed: set[str] = field(default_factory=set)
    export_only: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """A name for this state, hashed into what the API makes anew for each answer."""
        return iso(self.exported_at)


def apply_changes(before: NotionState, changes: Json, exported_at: datetime) -> NotionState:
    """The state after the section `notion` of a `changes/*.yaml` (edits, trash, restore)."""
    after = NotionState(
        exported_at,
        dict(before.pages),
        dict(before.edited),
        dict(before.edited_blocks),
        set(before.trashed),
        changes.get("export_only", []),
    )
    for edit in changes.get("edits", []):
        old = after.pages[edit["page"]]
        new = edited_page(old, edit)
        after.pages[old.key] = new
        after.edited[old.key] = (edit["at"], edit["by"])
        old_blocks = dict(placed(old.blocks))
        for path, block in placed(new.blocks):
            if path not in old_blocks or says(block) != says(old_blocks[path]):
                after.edited_blocks[old.key, path] = (edit["at"], edit["by"])
    after.trashed |= set(changes.get("trash", []))
    after.trashed -= set(changes.get("restore", []))
    for moved in [*changes.get("trash", []), *changes.get("restore", [])]:
        after.edited[moved] = (changes["moved_at"], changes["moved_by"])
    return after


def edited_page(page: PageSource, edit: Json) -> PageSource:
    """The page after one edit: a new title, a replaced text, or blocks added at its end."""
    meta, body = dict(page.meta), page.body
    if "title" in edit:
        meta["title"] = edit["title"]
    if "replace" in edit:
        if body.count(edit["replace"]) != 1:
            raise ValueError(f"{page.key}: the text to replace is not there exactly once")
        body = body.replace(edit["replace"], edit["with"])
    if "append" in edit:
        body += "\n" + edit["append"]
    return PageSource(page.key, meta, body)


def placed(blocks: list[Block], above: str = "") -> Iterator[tuple[str, Block]]:
    """Every block of a page with its place (`/2/0`: first child of the third), depth first."""
    for i, block in enumerate(blocks):
        path = f"{above}/{i}"
        yield path, block
        yield from placed(block.children, path)


def says(block: Block) -> tuple[str, str, str]:
    """What one can edit in a block itself."""
    return block.kind, block.text, block.argument


class NotionWriter:
    """Turns one state into API objects."""

    def __init__(self, company: Company, databases: Json, state: NotionState) -> None:
        self.company = company
        self.databases = databases
        self.state = state
        self.sync_owners = {
            block.text: page.key
            for page in state.pages.values()
            for _, block in placed(page.blocks)
            if block.kind == "synced_block"
        }

    def files(self) -> dict[str, Any]:
        """Content of every file of the export by its name; lists become JSON lines."""
        pages = list(self.state.pages.values())
        databases = [self.database(key) for key in self.databases]
        return {
            "export.json": {"exported_at": iso(self.state.exported_at), "complete": True},
            "users.jsonl": [self.user(key) for key in self.company.people],
            "databases.jsonl": databases,
            "data_sources.jsonl": [self.data_source(key) for key in self.databases],
            "pages.jsonl": [self.page(page) for page in pages],
            "blocks.jsonl": [
                answer
                for page in pages
                if page.key not in self.state.trashed
                for answer in self.children_answers(page)
            ],
        }

    def partial_files(self, keys: list[str]) -> dict[str, Any]:
        """The same for some pages only: an export that does not claim to be complete."""
        pages = [self.state.pages[key] for key in keys]
        return {
            "export.json": {"exported_at": iso(self.state.exported_at), "complete": False},
            "pages.jsonl": [self.page(page) for page in pages],
            "blocks.jsonl": [answer for page in pages for answer in self.children_answers(page)],
        }

    def user(self, key: str) -> Json:
        """A user object: a person, or a bot owned by the workspace."""
        person = self.company.people[key]
        user = {
            "object": "user",
            "id": person.notion_id,
            "name": person.name,
            "avatar_url": None,
            "type": "bot" if person.is_bot else "person",
        }
        if person.is_bot:
            owner = {"type": "workspace", "workspace": True}
            return user | {"bot": {"owner": owner, "workspace_name": self.company.name}}
        return user | {"person": {"email": person.email(self.company.domain)}}

    def user_reference(self, key: str) -> Json:
        """The two fields by which other objects name a user."""
        return {"object": "user", "id": self.company.people[key].notion_id}

    def stamps(self, meta: Json, edited: tuple[str, str] | None) -> Json:
        """Who made and last changed an object, and when (Notion keeps whole minutes)."""
        at, by = edited or (meta.get("edited", meta["created"]), meta.get("editor", meta["author"]))
        return {
            "created_time": iso(moment(meta["created"])),
            "last_edited_time": iso(moment(at)),
            "created_by": self.user_reference(meta["author"]),
            "last_edited_by": self.user_reference(by),
        }

    def page(self, page: PageSource) -> Json:
        """A page object."""
        meta, in_trash = page.meta, page.key in self.state.trashed
        icon = {"type": "emoji", "emoji": meta["icon"]} if "icon" in meta else None
        return {
            "object": "page",
            "id": page_id(page.key),
            **self.stamps(meta, self.state.edited.get(page.key)),
            "cover": None,
            "icon": icon,
            "parent": self.page_parent(meta),
            "in_trash": in_trash,
            "is_archived": False,
            "is_locked": False,
            "properties": self.page_properties(meta),
            "url": page_url(page.key),
            "public_url": None,
            "archived": in_trash,
        }

    def page_parent(self, meta: Json) -> Json:
        """Where a page hangs: the workspace, another page, or a data source."""
        if "database" in meta:
            key = meta["database"]
            return {
                "type": "data_source_id",
                "data_source_id": uuid_of("notion data source", key),
                "database_id": uuid_of("notion database", key),
            }
        if "parent" in meta:
            if meta["parent"] not in self.state.pages:
                raise ValueError(f"no page {meta['parent']}")
            return {"type": "page_id", "page_id": page_id(meta["parent"])}
        return {"type": "workspace", "workspace": True}

    def page_properties(self, meta: Json) -> Json:
        """The title, and for a row of a database its other properties."""
        title = {"id": "title", "type": "title", "title": self.rich_text(meta["title"])}
        if "database" not in meta:
            return {"title": title}
        schema = self.databases[meta["database"]]["properties"]
        return {"Name": title} | {
            name: self.property_value(name, schema[name], meta["properties"].get(name))
            for name in schema
        }

    def property_value(self, name: str, schema: Any, value: Any) -> Json:
        """One property in the shape of its type."""
        kind = schema if isinstance(schema, str) else "select"
        item: Json = {"id": digest("property", name)[:4], "type": kind}
        if kind == "select":
            return item | {"select": self.option(name, schema, value) if value else None}
        if kind == "people":
            return item | {"people": [self.user(key) for key in value or []]}
        if kind == "rich_text":
            return item | {"rich_text": self.rich_text(value or "")}
        if kind == "date":
            start = {"start": str(value), "end": None, "time_zone": None} if value else None
            return item | {"date": start}
        if kind == "url" and value and value.startswith("page:"):
            value = page_url(self.known(value[5:]))
        return item | {kind: bool(value) if kind == "checkbox" else value}

    def option(self, name: str, colors: dict[str, str], value: str) -> Json:
        """A select option."""
        return {"id": digest("option", name, value)[:4], "name": value, "color": colors[value]}

    def database(self, key: str) -> Json:
        """A database: since 2025-09-03 a container of data sources."""
        meta = self.databases[key]
        identity = uuid_of("notion database", key)
        return {
            "object": "database",
            "id": identity,
            "title": self.rich_text(meta["title"]),
            "description": self.rich_text(meta["description"]),
            "parent": {"type": "page_id", "page_id": page_id(meta["parent"])},
            "is_inline": False,
            "in_trash": False,
            "is_locked": False,
            **self.stamps(meta, None),
            "data_sources": [{"id": uuid_of("notion data source", key), "name": meta["title"]}],
            "icon": None,
            "cover": None,
            "url": "https://app.notion.com/p/" + identity.replace("-", ""),
            "public_url": None,
            "archived": False,
        }

    def data_source(self, key: str) -> Json:
        """A data source: the schema that a database's rows follow."""
        meta = self.databases[key]
        properties: Json = {
            "Name": {
                "id": "title",
                "name": "Name",
                "description": None,
                "type": "title",
                "title": {},
            }
        }
        for name, schema in meta["properties"].items():
            kind = schema if isinstance(schema, str) else "select"
            settings: Json = {}
            if kind == "select":
                settings = {"options": [self.option(name, schema, value) for value in schema]}
            if kind == "number":
                settings = {"format": "number"}
            properties[name] = {
                "id": digest("property", name)[:4],
                "name": name,
                "description": None,
                "type": kind,
                kind: settings,
            }
        return {
            "object": "data_source",
            "id": uuid_of("notion data source", key),
            "cover": None,
            "icon": None,
            **self.stamps(meta, None),
            "title": self.rich_text(meta["title"]),
            "description": self.rich_text(meta["description"]),
            "is_inline": False,
            "properties": properties,
            "parent": {"type": "database_id", "database_id": uuid_of("notion database", key)},
            "database_parent": {"type": "page_id", "page_id": page_id(meta["parent"])},
            "url": "https://app.notion.com/p/" + uuid_of("notion database", key).replace("-", ""),
            "public_url": None,
            "in_trash": False,
            "archived": False,
        }

    def children_answers(self, page: PageSource) -> Iterator[Json]:
        """The answers that list a page's blocks, then those of each block with children."""
        subpages = [
            child
            for child in self.state.pages.values()
            if child.meta.get("parent") == page.key and child.key not in self.state.trashed
        ]
        parent = {"type": "page_id", "page_id": page_id(page.key)}
        yield from self.level(page, parent, page.blocks, "", subpages)

    def level(
        self,
        page: PageSource,
        parent: Json,
        blocks: list[Block],
        path: str,
        subpages: list[PageSource],
    ) -> Iterator[Json]:
        """One level of blocks as list answers, depth first."""
        identities = [self.block_id(page, block, f"{path}/{i}") for i, block in enumerate(blocks)]
        objects = [
            self.block(page, parent, identity, block, f"{path}/{i}")
            for i, (identity, block) in enumerate(zip(identities, blocks, strict=True))
        ]
        yield from self.answers(parent, objects + [self.child_page(parent, p) for p in subpages])
        for i, (identity, block) in enumerate(zip(identities, blocks, strict=True)):
            if block.children:
                below = {"type": "block_id", "block_id": identity}
                yield from self.level(page, below, block.children, f"{path}/{i}", [])

    def answers(self, parent: Json, objects: list[Json]) -> Iterator[Json]:
        """Cut one parent's children into answers; the cursor names the block that follows."""
        for start in range(0, len(objects), PAGE_SIZE):
            following = objects[start + PAGE_SIZE :]
            yield {
                "object": "list",
                "results": objects[start : start + PAGE_SIZE],
                "next_cursor": following[0]["id"] if following else None,
                "has_more": bool(following),
                "type": "block",
                "block": {},
                "request_id": uuid_of("request", self.state.label, str(parent), str(start)),
            }

    def block_id(self, page: PageSource, block: Block, path: str) -> str:
        """An id that an edit inside the block or at the page's end leaves alone."""
        if block.kind == "synced_block":
            return uuid_of("notion synced block", block.text)
        if block.kind == "child_database":
            return uuid_of("notion database", block.text)
        return uuid_of("notion block", page.key, path)

    def block(self, page: PageSource, parent: Json, identity: str, block: Block, path: str) -> Json:
        """A block object of any kind the story uses."""
        kind = "synced_block" if block.kind == "synced_copy" else block.kind
        written = (page.meta["created"], page.meta["author"])
        return {
            "object": "block",
            "id": identity,
            "parent": parent,
            **self.stamps(page.meta, self.state.edited_blocks.get((page.key, path), written)),
            "has_children": bool(block.children) or block.kind == "synced_copy",
            "in_trash": False,
            "type": kind,
            kind: self.block_content(block),
            "archived": False,
        }

    def block_content(self, block: Block) -> Json:
        """What stands under the key that is named like the block's type."""
        kind, text = block.kind, block.text
        if kind in WITHOUT_RICH_TEXT:
            return {"color": "gray"} if kind == "table_of_contents" else {}
        if kind == "column":
            return {"width_ratio": 0.5}
        if kind == "table":
            width = len(cells(block.children[0].text))
            header = block.argument == "header"
            return {"table_width": width, "has_column_header": header, "has_row_header": False}
        if kind == "table_row":
            return {"cells": [self.rich_text(cell) for cell in cells(text)]}
        if kind == "synced_block":
            return {"synced_from": None}
        if kind == "synced_copy":
            if text not in self.sync_owners:
                raise ValueError(f"no synced block {text}")
            original = uuid_of("notion synced block", text)
            return {"synced_from": {"type": "block_id", "block_id": original}}
        if kind == "child_database":
            return {"title": self.databases[text]["title"]}
        if kind == "equation":
            return {"expression": text}
        if kind in ("image", "file", "bookmark"):
            return self.media(kind, *(part.strip() for part in text.partition("|")[::2]))
        if kind == "code":
            code = [self.text_object(text, "", frozenset())]
            return {"caption": [], "rich_text": code, "language": block.argument or "plain text"}
        return {"rich_text": self.rich_text(text), "color": "default"} | self.extras(block)

    def extras(self, block: Block) -> Json:
        """Fields that only some of the blocks with rich text have."""
        if block.kind == "to_do":
            return {"checked": block.argument == "x"}
        if block.kind == "callout":
            return {
                "icon": {"type": "emoji", "emoji": block.argument},
                "color": "gray_background",
            }
        if block.kind.startswith("heading"):
            return {"is_toggleable": False}
        return {}

    def media(self, kind: str, target: str, caption: str) -> Json:
        """An image or file hosted by Notion under a URL signed anew each time, or a bookmark."""
        if kind == "bookmark":
            return {"caption": self.rich_text(caption), "url": target}
        hosted = {
            "url": self.signed_url(target),
            "expiry_time": iso(self.state.exported_at + timedelta(hours=1)),
        }
        content = {"caption": self.rich_text(caption), "type": "file", "file": hosted}
        return content | ({"name": target} if kind == "file" else {})

    def signed_url(self, name: str) -> str:
        """The form of an S3 URL with an expiring signature."""
        signed_at = self.state.exported_at.strftime("%Y%m%dT%H%M%SZ")
        scope = f"EXAMPLEKEY%2F{signed_at[:8]}%2Fus-west-2%2Fs3%2Faws4_request"
        place = f"{uuid_of('notion workspace')}/{uuid_of('notion file', name)}/{name}"
        return (
            f"https://prod-files-secure.s3.us-west-2.amazonaws.com/{place}"
            "?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Content-Sha256=UNSIGNED-PAYLOAD"
            f"&X-Amz-Credential={scope}&X-Amz-Date={signed_at}&X-Amz-Expires=3600"
            f"&X-Amz-Signature={digest('signature', name, signed_at)}"
            "&X-Amz-SignedHeaders=host&x-id=GetObject"
        )

    def child_page(self, parent: Json, child: PageSource) -> Json:
        """The block by which a page lists a page below it; it has that page's id."""
        return {
            "object": "block",
            "id": page_id(child.key),
            "parent": parent,
            **self.stamps(child.meta, self.state.edited.get(child.key)),
            "has_children": True,
            "in_trash": False,
            "type": "child_page",
            "child_page": {"title": child.meta["title"]},
            "archived": False,
        }

    def rich_text(self, text: str) -> list[Json]:
        """Inline marks as rich text objects."""
        return [
            self.mention(span.target)
            if span.kind == "mention"
            else self.text_object(span.text, span.target, span.marks)
            for span in spans(text)
        ]

    def text_object(self, content: str, target: str, marks: frozenset[str]) -> Json:
        """A run of text, linked or not."""
        if target.startswith("page:"):
            self.known(target[5:])
        url = address(target) or None
        return {
            "type": "text",
            "text": {"content": content, "link": {"url": url} if url else None},
            "annotations": annotations(marks),
            "plain_text": content,
            "href": url,
        }

    def mention(self, target: str) -> Json:
        """A mention of a user, a page or a date; its plain text is what Notion shows."""
        kind, _, value = target.partition(":")
        href = None
        if kind == "user":
            content: Json = {"type": "user", "user": self.user(value)}
            shown = "@" + self.company.people[value].name
        elif kind == "page":
            content = {"type": "page", "page": {"id": page_id(self.known(value))}}
            shown, href = self.state.pages[value].meta["title"] or "Untitled", page_url(value)
        else:
            start, _, end = value.partition("/")
            day = {"start": start, "end": end or None, "time_zone": None}
            content = {"type": "date", "date": day}
            shown = f"{start} → {end}" if end else start
        return {
            "type": "mention",
            "mention": content,
            "annotations": annotations(frozenset()),
            "plain_text": shown,
            "href": href,
        }

    def known(self, key: str) -> str:
        """The key of a page, checked."""
        if key not in self.state.pages:
            raise ValueError(f"no page {key}")
        return key


def annotations(marks: frozenset[str]) -> Json:
    """All five marks and the colour, as the API always spells them out."""
    return {name: name in marks for name in ANNOTATIONS} | {"color": "default"}
