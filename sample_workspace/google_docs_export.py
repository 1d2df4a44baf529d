"""Writes documents of the story as the Google Docs and Drive APIs answer.

A document is a file below `story/google_docs/`: front matter (`title`, `owner`, `created`,
`modified`, `editor`, `folder`, and `shared`: `domain`, `anyone`, or people with their roles), then
the marks of `notion_markup.py`, of which Docs knows headings, lists, tables, quotes, code, rules,
`{toc}` and `{image: file | caption}`. Further marks:

    === Title of a tab                @[user:key] @[date:2026-09-30]   chips
    ==== Title of a tab inside it     @[doc:key]                       a chip that links a document
    {++inserted++} {--deleted--}      suggestions that nobody has accepted yet
    [^name], and a line `[^name]: …`  a footnote

`documents.get?includeTabsContent=true` gives a document, `files.list` its metadata. Indexes count
UTF-16 code units, anew in each tab and each footnote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from company import Company, digest, iso, moment
from links import document_id, document_url, linked
from notion_markup import Block, PageSource, cells, parse_blocks, read_pages, spans
from slack_export import SlackState

Json = dict[str, Any]

TAB = re.compile(r"(?P<depth>={3,}) (?P<title>.+)$")
FOOTNOTE = re.compile(r"\[\^(?P<name>\w+)\]: (?P<text>.*)$")
INLINE = re.compile(
    r"\{\+\+(?P<inserted>.+?)\+\+\}|\{--(?P<deleted>.+?)--\}|\[\^(?P<footnote>\w+)\]"
)
LISTS = {"bulleted_list_item": "●", "numbered_list_item": "DECIMAL", "to_do": "☐"}
NUMBERED = ["DECIMAL", "ALPHA", "ROMAN"]
MIME_TYPE = "application/vnd.google-apps.document"
STYLES = ["NORMAL_TEXT", "TITLE", "HEADING_1", "HEADING_2", "HEADING_3"]


@dataclass
class GoogleDocsState:
    """The documents at one moment: their texts, who may read them, and which are in the bin."""

    exported_at: datetime
    documents: dict[str, PageSource]
    trashed: dict[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, exported_at: datetime) -> GoogleDocsState:
        """The state that the story's files tell."""
        return cls(exported_at, read_pages(folder))

    def change(self, changes: Json, folder: Path, exported_at: datetime) -> GoogleDocsState:
        """The state after the section `google_docs` of a `changes/*.yaml` and new files."""
        documents = {
            key: PageSource(key, dict(document.meta), document.body)
            for key, document in self.documents.items()
        }
        for edit in changes.get("edits", []):
            document = documents[edit["document"]]
            if document.body.count(edit["replace"]) != 1:
                raise ValueError(f"{document.key}: the text is not there exactly once")
            document.body = document.body.replace(edit["replace"], edit["with"])
            document.meta |= {"modified": edit["at"], "editor": edit["by"]}
        for key, people in changes.get("shared_with", {}).items():
            documents[key].meta["shared"] = documents[key].meta["shared"] | people
        trashed = dict.fromkeys(changes["trash"], (changes["moved_at"], changes["moved_by"]))
        return GoogleDocsState(exported_at, documents | read_pages(folder), self.trashed | trashed)


@dataclass
class Text:
    """A run of text, or a chip, which stands for one character."""

    content: str
    style: Json
    chip: tuple[str, Json] | None = None
    suggested: Json = field(default_factory=dict)


