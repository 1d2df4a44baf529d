"""Cuts a stream of log lines into blocks: what a raw row holds.

A block ends where a record ends. The last record of a file may still grow, by lines of a stack
trace or by the rest of its own line, so it is a block by itself: the file that has grown is read on
from there, and nothing else of it lands again.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dlt_sources.log_files.settings import (
    BLOCK_BYTES,
    FORMATS,
    MAX_LINE_BYTES,
    PIECE_BYTES,
    READ_BYTES,
)
from loreline.errors import LorelineError

REPLACED = "\ufffd"


@dataclass(frozen=True, slots=True)
class Block:
    """Neighbouring lines of a file.

    Attributes:
        start: where they begin, in bytes from the beginning of the file.
        content: their bytes, line ends included.
        continues: whether they begin inside a record that was too long for one block.
    """

    start: int
    content: bytes
    continues: bool = False

    @property
    def end(self) -> int:
        """Where the next block begins."""
        return self.start + len(self.content)


@dataclass(frozen=True, slots=True)
class Oversized:
    """A piece of a line that is too long to be landed."""

    start: int
    content: bytes

    @property
    def end(self) -> int:
        """Where what follows begins."""
        return self.start + len(self.content)


def text_of(start: int, content: bytes) -> str:
    """The bytes of a file from `start` on as the text that lands: what is none is replaced."""
    text = content.decode(errors="replace").replace("\0", REPLACED)
    return text.removeprefix("\ufeff") if start == 0 else text


def first_lines(seed: Path = FORMATS) -> re.Pattern[bytes]:
    """How a record begins, in any of the formats that are known.

    Raises:
        LorelineError: a pattern of the seed is none.
    """
    with seed.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        try:
            re.compile(row["first_line"])
        except re.error as error:
            raise LorelineError(
                f"log format {row['log_format']!r} has no valid first_line ({error})",
                f"mend it in seeds/{seed.name}",
            ) from None
    patterns = "|".join(row["first_line"] for row in rows)
    return re.compile(f"(?:{patterns})".encode())


def cut(
    stream: IO[bytes],
    begins_record: re.Pattern[bytes],
    start: int = 0,
    read: bytes = b"",
    continues: bool = False,
) -> Iterator[Block | Oversized]:
    """The blocks of a stream, each at most about `BLOCK_BYTES` long.

    Args:
        stream: stands behind what was read.
        begins_record: matches the beginning of a record's first line.
        start: where the first block begins in the file.
        read: what was read from there on already.
        continues: whether it begins inside a record.
    """
    cutter = _Cutter(begins_record, start, read, continues)
    # An archive that breaks off gives what is before that only where no more is asked of it.
    read_some = getattr(stream, "read1", stream.read)
    while chunk := read_some(READ_BYTES):
        yield from cutter.add(chunk)
    yield from cutter.rest()


class _Cutter:
    def __init__(
        self, begins_record: re.Pattern[bytes], start: int, read: bytes, continues: bool
    ) -> None:
        self.begins_record = begins_record
        self.start = start
        self.buffer = read
        self.at = 0  # of the buffer: what is before it was given away
        self.continues = continues
        self.is_oversized = False

    def add(self, chunk: bytes) -> Iterator[Block | Oversized]:
        """What can be cut now that there is more."""
        self.buffer = self.buffer[self.at :] + chunk
        self.at = 0
        while (waiting := len(self.buffer) - self.at) > BLOCK_BYTES:
            if self.is_oversized:
                if waiting < PIECE_BYTES and self.buffer.find(b"\n", self.at) < 0:
                    return
                yield self._oversized()
            elif end := self._end_of_lines():
                yield from self._lines(end)
            elif waiting <= MAX_LINE_BYTES:
                return
            else:
                self.is_oversized = True

    def rest(self) -> Iterator[Block | Oversized]:
        """What is left when the stream has ended, its last record by itself."""
        while self.is_oversized and self.at < len(self.buffer):
            yield self._oversized()
        end = len(self.buffer)
        while end - self.at > BLOCK_BYTES and (cut_at := self._end_of_lines()):
            yield from self._lines(cut_at)
        if end - self.at > MAX_LINE_BYTES:
            yield self._oversized()
        if self.at == end:
            return
        last = self._last_record(end)
        if last is None and not self.continues and not self._begins_record(self.at):
            last = self._line_before(end)
        if last and last > self.at:
            yield self._take(last)
        yield self._take(end)

    def _end_of_lines(self) -> int:
        """Where the last whole line within a block ends, else the first one; 0: none does."""
        end = self.buffer.rfind(b"\n", self.at, self.at + BLOCK_BYTES) + 1
        return end or self.buffer.find(b"\n", self.at, self.at + MAX_LINE_BYTES) + 1

    def _lines(self, end: int) -> Iterator[Block]:
        last = self._last_record(end)
        if last:
            yield self._take(last)
            return
        goes_on = self.continues or self._begins_record(self.at)
        yield self._take(end)
        self.continues = goes_on and not self._begins_record(self.at)

    def _last_record(self, end: int) -> int | None:
        """Where the last record before `end` begins, if it is not the first one."""
        line = self._line_before(end)
        while line > self.at:
            if self._begins_record(line):
                return line
            line = self._line_before(line)
        return None

    def _line_before(self, end: int) -> int:
        return max(self.buffer.rfind(b"\n", self.at, end - 1) + 1, self.at)

    def _begins_record(self, at: int) -> bool:
        return self.begins_record.match(self.buffer, at) is not None

    def _take(self, end: int) -> Block:
        block = Block(self.start, self.buffer[self.at : end], self.continues)
        self._pass(end)
        self.continues = False
        return block

    def _oversized(self) -> Oversized:
        """A piece of the line that is too long, with its end if that is there."""
        end = self.buffer.find(b"\n", self.at, self.at + PIECE_BYTES) + 1
        self.is_oversized = not end
        end = end or min(self.at + PIECE_BYTES, len(self.buffer))
        piece = Oversized(self.start, self.buffer[self.at : end])
        self._pass(end)
        return piece

    def _pass(self, end: int) -> None:
        self.start += end - self.at
        self.at = end
