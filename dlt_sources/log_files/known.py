"""Which files were landed, and how far: told by how they begin, not by their names.

A rotated, renamed or compressed file is the file that it was. One that has the same beginning and
goes on otherwise is another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import orjson

from dlt_sources.landing import Landing
from dlt_sources.log_files.blocks import Block
from dlt_sources.log_files.places import LogFile
from dlt_sources.log_files.settings import FILES, HEAD_BYTES, LINES
from dlt_sources.slices import Observation

_STEP = timedelta(microseconds=1)
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class KnownFile:
    """What is landed of a file.

    Attributes:
        file_id: a hash of its first bytes when it was first seen, and how many these were.
        head_bytes: by how many first bytes it is known now, up to `HEAD_BYTES`.
        head_hash: of these.
        end: bytes landed.
        last_start: where the last block begins, which may still grow.
        last_hash: of that block's bytes.
        last_continues: whether it begins inside a record.
        copies: the files that hold it, by name, as last listed: size as stored, time written.
        observed_at: when what is landed of it was written.
    """

    file_id: str
    head_bytes: int
    head_hash: str
    end: int = 0
    last_start: int = 0
    last_hash: str = field(default_factory=lambda: _hash(b""))
    last_continues: bool = False
    copies: dict[str, list[Any]] = field(default_factory=dict)
    observed_at: datetime = _NEVER

    def observation(self) -> Observation:
        """The row of `raw_log_files.files` that says this."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "observed_at"}
        return Observation(self.file_id, said, self.observed_at)


@dataclass(frozen=True)
class Resumed:
    """A file that is read on.

    Attributes:
        file: what is landed of it.
        head: its first bytes.
        read: the bytes of its last landed block, which were read to know it.
    """

    file: KnownFile
    head: bytes
    read: bytes


class KnownFiles:
    """The files of which lines were landed, or are being landed by this load.

    Args:
        landing: the load.
    """

    def __init__(self, landing: Landing) -> None:
        self._files: dict[str, KnownFile] = {}
        self._by_head: dict[tuple[int, str], dict[str, KnownFile]] = {}
        # By these a file is known to be an early, short state of another.
        self._short_heads: set[tuple[int, str]] = set()
        for known in _landed(landing):
            self._files[known.file_id] = known
            self._note_short_head(known)
        for file_id, start, observed_at in _last_blocks(landing):
            known = self._files.setdefault(file_id, _begun(file_id))
            if start > known.last_start or not known.end:
                # A load was killed between the blocks of the file and what is known of it.
                known.end = known.last_start = start
                known.last_hash = _hash(b"")
                known.observed_at = observed_at.replace(tzinfo=UTC)
                known.last_continues = _continues(landing, f"{file_id}:{start}")
        for known in self._files.values():
            self._note_head(known)
        self._listed = {
            (name, *about): known
            for known in self._files.values()
            for name, about in known.copies.items()
        }
        self._copies: dict[str, dict[str, list[Any]]] = {}
        self._grown: set[str] = set()

    def is_as_landed(self, file: LogFile) -> bool:
        """Whether a listed file was read to its end before, and not written since."""
        known = self._listed.get((file.name, *_about(file)))
        if known:
            self._note_copy(known, file)
        return known is not None

    def resume(self, file: LogFile, stream: IO[bytes]) -> Resumed | None:
        """Where to go on with a file, new or known; None where it holds nothing new.

        Args:
            file: as listed.
            stream: its bytes, at the first one.
        """
        head = stream.read(HEAD_BYTES)
        if not head or (len(head), _hash(head)) in self._short_heads:
            return None
        for known in self._with_head(head):
            landed_bytes = known.end - known.last_start
            stream.seek(known.last_start)
            read = stream.read(landed_bytes)
            if _hash(read) == known.last_hash:
                return Resumed(known, head, read)
            if len(read) < landed_bytes and known.head_bytes == HEAD_BYTES:
                # An older copy, all of which was landed.
                self._note_copy(known, file)
                return None
        stream.seek(0)
        return Resumed(self._new(head), head, b"")

    def read_to_end(self, resumed: Resumed, file: LogFile, last: Block) -> None:
        """A file was passed on to its end.

        Args:
            resumed: what was known of it.
            file: where it was read.
            last: its last block.
        """
        known = resumed.file
        self._note_copy(known, file)
        if last.end > known.end:
            del self._by_head[known.head_bytes, known.head_hash][known.file_id]
            known.head_bytes, known.head_hash = len(resumed.head), _hash(resumed.head)
            self._note_head(known)
            known.end, known.last_start = last.end, last.start
            known.last_hash, known.last_continues = _hash(last.content), last.continues
            self._note_short_head(known)
            self._grown.add(known.file_id)

    def changes(self) -> Iterator[Observation]:
        """What this load has found out about files, once their blocks were passed on."""
        for file_id, copies in self._copies.items():
            known = self._files[file_id]
            if file_id in self._grown or known.copies != copies:
                if file_id not in self._grown:
                    known.observed_at += _STEP
                known.copies = copies
                yield known.observation()

    def _with_head(self, head: bytes) -> list[KnownFile]:
        sizes = sorted({size for size, _ in self._by_head if size <= len(head)}, reverse=True)
        found = (self._by_head.get((size, _hash(head[:size])), {}) for size in sizes)
        return [known for files in found for known in files.values()]

    def _new(self, head: bytes) -> KnownFile:
        file_id = plain = f"{_hash(head)}-{len(head)}"
        number = 1
        while file_id in self._files:
            number += 1
            file_id = f"{plain}-{number}"
        known = self._files[file_id] = KnownFile(file_id, len(head), _hash(head))
        self._note_head(known)
        return known

    def _note_head(self, known: KnownFile) -> None:
        self._by_head.setdefault((known.head_bytes, known.head_hash), {})[known.file_id] = known

    def _note_copy(self, known: KnownFile, file: LogFile) -> None:
        self._copies.setdefault(known.file_id, {})[file.name] = _about(file)

    def _note_short_head(self, known: KnownFile) -> None:
        if known.end == known.head_bytes < HEAD_BYTES:
            self._short_heads.add((known.head_bytes, known.head_hash))


