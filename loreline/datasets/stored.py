"""The files of frozen datasets in the object store, in one folder for each name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileType

from loreline.errors import LorelineError
from loreline.lake.objects import object_store
from loreline.settings import Settings

# Written first and removed last: while it is there, nothing is frozen under the name.
DRAFT = "draft.json"
READ_BYTES = 1 << 20


def folder(settings: Settings, name: str = "") -> str:
    """The `s3://…` address of what belongs to a name, or to all."""
    return f"{settings.landing_url.rstrip('/')}/{settings.prefix}frozen/{name}".rstrip("/")


def put(settings: Settings, name: str, path: str, content: Path | bytes) -> None:
    """Store a file under a name."""
    target = _path(settings, name, path)
    with object_store(settings).open_output_stream(target) as stream:
        if isinstance(content, bytes):
            stream.write(content)
        else:
            with content.open("rb") as file:
                while piece := file.read(READ_BYTES):
                    stream.write(piece)


def pieces(settings: Settings, name: str, path: str) -> Iterator[bytes]:
    """The bytes of a stored file.

    Raises:
        LorelineError: it is gone.
    """
    try:
        with object_store(settings).open_input_stream(_path(settings, name, path)) as stream:
            while piece := stream.read(READ_BYTES):
                yield piece
    except FileNotFoundError as error:
        raise LorelineError(
            f"{folder(settings, name)}/{path} is gone", "restore the bucket"
        ) from error


def sha256(settings: Settings, name: str, path: str) -> str:
    """The digest of a stored file; empty where it is gone."""
    digest = hashlib.sha256()
    try:
        for piece in pieces(settings, name, path):
            digest.update(piece)
    except LorelineError:
        return ""
    return digest.hexdigest()


def draft(settings: Settings, name: str) -> dict[str, Any] | None:
    """What a freeze that has not come to its end had set out to do."""
    if object_store(settings).get_file_info(_path(settings, name, DRAFT)).type is FileType.NotFound:
        return None
    return json.loads(b"".join(pieces(settings, name, DRAFT)))


def drafts(settings: Settings) -> list[str]:
    """Names of the freezes that have a draft."""
    path = folder(settings).removeprefix("s3://")
    listed = object_store(settings).get_file_info(
        FileSelector(path, recursive=True, allow_not_found=True)
    )
    return sorted(Path(info.path).parent.name for info in listed if info.base_name == DRAFT)


def remove(settings: Settings, name: str) -> None:
    """Delete all that is stored under a name, the draft last."""
    store, path = object_store(settings), folder(settings, name).removeprefix("s3://")
    listed = store.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    files = [info.path for info in listed if info.type is FileType.File]
    for file in sorted(files, key=lambda file: file.endswith(f"/{DRAFT}")):
        store.delete_file(file)


def remove_draft(settings: Settings, name: str) -> None:
    """Delete the draft: all that it names is registered, or undone."""
    store, path = object_store(settings), _path(settings, name, DRAFT)
    if store.get_file_info(path).type is not FileType.NotFound:
        store.delete_file(path)


def _path(settings: Settings, name: str, path: str) -> str:
    return f"{folder(settings, name).removeprefix('s3://')}/{path}"
