"""Notion's export as Markdown and CSV: a ZIP, perhaps of further ZIPs, or what it unpacks to.

A page is `Title <id>.md`, its children lie in a folder of its name, a database is `Name <id>.csv`
with its rows as pages in such a folder. Titles in names are cut short and may be there twice: the
id tells. Pages become payloads in the shape of the API's, with `markdown` in the place of blocks.
"""

from __future__ import annotations

import csv
import io
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from dlt_sources.archives import Archive, DamagedMemberError, Files, Folder
from dlt_sources.json_files import EXPORT_FILE, MAX_FIELD_BYTES, exported_at
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from loreline.errors import LorelineError

Json = dict[str, Any]

_NAME = re.compile(r"(?:(?P<title>.*) )?(?P<id>[0-9a-f]{32})(?P<all>_all)?\.(?P<kind>md|csv)")
_PART = re.compile(r"Export-[^/]*\.zip|[^/]*Part-\d+\.zip", re.IGNORECASE)
# The folder that an unpacked part is called by.
_PART_FOLDER = re.compile(r"Export-[0-9a-f-]+(-Part-\d+)?|[^/]*Part-\d+", re.IGNORECASE)
_PROPERTY = re.compile(r"(?P<name>[^\s:][^:]{0,199}):(?: (?P<value>.*))?")
# `Title (path/Title%20<id>.md)`, as relations are written; several with commas between them.
_RELATED = re.compile(r"[^,()]*\(\S*?([0-9a-f]{32})(?:\.md|\.csv)?(?:\?\S*)?\)")
_MONTHS = "January February March April May June July August September October November December"
_DATE = re.compile(
    rf"(?P<month>{'|'.join(_MONTHS.split())}) (?P<day>\d{{1,2}}), (?P<year>\d{{4}})"
    r"(?: (?P<hour>\d{1,2}):(?P<minute>\d\d) (?P<half>AM|PM))?"
)


@dataclass
class _Entry:
    """A page or a database: its file, and what its name says."""

    files: Files
    name: str
    path: PurePosixPath
    id: str
    title: str


@dataclass
class _Database:
    """What the CSV of a database says: its columns, and its rows by their titles."""

    columns: list[str] = field(default_factory=list)
    rows: dict[str, list[Json]] = field(default_factory=dict)