def moment_of(known: KnownFile, written_at: datetime) -> datetime:
    """When a file's new lines were observed: when it was written, and after what is landed.

    A copy may have an earlier time than the file had; what goes on from what is landed is newer.
    """
    known.observed_at = max(written_at, known.observed_at + _STEP)
    return known.observed_at


def _landed(landing: Landing) -> Iterator[KnownFile]:
    """All states of all files, in the order in which they landed."""
    if table := landing.landed_table(FILES):
        query = f"select payload, observed_at from {table} order by observed_at, landed_at"  # noqa: S608
        cursor = landing.duckdb.execute(query)
        while rows := cursor.fetchmany(1000):
            for payload, observed_at in rows:
                said = orjson.loads(payload)
                yield KnownFile(**said, observed_at=observed_at.replace(tzinfo=UTC))


def _last_blocks(landing: Landing) -> list[tuple[str, int, datetime]]:
    """Of each file where the last landed block begins, and when it was observed last."""
    table = landing.landed_table(LINES)
    if table is None:
        return []
    return landing.duckdb.execute(
        f"""
        select
            split_part(external_id, ':', 1) as file_id,
            max(cast(split_part(external_id, ':', 2) as bigint)) as last_start,
            max(observed_at) as observed_at
        from {table}
        group by file_id
        order by file_id
        """  # noqa: S608 - the name is our own
    ).fetchall()


def _continues(landing: Landing, block_id: str) -> bool:
    query = f"select payload from {landing.landed_table(LINES)} where external_id = ? limit 1"  # noqa: S608
    row = landing.duckdb.execute(query, [block_id]).fetchone()
    return bool(row and row[0] and orjson.loads(row[0])["continues"])


def _begun(file_id: str) -> KnownFile:
    """A file of which nothing is known but its id."""
    head_hash, head_bytes, *_ = file_id.split("-")
    return KnownFile(file_id, int(head_bytes), head_hash)


def _about(file: LogFile) -> list[Any]:
    return [file.size, file.modified_at.isoformat()]


def _hash(content: bytes) -> str:
    """The first half of a SHA-256, in hex."""
    return hashlib.sha256(content).hexdigest()[:32]