class GoogleDocsWriter:
    """Turns one state into API answers."""

    def __init__(self, company: Company, state: GoogleDocsState, slack: SlackState) -> None:
        self.company = company
        self.state = state
        self.slack = slack

    def files(self) -> dict[str, Any]:
        """Content of every file of the export by its name; lists become JSON lines."""
        documents = self.state.documents
        return {
            "export.json": {"exported_at": iso(self.state.exported_at), "complete": True},
            "files.jsonl": [self.file(document) for document in documents.values()],
            **{
                f"{document_id(key)}.json": self.document(document)
                for key, document in documents.items()
                if key not in self.state.trashed
            },
        }

    def file(self, document: PageSource) -> Json:
        """A file's metadata in Drive, its permissions among them."""
        meta, key = document.meta, document.key
        trashed = self.state.trashed.get(key)
        entry = {
            "kind": "drive#file",
            "id": document_id(key),
            "name": meta["title"],
            "mimeType": MIME_TYPE,
            "createdTime": iso(moment(meta["created"])),
            "modifiedTime": iso(moment(meta["modified"])),
            "owners": [self.user(meta["owner"])],
            "lastModifyingUser": self.user(meta["editor"]),
            "permissions": list(self.permissions(meta)),
            "parents": [drive_id("folder", meta["folder"])],
            "webViewLink": document_url(key) + "?usp=drivesdk",
            "trashed": bool(trashed),
        }
        if trashed:
            at, by = trashed
            entry |= {"explicitlyTrashed": True, "trashedTime": iso(moment(at))}
            entry |= {"trashingUser": self.user(by)}
        return entry

    def user(self, key: str) -> Json:
        """A Drive user."""
        person = self.company.people[key]
        return {
            "kind": "drive#user",
            "displayName": person.name,
            "me": False,
            "permissionId": permission_id(key),
            "emailAddress": person.email(self.company.domain),
        }

    def permissions(self, meta: Json) -> Iterator[Json]:
        """Who may do what: the owner, then the company, anyone, or the people named."""
        yield self.permission(meta["owner"], "owner")
        shared = meta["shared"]
        if shared == "domain":
            yield {
                "kind": "drive#permission",
                "id": permission_id(self.company.domain) + "k",
                "type": "domain",
                "role": "commenter",
                "domain": self.company.domain,
                "displayName": self.company.name,
                "allowFileDiscovery": True,
            }
        elif shared == "anyone":
            yield {
                "kind": "drive#permission",
                "id": "anyoneWithLink",
                "type": "anyone",
                "role": "reader",
                "allowFileDiscovery": False,
            }
        else:
            for key, role in shared.items():
                yield self.permission(key, role)

    def permission(self, key: str, role: str) -> Json:
        """What one person may do."""
        person = self.company.people[key]
        return {
            "kind": "drive#permission",
            "id": permission_id(key),
            "type": "user",
            "role": role,
            "emailAddress": person.email(self.company.domain),
            "displayName": person.name,
            "deleted": False,
        }

    def document(self, document: PageSource) -> Json:
        """A document as `documents.get?includeTabsContent=true` answers it."""
        tabs: list[Json] = []
        parents: list[Json] = []
        for depth, title, body in split_tabs(document.body):
            place = [str(len(parent.get("childTabs", []))) for parent in parents[:depth]]
            is_first = not tabs
            siblings = parents[depth - 1].setdefault("childTabs", []) if depth else tabs
            name = "t.0" if is_first else "t." + digest(document.key, title, *place)[:12]
            properties: Json = {"tabId": name, "title": title, "index": len(siblings)}
            if depth:
                properties["parentTabId"] = parents[depth - 1]["tabProperties"]["tabId"]
                properties["nestingLevel"] = depth
            writer = TabWriter(self, f"{document.key}/{name}")
            lines = linked(body, self.slack).splitlines()
            heading = document.meta["title"] if is_first else None
            tab = {"tabProperties": properties, "documentTab": writer.content(lines, heading)}
            siblings.append(tab)
            parents[depth:] = [tab]
        return {
            "title": document.meta["title"],
            "revisionId": drive_id("revision", document.key, str(document.meta["modified"])),
            "suggestionsViewMode": "SUGGESTIONS_INLINE",
            "documentId": document_id(document.key),
            "tabs": tabs,
        }


