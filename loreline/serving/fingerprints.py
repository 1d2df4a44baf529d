"""What a served row should hold, as one digest that Postgres computes from what it does hold.

`fingerprint` is the twin of the SQL function `serving.fingerprint` (migration 0002).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np


def vector_bytes(embedding: np.ndarray) -> bytes:
    """The bytes that pgvector's `vector_send` gives: two 16-bit integers, then big-endian float32.

    Args:
        embedding: shape (dimensions,), any float type; rounded to float32.
    """
    return len(embedding).to_bytes(2, "big") + b"\0\0" + embedding.astype(">f4").tobytes()


def vector_sha256(embedding: np.ndarray) -> str:
    """SHA-256 of an embedding as pgvector sends it, in lower-case hex."""
    return hashlib.sha256(vector_bytes(embedding)).hexdigest()


def fingerprint(text: str, embedding: np.ndarray, allowed_principals: Iterable[str]) -> str:
    """SHA-256 of a chunk's text, vector and readers, in lower-case hex.

    Over `<sha256 of the UTF-8 text>:<sha256 of the vector>:<principals joined by commas>`, the
    principals sorted by their UTF-8 bytes, which is Python's own order of strings.
    """
    text_sha256 = hashlib.sha256(text.encode()).hexdigest()
    readers = ",".join(sorted(allowed_principals))
    return hashlib.sha256(
        f"{text_sha256}:{vector_sha256(embedding)}:{readers}".encode()
    ).hexdigest()
