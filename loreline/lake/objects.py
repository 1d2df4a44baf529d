"""Payloads too large for a table row, as objects named by their content."""

from __future__ import annotations

import hashlib
from functools import lru_cache

from pyarrow.fs import FileSystem, FileType, S3FileSystem

from loreline.errors import LorelineError
from loreline.settings import Settings


@lru_cache(maxsize=8)
def object_store(settings: Settings) -> FileSystem:
    """The S3 endpoint of the settings."""
    scheme, _, endpoint = settings.s3_endpoint.partition("://")
    return S3FileSystem(
        access_key=settings.s3_access_key_id,
        secret_key=settings.s3_secret_access_key,
        region=settings.s3_region,
        scheme=scheme,
        endpoint_override=endpoint,
    )


def write_object(settings: Settings, content: bytes) -> str:
    """Store bytes once, under their SHA-256; returns the `s3://…` address."""
    name = hashlib.sha256(content).hexdigest()
    address = f"{settings.landing_url.rstrip('/')}/objects/{name[:2]}/{name}"
    store, path = object_store(settings), address.removeprefix("s3://")
    if store.get_file_info(path).type is FileType.NotFound:
        with store.open_output_stream(path) as stream:
            stream.write(content)
    return address


def read_object(settings: Settings, address: str) -> bytes:
    """The bytes stored under an address.

    Raises:
        LorelineError: there is no such object.
    """
    try:
        with object_store(settings).open_input_stream(address.removeprefix("s3://")) as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise LorelineError(
            f"payload object {address} is gone", "land its source again, or restore the bucket"
        ) from error
