"""Which files were landed, and how far: told by how they begin, not by their names.

A rotated, renamed or compressed file is the file that it was. One that has the same beginning and
goes on otherwise is another, also where it ends earlier: what is an older copy is compared to its
end, with the file itself if this load has read it, otherwise with the blocks that were landed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import IO, Any

import orjson

from dlt_sources.landing import Landing
from dlt_sources.log_files.blocks import REPLACED, Block, Oversized, text_of
from dlt_sources.log_files.places import LogFile
from dlt_sources.log_files.settings import FILES, HEAD_BYTES, LINES, READ_BYTES
from dlt_sources.slices import Observation

_HASH_CHARACTERS = 32
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
        last_hash: of that block's text.
        last_continues: whether it begins inside a record.
        last_is_aside: whether it was too long, and set aside: it is read on from its end.
        copies: the files that hold it, by name, as last listed: size as stored, time written.
        observed_at: when what is landed of it was written.
    """

    file_id: str
    head_bytes: int
    head_hash: str
    end: int = 0
    last_start: int = 0
    last_hash: str = field(default_factory=lambda: _hash(""))
    last_continues: bool = False
    last_is_aside: bool = False
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
        last: its last landed block, which was read to know it; an empty one where to go on, if it
            is new or ends with what was set aside.
    """

    file: KnownFile
    head: bytes
    last: Block


class KnownFiles:
    """The files of which lines were landed, or are being landed by this load.

    Args:
        landing: the load.
    """

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
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
                last = _landed_block(landing, f"{file_id}:{start}")
                known.last_start, known.end = start, last["end"]
                known.last_hash, known.last_continues = _hash(last["text"]), last["continues"]
                known.last_is_aside = False
                known.observed_at = observed_at.replace(tzinfo=UTC)
        for known in self._files.values():
            self._note_head(known)
        self._listed = {
            (name, *about): known
            for known in self._files.values()
            for name, about in known.copies.items()
        }
        self._copies: dict[str, dict[str, list[Any]]] = {}
        # Files of which this load passes on lines, which may not be committed yet.
        self._grown: dict[str, LogFile] = {}

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
        found: Resumed | None = None
        longer: list[KnownFile] = []
        for known in self._with_head(head):
            landed_bytes = known.end - known.last_start
            stream.seek(known.last_start)
            read = stream.read(landed_bytes)
            if len(read) < landed_bytes:
                longer.append(known)
            elif _hash(text_of(known.last_start, read)) == known.last_hash:
                last = Block(known.last_start, read, known.last_continues)
                last = Block(known.end, b"") if known.last_is_aside else last
                found = Resumed(known, head, last)
                break
        # What has grown under its name is not compared with others. Elsewhere, it may just begin
        # like a file of which only the beginning is known.
        is_certain = found and (file.name in found.file.copies or not stream.read(1))
        for known in [] if is_certain else longer:
            if self._is_older_copy(stream, known):
                self._note_copy(known, file)
                return None
        found = found or Resumed(self._new(head), head, Block(0, b""))
        stream.seek(found.file.end)
        return found

    def passed_on(self, resumed: Resumed, file: LogFile, last: Block | Oversized) -> None:
        """The new lines of a file were passed on, to its end or as far as it could be read.

        Args:
            resumed: what was known of it.
            file: where it was read.
            last: its last block, or what was set aside in its place.
        """
        known = resumed.file
        if last.end > known.end:
            del self._by_head[known.head_bytes, known.head_hash][known.file_id]
            known.head_bytes, known.head_hash = len(resumed.head), _hash(resumed.head)
            self._note_head(known)
            known.end, known.last_start = last.end, last.start
            known.last_hash = _hash(text_of(last.start, last.content))
            known.last_is_aside = isinstance(last, Oversized)
            known.last_continues = isinstance(last, Block) and last.continues
            self._note_short_head(known)
            self._grown[known.file_id] = file

    def read_to_end(self, resumed: Resumed, file: LogFile) -> None:
        """All of a file was passed on: it is not read again until it is written."""
        self._note_copy(resumed.file, file)

    def changes(self) -> Iterator[Observation]:
        """What this load has found out about files, once their blocks were passed on."""
        for file_id in {**self._grown, **self._copies}:
            known = self._files[file_id]
            copies = self._copies.get(file_id, known.copies)
            if file_id in self._grown or known.copies != copies:
                if file_id not in self._grown:
                    known.observed_at += _STEP
                known.copies = copies
                yield known.observation()

    def _is_older_copy(self, stream: IO[bytes], known: KnownFile) -> bool:
        """Whether a stream that ends before a known file says the same up to there."""
        stream.seek(0)
        if file := self._grown.get(known.file_id):
            with file.opened() as other:
                return _is_beginning_of(stream, other)
        return _is_beginning_of_landed(stream, self._landing, known.file_id)

    def _with_head(self, head: bytes) -> list[KnownFile]:
        """The known files that begin so, the longest first: of another, only what both
        have in common may be landed."""
        sizes = {size for size, _ in self._by_head if size <= len(head)}
        found = (self._by_head.get((size, _hash(head[:size])), {}) for size in sizes)
        files = (known for files in found for known in files.values())
        return sorted(files, key=lambda known: (-known.end, known.file_id))

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
    if table := landing.landed_table(FILES.name):
        query = f"select payload, observed_at from {table} order by observed_at, landed_at"  # noqa: S608
        cursor = landing.duckdb.execute(query)
        while rows := cursor.fetchmany(1000):
            for payload, observed_at in rows:
                said = orjson.loads(payload)
                yield KnownFile(**said, observed_at=observed_at.replace(tzinfo=UTC))


def _last_blocks(landing: Landing) -> list[tuple[str, int, datetime]]:
    """Of each file where the last landed block begins, and when it was observed last."""
    table = landing.landed_table(LINES.name)
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


def _landed_block(landing: Landing, block_id: str) -> dict[str, Any]:
    """The longest landed state of a block."""
    query = f"""
        select payload, raw_object_uri
        from {landing.landed_table(LINES.name)}
        where external_id = ?
        """  # noqa: S608 - the name is our own
    rows = landing.duckdb.execute(query, [block_id]).fetchall()
    states = (orjson.loads(payload or landing.objects.get(uri)) for payload, uri in rows)
    return max(states, key=lambda state: state["end"])


def _is_beginning_of(stream: IO[bytes], other: IO[bytes]) -> bool:
    """Whether another stream begins with all of a stream."""
    while chunk := stream.read(READ_BYTES):
        if other.read(len(chunk)) != chunk:
            return False
    return True


def _is_beginning_of_landed(stream: IO[bytes], landing: Landing, file_id: str) -> bool:
    """Whether the landed blocks of a file begin with all of a stream.

    Blocks are compared by their hashes: only that in which the stream ends is fetched. Where it
    ends in what was set aside, nobody knows.
    """
    table = landing.landed_table(LINES.name)
    if table is None:
        return False
    blocks = landing.duckdb.execute(
        f"""
        with states as (
            select
                cast(split_part(external_id, ':', 2) as bigint) as block_start,
                cast(payload ->> '$.end' as bigint) as block_end,
                payload ->> '$.text' as text
            from {table}
            where external_id >= $1 || ':' and external_id < $1 || ';' and payload is not null
        )
        select
            block_start,
            max(block_end),
            arg_max(sha256(text), block_end)
        from states
        group by block_start
        order by block_start
        """,  # noqa: S608 - the name is our own
        [file_id],
    )
    reached = 0
    while block := blocks.fetchone():
        start, end, text_hash = block
        stream.seek(start)
        content = stream.read(end - start)
        text = text_of(start, content)
        if content and len(content) < end - start:
            landed = _landed_block(landing, f"{file_id}:{start}")["text"]
            # The last character may be cut in two.
            return landed.startswith(text.rstrip(REPLACED))
        if not content:
            break
        if _hash(text) != text_hash[:_HASH_CHARACTERS]:
            return False
        reached = end
    stream.seek(reached)
    return reached > 0 and not stream.read(1)


def _begun(file_id: str) -> KnownFile:
    """A file of which nothing is known but its id."""
    head_hash, head_bytes, *_ = file_id.split("-")
    return KnownFile(file_id, int(head_bytes), head_hash)


def _about(file: LogFile) -> list[Any]:
    return [file.size, file.modified_at.isoformat()]


def _hash(content: bytes | str) -> str:
    """The first half of a SHA-256, in hex; of a text in UTF-8."""
    content = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(content).hexdigest()[:_HASH_CHARACTERS]
