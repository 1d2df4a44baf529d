"""The files of a workspace export: a ZIP, or the same tree unpacked."""

from __future__ import annotations

import mmap
from datetime import datetime
from pathlib import Path, PurePosixPath

from dlt_sources.archives import Archive, Files, Folder
from dlt_sources.json_files import EXPORT_FILE, exported_at, is_complete
from dlt_sources.slack.settings import CONVERSATION_LISTS, USER_LISTS
from loreline.errors import LorelineError


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
        self.files: Files = (Archive if location.is_file() else Folder)(location, ".json")
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