class TabWriter:
    """Writes the content of one tab: an element after the other, each with its place."""

    def __init__(self, writer: GoogleDocsWriter, name: str) -> None:
        self.writer = writer
        self.name = name
        self.at = 0
        self.lists: Json = {}
        self.images: Json = {}
        self.footnotes: Json = {}
        self.notes: dict[str, str] = {}

    def content(self, lines: list[str], title: str | None) -> Json:
        """The tab's `documentTab`."""
        for line in lines:
            if found := FOOTNOTE.match(line):
                self.notes[found["name"]] = found["text"]
        blocks = parse_blocks([line for line in lines if not FOOTNOTE.match(line)])
        self.at = 1
        section = {"columnSeparatorStyle": "NONE", "contentDirection": "LEFT_TO_RIGHT"}
        section["sectionType"] = "CONTINUOUS"
        elements: list[Json] = [{"endIndex": 1, "sectionBreak": {"sectionStyle": section}}]
        if title:
            elements.append(self.paragraph(title, "TITLE"))
        elements += self.elements(blocks)
        if "table" in elements[-1] or "tableOfContents" in elements[-1]:
            elements.append(self.paragraph(""))
        styles = [{"namedStyleType": s, "textStyle": {}, "paragraphStyle": {}} for s in STYLES]
        tab = {
            "body": {"content": elements},
            "documentStyle": {"background": {"color": {}}, "pageNumberStart": 1},
            "namedStyles": {"styles": styles},
            "lists": self.lists,
            "inlineObjects": self.images,
            "footnotes": self.footnotes,
        }
        return {name: value for name, value in tab.items() if value}

    def elements(self, blocks: list[Block]) -> Iterator[Json]:
        """The structural elements of blocks."""
        list_id, list_kind = "", ""
        for i, block in enumerate(blocks):
            if block.kind in LISTS:
                if block.kind != list_kind:
                    list_id, list_kind = self.identity("list", str(self.at)), block.kind
                    self.lists[list_id] = list_properties(levels(blocks[i:]))
                yield from self.items(block, list_id, 0)
                continue
            list_kind = ""
            if block.kind == "table":
                yield self.table(block)
            elif block.kind == "table_of_contents":
                yield self.contents([b for b in blocks if b.kind.startswith("heading")])
            else:
                yield from self.prose(block)

    def items(self, block: Block, list_id: str, level: int) -> Iterator[Json]:
        """A list's item, and the items below it."""
        bullet: Json = {"listId": list_id} | ({"nestingLevel": level} if level else {})
        yield self.paragraph(block.text, bullet=bullet | {"textStyle": {}})
        for child in block.children:
            if child.kind not in LISTS:
                raise ValueError(f"{self.name}: a {child.kind} inside a list")
            yield from self.items(child, list_id, level + 1)

    def prose(self, block: Block) -> Iterator[Json]:
        """A heading, a paragraph, or what Docs has instead of other blocks."""
        if block.kind.startswith("heading"):
            yield self.paragraph(block.text, f"HEADING_{block.kind[-1]}")
        elif block.kind == "code":
            style = {"weightedFontFamily": {"fontFamily": "Roboto Mono", "weight": 400}}
            for line in block.text.splitlines():
                yield self.placed_paragraph([Text(line, style)])
        elif block.kind == "divider":
            yield self.placed_paragraph([Text("", {}, ("horizontalRule", {}))])
        elif block.kind == "image":
            name, _, caption = block.text.partition("|")
            yield self.placed_paragraph([Text("", {}, self.image(name.strip(), caption.strip()))])
        elif block.kind in ("paragraph", "quote"):
            indent = (
                {"indentStart": {"magnitude": 36, "unit": "PT"}} if block.kind == "quote" else {}
            )
            yield self.paragraph(block.text, extra=indent)
        else:
            raise ValueError(f"{self.name}: Docs has no {block.kind}")

    def paragraph(
        self,
        text: str,
        style: str = "NORMAL_TEXT",
        *,
        bullet: Json | None = None,
        extra: Json | None = None,
    ) -> Json:
        """A paragraph of inline marks."""
        return self.placed_paragraph(list(self.inline(text)), style, bullet=bullet, extra=extra)

    def placed_paragraph(
        self,
        texts: list[Text],
        style: str = "NORMAL_TEXT",
        *,
        bullet: Json | None = None,
        extra: Json | None = None,
    ) -> Json:
        """A paragraph of runs, which ends with a line feed in its last one."""
        start = self.at
        last = texts[-1] if texts else None
        if last and not last.chip and not last.suggested and "link" not in last.style:
            last.content += "\n"
        else:
            texts = [*texts, Text("\n", {})]
        elements = [self.placed(text) for text in texts]
        properties: Json = {"namedStyleType": style, "direction": "LEFT_TO_RIGHT"}
        if style.startswith(("HEADING", "TITLE")):
            properties["headingId"] = self.heading_id("".join(text.content for text in texts))
        paragraph = {"elements": elements, "paragraphStyle": properties | (extra or {})}
        if bullet:
            paragraph["bullet"] = bullet
        return indexed(start, self.at, paragraph=paragraph)

    def placed(self, text: Text) -> Json:
        """A run or a chip with its place."""
        start = self.at
        if text.chip:
            self.at += 1
            kind, content = text.chip
            return indexed(start, self.at, **{kind: content | {"textStyle": text.style}})
        self.at += len(text.content.encode("utf-16-le")) // 2
        run = {"content": text.content, **text.suggested, "textStyle": text.style}
        return indexed(start, self.at, textRun=run)

    def inline(self, text: str) -> Iterator[Text]:
        """Inline marks as runs and chips."""
        at = 0
        for found in INLINE.finditer(text):
            yield from self.runs(text[at : found.start()])
            at = found.end()
            if found["footnote"]:
                yield Text("", {}, self.footnote(found["footnote"]))
                continue
            kind = "Insertion" if found["inserted"] else "Deletion"
            content = found["inserted"] or found["deleted"]
            identity = "suggest." + digest(self.name, content)[:12]
            yield Text(content, {}, suggested={f"suggested{kind}Ids": [identity]})
        yield from self.runs(text[at:])

    def runs(self, text: str) -> Iterator[Text]:
        """Runs of text that are set alike, and chips."""
        for span in spans(text):
            if span.kind == "mention":
                yield Text("", {}, self.chip(span.target))
                continue
            style: Json = dict.fromkeys(sorted(span.marks - {"code"}), True)
            if "code" in span.marks:
                style["weightedFontFamily"] = {"fontFamily": "Roboto Mono", "weight": 400}
            if span.target:
                style |= {"underline": True, "link": {"url": span.target}}
            yield Text(span.text, style)

    def chip(self, target: str) -> tuple[str, Json]:
        """A person, a date, or a link to another document."""
        kind, _, value = target.partition(":")
        identity = self.identity(kind, value, str(self.at))
        if kind == "user":
            person = self.writer.company.people[value]
            email = person.email(self.writer.company.domain)
            properties = {"name": person.name, "email": email}
            return "person", {"personId": identity, "personProperties": properties}
        if kind == "date":
            shown = moment(value)
            properties = {
                "timestamp": f"{value}T12:00:00Z",
                "locale": "en",
                "dateFormat": "DATE_FORMAT_MONTH_DAY_YEAR_ABBREVIATED",
                "timeFormat": "TIME_FORMAT_DISABLED",
                "displayText": f"{shown:%b} {shown.day}, {shown.year}",
            }
            return "dateElement", {"dateId": identity, "dateElementProperties": properties}
        title = self.writer.state.documents[value].meta["title"]
        properties = {"title": title, "uri": document_url(value), "mimeType": MIME_TYPE}
        return "richLink", {"richLinkId": identity, "richLinkProperties": properties}

    def footnote(self, name: str) -> tuple[str, Json]:
        """A reference, and the footnote with indexes of its own."""
        identity = self.identity("footnote", name)
        after, self.at = self.at, 0
        content = [self.paragraph(" " + self.notes[name])]
        self.at = after
        self.footnotes[identity] = {"footnoteId": identity, "content": content}
        return "footnoteReference", {
            "footnoteId": identity,
            "footnoteNumber": str(len(self.footnotes)),
        }

    def image(self, name: str, caption: str) -> tuple[str, Json]:
        """An inline image, under an address that is made anew for each answer."""
        identity = self.identity("image", name)
        signature = digest("content", name, iso(self.writer.state.exported_at))[:40]
        uri = (
            f"https://lh7-rt.googleusercontent.com/docsz/{drive_id('image', name)}?key={signature}"
        )
        size = {
            "height": {"magnitude": 180, "unit": "PT"},
            "width": {"magnitude": 420, "unit": "PT"},
        }
        embedded = {"title": name, "description": caption, "imageProperties": {"contentUri": uri}}
        properties = {"embeddedObject": embedded | {"size": size}}
        self.images[identity] = {"objectId": identity, "inlineObjectProperties": properties}
        return "inlineObjectElement", {"inlineObjectId": identity}

    def table(self, block: Block) -> Json:
        """A table; rows and cells have places as well, one further than where they begin."""
        start = self.at
        self.at += 1
        rows = [cells(row.text) for row in block.children]
        placed = [
            self.row(row, is_header=block.argument == "header" and i == 0)
            for i, row in enumerate(rows)
        ]
        self.at += 1
        width = {"widthType": "EVENLY_DISTRIBUTED"}
        table = {
            "rows": len(rows),
            "columns": len(rows[0]),
            "tableRows": placed,
            "tableStyle": {"tableColumnProperties": [width for _ in rows[0]]},
        }
        return indexed(start, self.at, table=table)

    def row(self, texts: list[str], *, is_header: bool) -> Json:
        """A row of cells, each of one paragraph."""
        start = self.at
        self.at += 1
        placed = []
        for text in texts:
            cell_start = self.at
            self.at += 1
            content = [self.paragraph(f"**{text}**" if is_header and text else text)]
            style = {"rowSpan": 1, "columnSpan": 1, "backgroundColor": {}}
            placed.append(indexed(cell_start, self.at, content=content, tableCellStyle=style))
        style = {"minRowHeight": {"unit": "PT"}} | ({"tableHeader": True} if is_header else {})
        return indexed(start, self.at, tableCells=placed, tableRowStyle=style)

    def contents(self, headings: list[Block]) -> Json:
        """A table of contents: the headings again, one a line."""
        start = self.at
        self.at += 1
        content = []
        for heading in headings:
            target = {"id": self.heading_id(heading.text), "tabId": self.name.rpartition("/")[2]}
            style = {"underline": True, "link": {"heading": target}}
            content.append(self.placed_paragraph([Text(heading.text, style)]))
        self.at += 1
        return indexed(start, self.at, tableOfContents={"content": content})

    def heading_id(self, text: str) -> str:
        """Id of a heading, by which the table of contents leads to it."""
        return "h." + digest(self.name, text.strip())[:12]

    def identity(self, *names: str) -> str:
        """An id as Docs gives to what stands inside a document."""
        return "kix." + digest(self.name, *names)[:12]


