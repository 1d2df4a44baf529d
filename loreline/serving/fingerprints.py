"""What a served row should hold, as one digest that Postgres computes from what it does hold.

`fingerprint` is the twin of the SQL function `serving.fingerprint` (migration 0002).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

# The types of pgvector that hold embeddings, with the values in the bytes that they are sent as.
STORAGES = {"vector": ">f4", "halfvec": ">f2"}

# From here on a value rounds to more than the largest half-precision number, 65,504.
HALFVEC_LIMIT = 65_520


def vector_bytes(embedding: np.ndarray, storage: str = "vector") -> bytes:
    """The bytes that pgvector sends: two 16-bit integers, then big-endian values.

    Args:
        embedding: shape (dimensions,), any float type; rounded to float32, and from that to half
            precision, each time to the nearest, from the middle to the even one, like pgvector.
        storage: `vector` gives what `vector_send` does, `halfvec` what `halfvec_send` does.
    """
    values = embedding.astype(np.float32).astype(STORAGES[storage])
    return len(embedding).to_bytes(2, "big") + b"\0\0" + values.tobytes()


def vector_sha256(embedding: np.ndarray, storage: str = "vector") -> str:
    """SHA-256 of an embedding as pgvector sends it, in lower-case hex."""
    return hashlib.sha256(vector_bytes(embedding, storage)).hexdigest()


def halfvec_sha256(embedding: np.ndarray) -> str | None:
    """The same of a halfvec; None where one cannot hold the embedding."""
    if (np.abs(embedding) >= HALFVEC_LIMIT).any():
        return None
    return vector_sha256(embedding, "halfvec")


def fingerprint(
    text: str, embedding: np.ndarray, allowed_principals: Iterable[str], storage: str = "vector"
) -> str:
    """SHA-256 of a chunk's text, vector and readers, in lower-case hex.

    Over `<sha256 of the UTF-8 text>:<sha256 of the vector>:<principals joined by commas>`, the
    principals sorted by their UTF-8 bytes, which is Python's own order of strings.
    """
    text_sha256 = hashlib.sha256(text.encode()).hexdigest()
    readers = ",".join(sorted(allowed_principals))
    return hashlib.sha256(
        f"{text_sha256}:{vector_sha256(embedding, storage)}:{readers}".encode()
    ).hexdigest()
