"""JSON records from files that may be broken: what cannot be read is set aside, the rest goes on.

A file is first tried whole with a fast parser. Only when that fails, or when the text holds
something that would be lost on the way (a NUL, a key given twice, a field above the limit), is it
cut into its elements by matching brackets, and each element judged for itself.
"""

from __future__ import annotations

import gzip
import json
import mmap
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import orjson

from dlt_sources.quarantine import Reject
from loreline.errors import LorelineError

MAX_FIELD_BYTES = 10 * 1024 * 1024
# What is read into memory at once, and set aside in pieces when a line is longer.
MAX_RECORD_BYTES = 64 * 1024 * 1024
EXPORT_FILE = "export.json"

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},]', re.DOTALL)
_LIST = re.compile(rb'"(?:[^"\\]|\\.)*"\s*:\s*\[')


class BadRecord(Exception):  # noqa: N818 - it is not an error of the program
    """A JSON text that must not be landed.

    Args:
        reason: one of broken_json, nested_too_deep, invalid_utf8, nul_byte, field_too_large,
            duplicate_key.
        detail: what exactly is wrong, for a person.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Record:
    """A JSON value that was read.

    Attributes:
        value: the value.
        origin: file, and line or element.
        raw: its text as received; None where it was read as part of a larger one.
    """

    value: Any
    origin: str
    raw: bytes | None = None

    def reject(self, reason: str, detail: str, **names: Any) -> Reject:
        """This record, set aside for what it says rather than for how it is written."""
        raw = self.raw if self.raw is not None else orjson.dumps(self.value)
        return Reject(reason, detail, raw, self.origin, **names)


@dataclass(frozen=True, slots=True)
class Document:
    """A JSON text: one object, an array of records, or a list answer of an API.

    Attributes:
        header: the list answer's own fields, without its elements; empty for anything else.
        records: the elements of the array or of the list answer, or the one object.
        is_list: whether the text was a list answer.
    """

    header: dict[str, Any]
    records: Iterable[Record | Reject]
    is_list: bool = False


def parse(raw: bytes) -> Any:
    """Read one JSON text, and make sure that nothing of it is lost or unstorable.

    Raises:
        BadRecord: it is not JSON in UTF-8, is nested more than 254 levels deep, or holds a NUL, a
            field above 10 MiB, or a key twice with different values.
    """
    try:
        value = orjson.loads(raw)
        written = orjson.dumps(value)
    except orjson.JSONDecodeError as error:
        raise BadRecord(*_cause(raw, error)) from None
    except TypeError as error:
        raise BadRecord("nested_too_deep", str(error)) from None
    if len(raw) > MAX_FIELD_BYTES and any(_is_too_large(s) for s in _strings(value)):
        raise BadRecord("field_too_large", f"a text is longer than {MAX_FIELD_BYTES} bytes")
    if b"\\u0000" in raw and any("\0" in s for s in _strings(value)):
        raise BadRecord("nul_byte", "a text holds the character U+0000")
    if _may_repeat_a_key(raw, written) and (key := _contradicted_key(raw)):
        raise BadRecord("duplicate_key", f"key {key!r} is given twice with different values")
    return value


def read_document(raw: bytes | mmap.mmap, origin: str, elements_key: str = "results") -> Document:
    """Read a JSON text as records; broken elements of an array are set aside one by one.

    Args:
        raw: the text.
        origin: where it came from, for messages.
        elements_key: under which a list answer of the API has its elements.
    """
    start = len(_BYTE_ORDER_MARK) if raw[:3] == _BYTE_ORDER_MARK else 0
    if len(raw) <= MAX_FIELD_BYTES:
        try:
            return _whole_document(parse(raw[start:]), origin, elements_key)
        except BadRecord:
            pass
    kind, opening = _outer_shape(raw, start, elements_key)
    if kind == "object":
        return Document({}, _read_record(raw, start, len(raw), origin))
    elements = _Elements(raw, opening, origin)
    if kind == "array":
        return Document({}, elements)
    return Document(_header(raw, start, elements, elements_key), elements, is_list=True)


def read_lines(stream: IO[bytes], origin: str) -> Iterator[tuple[bytes, str] | Reject]:
    """The lines of JSON Lines with their origins; blank ones are passed over.

    A line above the limit is set aside in pieces, so that memory stays bounded. A compressed stream
    that breaks off yields what was readable, then what was left.
    """
    number = 0
    try:
        while line := stream.readline(MAX_RECORD_BYTES):
            number += 1
            if number == 1:
                line = line.removeprefix(_BYTE_ORDER_MARK)
            place = f"{origin}:{number}"
            if len(line) == MAX_RECORD_BYTES and not line.endswith(b"\n"):
                yield from _pieces_of_line(line, stream, place)
            elif line := line.strip():
                yield line, place
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        with Path(stream.name).open("rb") as compressed:
            while piece := compressed.read(MAX_RECORD_BYTES):
                detail = f"unreadable after line {number}: {error}"
                yield Reject("broken_archive", detail, piece, origin)


def input_files(location: Path, *patterns: str) -> list[tuple[Path, str]]:
    """The files to read, by name, each with the name that it is called by in messages.

    Raises:
        LorelineError: there is nothing at the location, or no file of the kind.
    """
    if location.is_file():
        return [(location, location.name)]
    if not location.is_dir():
        raise LorelineError(f"nothing is at {location}", "give a file or a folder that exists")
    found = {
        path.relative_to(location).as_posix(): path
        for pattern in patterns
        for path in location.rglob(pattern)
        if path.is_file() and path != location / EXPORT_FILE
    }
    if not found:
        raise LorelineError(
            f"no {' or '.join(patterns)} in {location}", "give the folder that holds the export"
        )
    return [(found[name], name) for name in sorted(found)]


def open_lines(path: Path) -> IO[bytes]:
    """Open a file of lines, decompressing `.gz`."""
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def read_file(
    path: Path, origin: str, elements_key: str = "results"
) -> Iterator[Document | Reject]:
    """The documents of a `.json` file (one) or a `.jsonl` file (one a line).

    The records of a document are to be read before the next one is asked for.

    Args:
        path: the file.
        origin: what it is called in messages.
        elements_key: under which a list answer of the API has its elements.
    """
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        with open_lines(path) as stream:
            for line in read_lines(stream, origin):
                yield line if isinstance(line, Reject) else read_document(*line, elements_key)
    elif not path.stat().st_size:
        yield Reject("broken_json", "the file is empty", b"", origin)
    else:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m:
            yield read_document(m, origin, elements_key)


def _whole_document(value: Any, origin: str, elements_key: str) -> Document:
    if isinstance(value, list):
        return Document({}, [Record(v, f"{origin}[{i}]") for i, v in enumerate(value)])
    if isinstance(value, dict) and isinstance(value.get(elements_key), list):
        elements = value.pop(elements_key)
        records = [Record(v, f"{origin}[{i}]") for i, v in enumerate(elements)]
        return Document(value, records, is_list=True)
    return Document({}, [Record(value, origin)])


def _read_record(
    raw: bytes | mmap.mmap, begin: int, end: int, origin: str
) -> Iterator[Record | Reject]:
    if end - begin > MAX_RECORD_BYTES:
        for number, at in enumerate(range(begin, end, MAX_RECORD_BYTES), start=1):
            yield _piece(raw[at : min(at + MAX_RECORD_BYTES, end)], number, origin)
        return
    text = raw[begin:end].strip()
    try:
        yield Record(parse(text), origin, text)
    except BadRecord as bad:
        yield Reject(bad.reason, bad.detail, text, origin)


def _piece(raw: bytes, number: int, origin: str) -> Reject:
    detail = f"a record above {MAX_RECORD_BYTES} bytes, piece {number}"
    return Reject("record_too_large", detail, raw, origin)


def _cause(text: bytes, error: Exception) -> tuple[str, str]:
    if b"\0" in text:
        return "nul_byte", f"byte {text.index(0)} is NUL"
    try:
        text.decode()
    except UnicodeDecodeError as undecodable:
        return "invalid_utf8", str(undecodable)[:200]
    # Half of a surrogate pair, written as \ud83d, is valid JSON, yet no character of UTF-8.
    return ("invalid_utf8" if "surrogate" in str(error) else "broken_json"), str(error)


def _strings(value: Any) -> Iterator[str]:
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())


def _is_too_large(text: str) -> bool:
    return 4 * len(text) > MAX_FIELD_BYTES and len(text.encode()) > MAX_FIELD_BYTES


def _may_repeat_a_key(text: bytes, written: bytes) -> bool:
    """Whether the parser may have dropped a key: written out again, the text has fewer colons."""
    return len(text) != len(written) and (
        text.count(b":") != written.count(b":") or b"\\u003a" in text or b"\\u003A" in text
    )


def _contradicted_key(text: bytes) -> str | None:
    contradicted: list[str] = []

    def check(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen and (type(seen[key]) is not type(value) or seen[key] != value):
                contradicted.append(key)
            seen[key] = value
        return seen

    try:
        json.loads(text, object_pairs_hook=check)
    except RecursionError:
        return None
    return contradicted[0] if contradicted else None


def _outer_shape(raw: bytes | mmap.mmap, start: int, elements_key: str) -> tuple[str, int]:
    """Whether the text is an array, a list answer or one object, and where its elements begin."""
    depth, key = 0, json.dumps(elements_key).encode()
    for token in _TOKEN.finditer(raw, start):
        text = token.group()
        if depth == 0 and text == b"[":
            return "array", token.end()
        if depth == 1 and text == key and (match := _LIST.match(raw, token.start())):
            return "list", match.end()
        depth += (text in (b"[", b"{")) - (text in (b"]", b"}"))
        if depth == 0:
            break
    return "object", start


def _header(
    raw: bytes | mmap.mmap, start: int, elements: _Elements, elements_key: str
) -> dict[str, Any]:
    """The fields of a list answer around its elements."""
    try:
        header = parse(raw[start : elements.opening] + raw[elements.closing() :])
    except BadRecord:
        # Whether there is more cannot be known: as if there were.
        return {"has_more": True}
    del header[elements_key]
    return header


class _Elements:
    """The elements of an array, found by matching brackets and parsed one by one."""

    def __init__(self, raw: bytes | mmap.mmap, opening: int, origin: str) -> None:
        self.raw = raw
        self.opening = opening
        self.origin = origin

    def __iter__(self) -> Iterator[Record | Reject]:
        for number, (begin, end) in enumerate(self._spans()):
            if number or self.raw[begin:end].strip():
                yield from _read_record(self.raw, begin, end, f"{self.origin}[{number}]")

    def closing(self) -> int:
        """Where the array ends."""
        return max(end for _, end in self._spans())

    def _spans(self) -> Iterator[tuple[int, int]]:
        begin, depth = self.opening, 0
        for token in _TOKEN.finditer(self.raw, self.opening):
            text = token.group()
            if depth == 0 and text in (b",", b"]", b"}"):
                yield begin, token.start()
                begin = token.end()
                if text != b",":
                    return
            depth += (text in (b"[", b"{")) - (text in (b"]", b"}"))
        # The array is never closed: what is left of the file is its last, broken element.
        yield begin, len(self.raw)


def _pieces_of_line(line: bytes, stream: IO[bytes], origin: str) -> Iterator[Reject]:
    piece, number = line, 1
    while piece:
        yield _piece(piece, number, origin)
        if piece.endswith(b"\n"):
            return
        piece, number = stream.readline(MAX_RECORD_BYTES), number + 1


def observation_time(location: Path, files: Iterable[tuple[Path, str]]) -> datetime:
    """When an export was made: as its `export.json` says, or when its newest file was written.

    Raises:
        LorelineError: `export.json` holds no time under `exported_at`.
    """
    told = location / EXPORT_FILE
    if not told.is_file():
        newest = max(path.stat().st_mtime for path, _ in files)
        return datetime.fromtimestamp(newest, UTC)
    return exported_at(told.read_bytes(), str(told))


def exported_at(raw: bytes, name: str) -> datetime:
    """The time under `exported_at` of an `export.json`.

    Raises:
        LorelineError: there is none.
    """
    try:
        moment = datetime.fromisoformat(orjson.loads(raw)["exported_at"])
    except (ValueError, TypeError, KeyError) as error:
        raise LorelineError(
            f"{name} does not say when the export was made ({error!r})",
            'write {"exported_at": "2026-01-31T12:00:00Z"} or remove the file',
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def is_complete(raw: bytes, unless_told: bool = True) -> bool:
    """Whether absent objects were deleted, as an `export.json` says, or else `unless_told`."""
    told = _complete(orjson.loads(raw))
    return unless_told if told is None else told


def told_complete(location: Path) -> bool | None:
    """What the `export.json` of a folder says of its being complete; None where it does not."""
    told = location / EXPORT_FILE
    try:
        return _complete(orjson.loads(told.read_bytes())) if told.is_file() else None
    except orjson.JSONDecodeError:
        # Whoever reads the time in it says so.
        return None


def _complete(told: Any) -> bool | None:
    said = told.get("complete") if isinstance(told, dict) else None
    return said if isinstance(said, bool) else None
