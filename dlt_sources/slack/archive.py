"""The files of a workspace export: a ZIP, read member by member, or the same tree unpacked."""

from __future__ import annotations

import mmap
import zipfile
import zlib
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Protocol

from dlt_sources.json_files import EXPORT_FILE, exported_at, is_complete
from dlt_sources.slack.settings import CONVERSATION_LISTS, USER_LISTS
from loreline.errors import LorelineError

MAX_MEMBER_BYTES = 256 * 1024 * 1024
# JSON of messages shrinks to a tenth; a bomb of 42 KB to a millionth of what it holds.
MAX_RATIO = 200
SMALL_ARCHIVE_BYTES = 64 * 1024 * 1024


class Files(Protocol):
    """The files below one root."""

    names: list[str]

    def read(self, name: str) -> bytes | mmap.mmap:
        """The content of a file."""
        ...

    def newest(self) -> datetime:
        """When the newest file was written."""
        ...


class Folder:
    """An unpacked export."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names = [
            path.relative_to(root).as_posix() for path in root.rglob("*.json") if path.is_file()
        ]

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


class Archive:
    """A ZIP, which is never unpacked.

    Raises:
        LorelineError: it is no ZIP, is encrypted, holds more than it plausibly can, or a name in it
            leads out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, OSError) as error:
            raise LorelineError(
                f"{path} is not a readable ZIP ({error})", "download the export again"
            ) from error
        members = [info for info in self.zip.infolist() if not info.is_dir()]
        _refuse_dangerous(path, members)
        self.names = [info.filename for info in members if info.filename.endswith(".json")]

    def read(self, name: str) -> bytes:
        """The content of a member.

        Raises:
            LorelineError: it is damaged.
        """
        try:
            return self.zip.read(name)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
            raise LorelineError(
                f"{name} in {self.path} is damaged ({error})", "download the export again"
            ) from error

    def newest(self) -> datetime:
        """When the newest member was written: ZIP knows no zone, it is taken for UTC."""
        times = [self.zip.getinfo(name).date_time for name in self.names]
        try:
            return datetime(*max(times), tzinfo=UTC)
        except ValueError:
            return datetime.fromtimestamp(self.path.stat().st_mtime, UTC)


def _refuse_dangerous(path: Path, members: Iterable[zipfile.ZipInfo]) -> None:
    total = 0
    for info in members:
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
            raise LorelineError(
                f"{path} holds {info.filename!r}, a path that leads out of it",
                "this is no workspace export; do not trust where it came from",
            )
        if info.flag_bits & 1:
            raise LorelineError(f"{path} is encrypted", "decrypt it first")
        total += info.file_size
        if info.file_size > MAX_MEMBER_BYTES:
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


class Export:
    """A workspace export.

    Args:
        location: the ZIP or the folder; the export may lie in a folder inside.

    Raises:
        LorelineError: there is none.
    """

    def __init__(self, location: Path) -> None:
        if not location.exists():
            raise LorelineError(f"nothing is at {location}", "give a ZIP or a folder that exists")
        self.location = location
        self.files: Files = Archive(location) if location.is_file() else Folder(location)
        lists = {*CONVERSATION_LISTS, *USER_LISTS}
        found = [PurePosixPath(n) for n in self.files.names if PurePosixPath(n).name in lists]
        if not found:
            raise LorelineError(
                f"{location} holds no Slack export (none of {', '.join(sorted(lists))})",
                "give the ZIP that Slack made, or the folder that it was unpacked to",
            )
        root = min(found, key=lambda path: (len(path.parts), str(path))).parent
        self._paths = {
            PurePosixPath(name).relative_to(root).as_posix(): name
            for name in self.files.names
            if PurePosixPath(name).is_relative_to(root)
        }

    @property
    def names(self) -> list[str]:
        """Paths below the export's root, in order."""
        return sorted(self._paths)

    def read(self, name: str) -> bytes | mmap.mmap:
        """The content of a file of the export; empty where there is none."""
        return self.files.read(self._paths[name]) if name in self._paths else b""

    def observed_at(self) -> datetime:
        """When the export was made."""
        if EXPORT_FILE in self._paths:
            return exported_at(self.read(EXPORT_FILE)[:], f"{self.location}/{EXPORT_FILE}")
        return self.files.newest()

    def is_complete(self) -> bool:
        """Whether what is absent can be taken for deleted; so unless `export.json` denies it."""
        return EXPORT_FILE not in self._paths or is_complete(self.read(EXPORT_FILE)[:])
