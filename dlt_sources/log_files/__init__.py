"""Log files: plain text and JSON lines, growing, rotated and compressed."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import IO

import dlt
from dlt.extract import DltResource

from dlt_sources.landing import Landing, raw_resource
from dlt_sources.log_files.blocks import REPLACED, Block, Oversized, cut, first_lines, text_of
from dlt_sources.log_files.known import KnownFile, KnownFiles, moment_of
from dlt_sources.log_files.places import LogFile, UnreadableFileError, find
from dlt_sources.log_files.settings import FILES, LINES, MAX_LINE_BYTES
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation


@dlt.source(name="log_files")
def log_files(
    location: str = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
) -> list[DltResource]:
    """Lines of log files, as blocks of neighbouring ones, and how far each file was read.

    What was landed of a file is not read again, whatever the file is called by now.

    Args:
        location: a file, a folder or a glob, here or at `s3://…`; gzip is seen by its first bytes.
        observed_at: when the files were written, if their own times do not tell.
        landing: the load that this is part of; one of its own otherwise.
    """
    landing = landing or Landing.begin("log_files")
    files = find(landing.settings, str(location))
    known = KnownFiles(landing)
    blocks = new_blocks(landing, files, known, first_lines(), observed_at)
    return [
        raw_resource(landing.rows(LINES, blocks), LINES.name),
        raw_resource(landing.rows(FILES, known.changes()), FILES.name),
    ]


def new_blocks(
    landing: Landing,
    files: Sequence[LogFile],
    known: KnownFiles,
    begins_record: re.Pattern[bytes],
    observed_at: datetime | None = None,
) -> Iterator[Observation | Reject]:
    """The blocks of files that were not landed yet.

    A file that cannot be read is set aside by its name, and tried again by the next load.

    Args:
        landing: told which files were read to their end, and how many had vanished.
        files: in the order in which they are read.
        known: what was landed; it learns what is passed on.
        begins_record: matches the beginning of a record's first line.
        observed_at: when the files were written, if their own times do not tell.

    Raises:
        LorelineError: not one of the files can be read.
    """
    unreadable = 0
    for file in files:
        if known.is_as_landed(file):
            landing.was_read(LINES, file.name)
            continue
        written_at = observed_at or file.modified_at
        try:
            with file.opened() as stream:
                yield from _new_blocks_of(file, stream, known, begins_record, written_at)
            landing.was_read(LINES, file.name)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            # Named instead of copied: it may be large, and is still being written.
            state = f"{file.name}, {file.size} bytes, written {file.modified_at.isoformat()}"
            detail = f"it breaks off: {error}"
            yield Reject("broken_archive", detail, state.encode(), file.name, LINES.name)
        except FileNotFoundError:
            # Rotated away: under its new name it is listed next time.
            landing.summary.passed_over["vanished files"] += 1
        except UnreadableFileError as error:
            unreadable += 1
            if unreadable == len(files):
                raise
            state = f"{file.name}, {type(error.__cause__).__name__}"
            yield Reject("unreadable_file", error.what, state.encode(), file.name, LINES.name)


def _new_blocks_of(
    file: LogFile,
    stream: IO[bytes],
    known: KnownFiles,
    begins_record: re.Pattern[bytes],
    written_at: datetime,
) -> Iterator[Observation | Reject]:
    resumed = known.resume(file, stream)
    if resumed is None:
        return
    landed, first = resumed.file, resumed.last
    last: Block | Oversized = first
    moment = None
    try:
        for piece in cut(stream, begins_record, first.start, first.content, first.continues):
            if piece.end <= landed.end:
                continue
            moment = moment or moment_of(landed, written_at)
            if isinstance(piece, Oversized):
                detail = f"a line above {MAX_LINE_BYTES} bytes, from byte {piece.start} on"
                yield Reject("record_too_large", detail, piece.content, file.name, LINES.name)
            else:
                yield from _observed(file, landed, piece, moment)
            last = piece
    finally:
        known.passed_on(resumed, file, last)
    known.read_to_end(resumed, file)


def _observed(
    file: LogFile, known: KnownFile, block: Block, moment: datetime
) -> Iterator[Observation | Reject]:
    """A block as the row to land; bytes that are no text are replaced there, and set aside."""
    text = text_of(block.start, block.content)
    if REPLACED in text and (lines := _undecodable(block.content)):
        detail = f"{len(lines)} lines that are not UTF-8, or hold a NUL, from byte {block.start} on"
        yield Reject("invalid_utf8", detail, b"".join(lines), file.name, LINES.name)
    yield Observation(
        external_id=f"{known.file_id}:{block.start}",
        payload={
            "file": file.name,
            "start": block.start,
            "end": block.end,
            "continues": block.continues,
            "text": text,
        },
        observed_at=moment,
        origin=f"{file.name}:{block.start}",
    )


def _undecodable(content: bytes) -> list[bytes]:
    return [line for line in content.splitlines(keepends=True) if not _is_text(line)]


def _is_text(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in line
