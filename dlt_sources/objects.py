"""Files in the landing bucket: large payloads, rejected bytes, sightings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import fsspec
from fsspec import AbstractFileSystem

from loreline.errors import LorelineError
from loreline.settings import Settings

_T = TypeVar("_T")


class ObjectStore:
    """Files under `LORELINE_LANDING_URL`.

    Every method raises `LorelineError` where the bucket does not answer or refuses.
    """

    def __init__(self, settings: Settings) -> None:
        self.root = settings.landing_url.rstrip("/")
        self.files = file_system(settings, self.root)

    def put(self, content: bytes) -> str:
        """Store bytes as `objects/<sha256>`, unless they are there, and return their URI."""
        uri = f"{self.root}/objects/{hashlib.sha256(content).hexdigest()}"

        def store() -> None:
            if not self.files.exists(uri):
                self.files.pipe_file(uri, content)

        self._reach(store)
        return uri

    def get(self, uri: str) -> bytes:
        """The bytes that `put` stored."""
        return self._reach(lambda: self.files.cat_file(uri))

    def list(self, folder: str) -> list[str]:
        """Paths of the files in a folder; none where there is no folder."""
        return self._reach(lambda: _existing(self.files, f"{self.root}/{folder}"))

    def put_file(self, path: Path, name: str) -> None:
        """Store a local file under a name."""
        self._reach(lambda: self.files.put_file(str(path), f"{self.root}/{name}"))

    def get_file(self, stored: str, path: Path) -> None:
        """Fetch a file that `list` named."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._reach(lambda: self.files.get_file(stored, str(path)))

    def remove(self, stored: Iterable[str]) -> None:
        """Remove files that `list` named."""
        for name in stored:
            self._reach(lambda name=name: self.files.rm_file(name))  # type: ignore[misc]

    def _reach(self, step: Callable[[], _T]) -> _T:
        try:
            return step()
        except OSError as error:
            raise LorelineError(
                f"the landing bucket {self.root} cannot be used ({error})",
                "check LORELINE_LANDING_URL and the LORELINE_S3_* variables",
            ) from error


def file_system(settings: Settings, url: str) -> AbstractFileSystem:
    """The file system of an address: `s3://…` with the settings' credentials, or a local path."""
    if not url.startswith("s3:"):
        scheme = url.partition("://")[0] if "://" in url else "file"
        return fsspec.filesystem(scheme, auto_mkdir=True)
    return fsspec.filesystem(
        "s3",
        key=settings.s3_access_key_id,
        secret=settings.s3_secret_access_key,
        endpoint_url=settings.s3_endpoint or None,
        client_kwargs={"region_name": settings.s3_region},
    )


def _existing(files: AbstractFileSystem, folder: str) -> list[str]:
    files.invalidate_cache()
    try:
        return sorted(files.ls(folder, detail=False))
    except FileNotFoundError:
        return []