class MarkdownExport:
    """One export.

    Args:
        location: the ZIP or the folder.
        folder: where to put the ZIPs that are inside of a ZIP.
        observed_at: when the export was made; the newest file tells, where nobody says it.

    Raises:
        LorelineError: the ZIP cannot be read, or is a dangerous one.
    """

    def __init__(self, location: Path, folder: Path, observed_at: datetime | None) -> None:
        self.rejects: list[Reject] = []
        self.pages: dict[str, _Entry] = {}
        self.tables: dict[str, _Entry] = {}
        # Ids of the pages and databases that a folder may be called after.
        self._named: defaultdict[PurePosixPath, set[tuple[str, str]]] = defaultdict(set)
        self.others = 0
        opened = list(self._opened(location, folder))
        for files in opened:
            self._index(files)
        told = location / EXPORT_FILE
        if observed_at is None and told.is_file():
            observed_at = exported_at(told.read_bytes(), str(told))
        self._observed_at = observed_at
        self._opened_files = [files for files in opened if files.names]
        self._database = lru_cache(maxsize=1)(self._read_database)

    @property
    def is_empty(self) -> bool:
        """Whether no page and no database was found."""
        return not self.pages and not self.tables

    @property
    def observed_at(self) -> datetime:
        """When the export was made."""
        return self._observed_at or max(files.newest() for files in self._opened_files)

    def observations(self) -> Iterator[Observation | Reject]:
        """The pages, rows of databases among them, then what had to be set aside."""
        with_page: defaultdict[str, set[str]] = defaultdict(set)
        # Rows of one database after each other: its CSV is read once.
        for page in sorted(self.pages.values(), key=lambda page: (page.path.parent, page.name)):
            item = self._page(page, with_page)
            if isinstance(item, Reject) and (database := self._parent(page)):
                # Its row has a page, whatever cannot be read of it.
                with_page[database[1]].add(page.title)
            yield item
        for identity, table in self.tables.items():
            yield from self._rows_without_page(table, with_page[identity])
        yield from self.rejects

    def _opened(self, location: Path, folder: Path) -> Iterator[Files]:
        """The export itself and the ZIPs that it consists of."""
        if location.is_dir():
            files = Folder(location, ".md", ".csv")
            yield files
            parts = [path for path in sorted(location.glob("*.zip")) if _PART.fullmatch(path.name)]
            self.others += files.others - len(parts) - (location / EXPORT_FILE).is_file()
        else:
            archive = Archive(location, ".md", ".csv", ".zip")
            names = [name for name in archive.names if name.endswith(".zip")]
            # Those in folders are attachments.
            nested = [name for name in names if _PART.fullmatch(name)]
            archive.names = [name for name in archive.names if name not in set(names)]
            self.others += archive.others + len(names) - len(nested)
            yield archive
            parts = []
            for number, name in enumerate(sorted(nested)):
                part = folder / f"part-{number}.zip"
                try:
                    archive.copy(name, part)
                except DamagedMemberError as error:
                    self.rejects.append(Reject("broken_archive", error.what, b"", name))
                    continue
                parts.append(part)
        for part in parts:
            files = Archive(part, ".md", ".csv")
            self.others += files.others
            yield files

    def _index(self, files: Files) -> None:
        for name in sorted(files.names):
            path = PurePosixPath(name)
            if len(path.parts) > 1 and _PART_FOLDER.fullmatch(path.parts[0]):
                path = path.relative_to(path.parts[0])
            found = _NAME.fullmatch(path.name)
            if not found:
                self._set_aside(files, name)
                continue
            entry = _Entry(files, name, path, _dashed(found["id"]), found["title"] or "")
            kind = "database_id" if found["kind"] == "csv" else "page_id"
            known = self.pages if kind == "page_id" else self.tables
            # All rows and columns are in `_all`; the other CSV is of one view.
            if entry.id not in known or found["all"]:
                known[entry.id] = entry
            # Folders are called by title and id, in newer exports by the title alone.
            for called in (f"{entry.title} {found['id']}".strip(), entry.title):
                self._named[path.parent / called].add((kind, entry.id))

    def _set_aside(self, files: Files, name: str) -> None:
        try:
            raw = files.read(name)[:]
        except DamagedMemberError:
            raw = b""
        detail = "its name holds no id of a page or database"
        self.rejects.append(Reject("missing_id", detail, raw, name))

    def _parent(self, page: _Entry) -> tuple[str, str] | None:
        """Kind and id of what a page lies in; None at the top, or where two have the name."""
        named = self._named.get(page.path.parent, set()) - {("page_id", page.id)}
        return next(iter(named)) if len(named) == 1 else None

    def _page(self, page: _Entry, with_page: defaultdict[str, set[str]]) -> Observation | Reject:
        text = _text_of(page.files, page.name)
        if isinstance(text, Reject):
            return Reject(text.reason, text.detail, text.raw, text.origin, "pages", page.id)
        title, markdown = _without_title(text, page.title)
        parent = self._parent(page)
        properties: Json = {"title": {"type": "title", "title": [{"plain_text": title}]}}
        if parent and parent[0] == "database_id":
            database = self._database(parent[1])
            with_page[parent[1]].add(title)
            said, markdown = _without_properties(markdown, database.columns)
            rows = database.rows.get(title, [])
            values = {**(rows[0] if len(rows) == 1 else {}), **said}
            properties |= {name: _value(value) for name, value in values.items() if value}
        told: Json = {"object": "page", "id": page.id, "properties": properties}
        if parent:
            told["parent"] = {"type": parent[0], parent[0]: parent[1]}
        payload = {"page": told, "markdown": markdown, "path": page.path.as_posix()}
        return Observation(page.id, payload, self.observed_at, origin=page.name)

    def _read_database(self, identity: str) -> _Database:
        table = self.tables[identity]
        text = _text_of(table.files, table.name)
        if isinstance(text, Reject):
            self.rejects.append(text)
            return _Database()
        try:
            columns, *rows = [row for row in csv.reader(io.StringIO(text)) if row] or [[]]
        except csv.Error as error:
            raw = text.encode()
            self.rejects.append(Reject("broken_csv", str(error), raw, table.name))
            return _Database()
        found = _Database([name for name in columns if name])
        for row in rows:
            # The first column is the title.
            values = dict(zip(columns[1:], row[1:], strict=False))
            found.rows.setdefault(" ".join(row[0].split()), []).append(values)
        return found

    def _rows_without_page(self, table: _Entry, with_page: set[str]) -> Iterator[Reject]:
        database = self._database(table.id)
        missing = [title for title in database.rows if title not in with_page]
        if missing:
            detail = f"{len(missing)} rows have no page of their own, which has their id and text"
            yield Reject("missing_page", detail, orjson.dumps(missing), table.name, "pages")