def indexed(start: int, end: int, **content: Any) -> Json:
    """An element with its place; an index of zero is left out, as the API does."""
    return ({"startIndex": start} if start else {}) | {"endIndex": end} | content


def split_tabs(body: str) -> Iterator[tuple[int, str, str]]:
    """Depth, title and text of each tab; a document without marks has one."""
    depth, title, lines = 0, "Tab 1", list[str]()
    for line in body.splitlines():
        if found := TAB.match(line):
            if any(text.strip() for text in lines):
                yield depth, title, "\n".join(lines)
            depth, title, lines = len(found["depth"]) - 3, found["title"], []
        else:
            lines.append(line)
    yield depth, title, "\n".join(lines)


def levels(blocks: list[Block]) -> list[str]:
    """The kind of each level of the list that the first block begins."""
    kinds: list[str] = []

    def look(block: Block, level: int) -> None:
        if level == len(kinds):
            kinds.append(block.kind)
        if kinds[level] != block.kind:
            raise ValueError(f"two kinds of items on one level: {block.text[:40]}")
        for child in block.children:
            look(child, level + 1)

    for block in blocks:
        if block.kind != blocks[0].kind:
            break
        look(block, 0)
    return kinds


def list_properties(kinds: list[str]) -> Json:
    """How the levels of a list are numbered."""
    nesting = []
    for level, kind in enumerate(kinds):
        glyph: Json = {"glyphFormat": f"%{level}", "startNumber": 1}
        if kind == "numbered_list_item":
            glyph |= {"glyphType": NUMBERED[level % 3], "glyphFormat": f"%{level}."}
        elif kind == "to_do":
            glyph["glyphType"] = "GLYPH_TYPE_UNSPECIFIED"
        else:
            glyph["glyphSymbol"] = LISTS[kind]
        nesting.append({"bulletAlignment": "START", **glyph, "textStyle": {"underline": False}})
    return {"listProperties": {"nestingLevels": nesting}}


def permission_id(key: str) -> str:
    """Id of a permission: twenty digits."""
    return f"{int(digest('google permission', key), 16) % 10**20:020d}"


def drive_id(*names: str) -> str:
    """An id of Drive's other things, of 33 letters."""
    return "0A" + document_id("/".join(names))[1:32]
