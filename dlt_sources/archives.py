"""Exports that come as a ZIP, read member by member, or as the same tree unpacked."""

from __future__ import annotations

import mmap
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Protocol

from loreline.errors import LorelineError

_DRIVE = re.compile(r"[A-Za-z]:(/|$)")

MAX_MEMBER_BYTES = 256 * 1024 * 1024
# JSON of messages shrinks to a tenth; a bomb of 42 KB to a millionth of what it holds.
MAX_RATIO = 200
SMALL_ARCHIVE_BYTES = 64 * 1024 * 1024


class Files(Protocol):
    """The files below one root."""

    names: list[str]
    others: int

    def read(self, name: str) -> bytes | mmap.mmap:
        """The content of a file."""
        ...

    def newest(self) -> datetime:
        """When the newest file was written."""
        ...


class Folder:
    """An unpacked export.

    Args:
        root: the folder.
        suffixes: of the files that are read; the others are only counted, as `others`.
    """

    def __init__(self, root: Path, *suffixes: str) -> None:
        self.root = root
        names = [path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()]
        self.names = [name for name in names if name.endswith(suffixes)]
        self.others = len(names) - len(self.names)

    def read(self, name: str) -> bytes | mmap.mmap:
        """The content of a file, not yet in memory."""
        path = self.root / name
        if path.stat().st_size == 0:
            return b""
        with path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

    def newest(self) -> datetime:
        """When the newest file was written."""
        return datetime.fromtimestamp(
            max((self.root / name).stat().st_mtime for name in self.names), UTC
        )


class DamagedMemberError(LorelineError):
    """A member of a ZIP that cannot be read; the others may be."""


class Archive:
    """A ZIP, which is never unpacked.

    Args:
        path: the file.
        suffixes: of the members that are read; the others are only counted, as `others`.

    Raises:
        LorelineError: it is no ZIP, is encrypted, holds more than it plausibly can, or a name in it
            leads out of it.
    """

    def __init__(self, path: Path, *suffixes: str) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise LorelineError(
                f"{path} is not a readable ZIP ({error})", "download the export again"
            ) from error
        members = [info for info in self.zip.infolist() if not info.is_dir()]
        _refuse_dangerous(path, members, suffixes)
        self.names = [info.filename for info in members if info.filename.endswith(suffixes)]
        self.others = len(members) - len(self.names)

    def read(self, name: str) -> bytes:
        """The content of a member.

        Raises:
            DamagedMemberError: it cannot be read.
        """
        with self._reading(name):
            return self.zip.read(name)

    def copy(self, name: str, path: Path) -> None:
        """Write a member to a file, some of it in memory at a time.

        Raises:
            DamagedMemberError: it cannot be read.
        """
        with self._reading(name), self.zip.open(name) as member, path.open("wb") as copy:
            shutil.copyfileobj(member, copy)

    def newest(self) -> datetime:
        """When the newest member was written: ZIP knows no zone, it is taken for UTC."""
        times = [self.zip.getinfo(name).date_time for name in self.names]
        try:
            return datetime(*max(times), tzinfo=UTC)
        except ValueError:
            return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        try:
            yield
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise DamagedMemberError(
                f"{name} in {self.path} is damaged ({error})", "download the export again"
            ) from error


def _refuse_dangerous(
    path: Path, members: Iterable[zipfile.ZipInfo], suffixes: tuple[str, ...]
) -> None:
    total = 0
    for info in members:
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or _DRIVE.match(str(name)):
            raise LorelineError(
                f"{path} holds {info.filename!r}, a path that leads out of it",
                "this is no workspace export; do not trust where it came from",
            )
        if info.flag_bits & 1:
            raise LorelineError(f"{path} is encrypted", "decrypt it first")
        total += info.file_size
        # What is itself a ZIP is never in memory as a whole.
        is_read = info.filename.endswith(suffixes) and name.suffix != ".zip"
        if is_read and info.file_size > MAX_MEMBER_BYTES:
            raise LorelineError(
                f"{info.filename} in {path} holds {info.file_size} bytes, more than"
                f" {MAX_MEMBER_BYTES}",
                "unpack the export and give the folder, if you trust it",
            )
    if total > SMALL_ARCHIVE_BYTES and total > MAX_RATIO * path.stat().st_size:
        raise LorelineError(
            f"{path} would unpack to {total} bytes, more than {MAX_RATIO} times its size",
            "unpack the export and give the folder, if you trust it",
        )