def find_export(
    location: Path, folder: Path, observed_at: datetime | None
) -> MarkdownExport | None:
    """The export at a location; None where there is none.

    Raises:
        LorelineError: the location is a ZIP that holds no page, or cannot be read.
    """
    is_zip = location.suffix.lower() == ".zip" or zipfile.is_zipfile(location)
    if not location.exists() or (location.is_file() and not is_zip):
        return None
    export = MarkdownExport(location, folder, observed_at)
    if not export.is_empty:
        return export
    if location.is_file():
        raise LorelineError(
            f"{location} holds no page of Notion (no file such as `Title <32 hex digits>.md`)",
            "export as Markdown & CSV, and give the ZIP",
        )
    return None


def _text_of(files: Files, name: str) -> str | Reject:
    try:
        raw = files.read(name)[:]
    except DamagedMemberError as error:
        return Reject("broken_archive", error.what, b"", name)
    if len(raw) > MAX_FIELD_BYTES:
        return Reject("field_too_large", f"it is longer than {MAX_FIELD_BYTES} bytes", raw, name)
    if b"\0" in raw:
        return Reject("nul_byte", f"byte {raw.index(0)} is NUL", raw, name)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        return Reject("invalid_utf8", str(error)[:200], raw, name)
    return text.replace("\r\n", "\n")


def _without_title(text: str, named: str) -> tuple[str, str]:
    """The title, which the first heading says in full, and the rest."""
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith("# ") and first != "#":
        return named, text.strip("\n")
    title = " ".join(first[1:].split())
    return ("" if title == "Untitled" else title), rest.strip("\n")


def _without_properties(markdown: str, columns: list[str]) -> tuple[dict[str, str], str]:
    """The properties that a row's page begins with, one a line, and the rest.

    Args:
        markdown: what follows the title.
        columns: of the database; any name is one where they are not known.
    """
    head, _, rest = markdown.partition("\n\n")
    properties: dict[str, str] = {}
    name = ""
    for line in head.split("\n"):
        found = _PROPERTY.fullmatch(line)
        if found and (not columns or found["name"] in columns):
            name = found["name"]
            properties[name] = (found["value"] or "").strip()
        elif name and columns:
            # A text of several lines.
            properties[name] += f"\n{line}"
        else:
            return {}, markdown
    return properties, rest.strip("\n")


def _value(text: str) -> Json:
    """A property's value, as far as its text tells what it is, in the shape of the API's."""
    parts = [part.strip() for part in re.split(r"(?<=\)),", text)]
    related = [_RELATED.fullmatch(part) for part in parts]
    if all(related):
        ids = [{"id": _dashed(match[1])} for match in related if match]
        return {"type": "relation", "relation": ids}
    start, arrow, end = (part.strip() for part in text.partition("→"))
    moments = [_moment(start), *([_moment(end)] if arrow else [])]
    if all(moments):
        date = dict(zip(("start", "end"), moments, strict=False))
        return {"type": "date", "date": date}
    return {"type": "string", "string": text}


def _moment(text: str) -> str | None:
    """`October 1, 2026 2:30 PM` as ISO 8601; None for anything else."""
    found = _DATE.fullmatch(text)
    if not found:
        return None
    month = _MONTHS.split().index(found["month"]) + 1
    day = f"{found['year']}-{month:02}-{int(found['day']):02}"
    if not found["hour"]:
        return day
    hour = int(found["hour"]) % 12 + (12 if found["half"] == "PM" else 0)
    return f"{day}T{hour:02}:{found['minute']}"


def _dashed(identity: str) -> str:
    return "-".join(
        identity[start:end] for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
    )
