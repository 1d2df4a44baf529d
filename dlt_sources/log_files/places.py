"""Where log files are: a file, a folder or a glob, here or in an object store."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import IO, Any

from fsspec import AbstractFileSystem

from dlt_sources.json_files import EXPORT_FILE
from dlt_sources.log_files.settings import NAMES, READ_BYTES
from dlt_sources.objects import file_system
from loreline.errors import LorelineError
from loreline.settings import Settings

_GZIP = b"\x1f\x8b"


class UnreadableFileError(LorelineError):
    """A listed file that is there, and is not given."""


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file as a listing shows it.

    Attributes:
        files: the file system that it lies in.
        path: its path there.
        name: what it is called by in messages and in raw rows.
        size: bytes as stored, compressed or not.
        modified_at: when it was last written.
    """

    files: AbstractFileSystem
    path: str
    name: str
    size: int
    modified_at: datetime

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """Its bytes, decompressed if they are gzip's; closed in the end.

        Raises:
            FileNotFoundError: it is gone since it was listed.
            UnreadableFileError: it cannot be read.
        """
        try:
            with self.files.open(self.path, "rb", block_size=READ_BYTES) as stored:
                is_compressed = stored.read(2) == _GZIP
                stored.seek(0)
                if not is_compressed:
                    yield stored
                    return
                with gzip.GzipFile(fileobj=stored) as stream:
                    yield stream
        except (gzip.BadGzipFile, FileNotFoundError):
            raise
        except OSError as error:
            raise UnreadableFileError(
                f"{self.name} cannot be read ({error})", "check that it is there, and readable"
            ) from error


def find(settings: Settings, location: str) -> list[LogFile]:
    """The log files at a location, in the order of their names.

    Args:
        settings: whose credentials open `s3://…`.
        location: a file, a folder (`*.log`, `*.jsonl` and what they were rotated to, at any depth)
            or a glob such as `s3://bucket/logs/**/*.log.gz`.

    Raises:
        LorelineError: there is no such file, or the store does not answer.
    """
    files = file_system(settings, location)
    try:
        found = _listed(files, location)
    except OSError as error:
        raise LorelineError(
            f"{location} cannot be listed ({error})",
            "check the address and the LORELINE_S3_* variables",
        ) from error
    if not found:
        raise LorelineError(
            f"no log files are at {location}",
            f"give a file, a glob, or a folder that holds {' or '.join(NAMES)}",
        )
    return found


def _listed(files: AbstractFileSystem, location: str) -> list[LogFile]:
    files.invalidate_cache()
    place = files._strip_protocol(location)
    if any(sign in place for sign in "*?["):
        root, paths = _fixed_part(place), [place]
    elif files.isfile(place):
        root, paths = str(PurePosixPath(place).parent), [place]
    else:
        root, paths = place, [f"{place}/**/{name}" for name in NAMES]
    details: dict[str, dict[str, Any]] = {}
    for path in paths:
        details |= files.glob(path, detail=True)
    return [
        LogFile(files, path, _name(path, root), about["size"], _modified_at(about))
        for path, about in sorted(details.items())
        if about["type"] == "file" and PurePosixPath(path).name != EXPORT_FILE
    ]


def _fixed_part(pattern: str) -> str:
    """The folder above the first part of a glob that stands for several."""
    parts = pattern.split("/")
    variable = next(n for n, part in enumerate(parts) if any(sign in part for sign in "*?["))
    return "/".join(parts[:variable])


def _name(path: str, root: str) -> str:
    return path.removeprefix(root).lstrip("/")


def _modified_at(about: dict[str, Any]) -> datetime:
    if "LastModified" in about:
        return about["LastModified"]
    return datetime.fromtimestamp(about["mtime"], UTC)
