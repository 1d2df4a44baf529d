"""Observations that are compared at once, a column each, and the raw rows made of them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from dlt_sources.versions import (
    ABSENT_TIME,
    NO_METADATA,
    Json,
    Key,
    Resource,
    State,
    microseconds,
)

# Larger payloads are stored as objects and referenced by `raw_object_uri`.
MAX_PAYLOAD_BYTES = 1024 * 1024

INSTANT = pa.timestamp("us")
RAW_SCHEMA = pa.schema(
    {
        "external_id": pa.string(),
        "content_hash": pa.string(),
        "metadata_hash": pa.string(),
        "payload": pa.string(),
        "raw_object_uri": pa.string(),
        "source_updated_at": INSTANT,
        "observed_at": INSTANT,
        "landed_at": INSTANT,
        "is_deleted": pa.bool_(),
        "landed_by": pa.string(),
        "delivery_id": pa.string(),
        "_dlt_id": pa.string(),
    }
)


@dataclass(slots=True)
class Observation:
    """An object as it was seen at one moment.

    Attributes:
        external_id: its id at the source.
        payload: what the source said; None for a deletion that says no more, which keeps the
            payload of the last version.
        observed_at: when the source said it.
        source_updated_at: when the source says the object changed.
        is_deleted: whether the object is gone.
        raw: the payload as received, where it is one JSON text.
        delivery_id: of the webhook or message that brought it.
        origin: where it was read, for messages.
    """

    external_id: str
    payload: Json
    observed_at: datetime
    source_updated_at: datetime | None = None
    is_deleted: bool = False
    raw: bytes | None = None
    delivery_id: str | None = None
    origin: str = ""


class Slice:
    """A slice of observations in the order in which they came.

    Columns are lists of texts and numbers: an object for each row would be one more for the garbage
    collector to visit, at a third of the time of a load.
    """

    def __init__(self) -> None:
        self.external_ids: list[str] = []
        self.content_hashes: list[str | None] = []
        self.metadata_hashes: list[str | None] = []
        self.deleted: list[bool] = []
        self.observed: list[int] = []
        self.updated: list[int] = []
        self.payloads: list[bytes | str | None] | pa.Array = []
        self.delivery_ids: list[str | None] = []
        self.uris: dict[int, str | None] = {}
        # Positions of deletions without a payload, and of payloads that need an object.
        self.silent: list[int] = []
        self.large: list[int] = []
        self.bytes = 0
        # The observations of one export share one moment.
        self._moment: datetime | None = None
        self._microseconds = 0

    def __len__(self) -> int:
        return len(self.external_ids)

    @classmethod
    def of_table(cls, table: pa.Table) -> Self:
        """Simple rows in bulk.

        Args:
            table: `external_id`, `payload` (canonical JSON as text) and `observed_at`, and
                optionally `source_updated_at` and `delivery_id`.
        """
        self = cls()
        payload = table["payload"].combine_chunks()
        texts = payload.cast(pa.binary()).to_pylist()
        self.external_ids = table["external_id"].to_pylist()
        self.content_hashes = [hashlib.sha256(text).hexdigest() for text in texts]
        self.metadata_hashes = [NO_METADATA] * len(self)
        self.deleted = [False] * len(self)
        self.observed = _numbers(table, "observed_at")
        self.updated = _numbers(table, "source_updated_at")
        self.payloads = payload
        self.delivery_ids = (
            table["delivery_id"].to_pylist()
            if "delivery_id" in table.column_names
            else [None] * len(self)
        )
        too_long = pc.greater(pc.binary_length(payload), MAX_PAYLOAD_BYTES)
        self.large = pc.indices_nonzero(too_long).to_pylist()
        return self

    @classmethod
    def of_rows(cls, rows: pa.Table) -> Self:
        """Rows of `RAW_SCHEMA`, to be compared once more; their payloads do not matter for that."""
        self = cls()
        self.external_ids = rows["external_id"].to_pylist()
        self.content_hashes = rows["content_hash"].to_pylist()
        self.metadata_hashes = rows["metadata_hash"].to_pylist()
        self.deleted = rows["is_deleted"].to_pylist()
        self.observed = _numbers(rows, "observed_at")
        self.updated = _numbers(rows, "source_updated_at")
        self.payloads = [""] * len(self)
        return self

    def is_full(self, rows: int, size: int, following: Observation) -> bool:
        """Whether to stop before the next observation.

        Neighbouring versions of one object are compared together, within reason.
        """
        fill = max(len(self) / rows, self.bytes / size)
        return fill >= 2 or (fill >= 1 and following.external_id != self.external_ids[-1])

    def add(self, item: Observation, resource: Resource) -> None:
        """Add one observation.

        Raises:
            TypeError: its payload is nested more than 254 levels deep.
        """
        payload, hashes = None, (None, None)
        if item.payload is None:
            self.silent.append(len(self))
        else:
            hashes = resource.hashes(item.payload)
            payload = item.raw or orjson.dumps(item.payload)
            self.bytes += len(payload)
            if len(payload) > MAX_PAYLOAD_BYTES:
                self.large.append(len(self))
        if item.observed_at is not self._moment:
            self._moment, self._microseconds = item.observed_at, microseconds(item.observed_at)
        self.external_ids.append(item.external_id)
        self.content_hashes.append(hashes[0])
        self.metadata_hashes.append(hashes[1])
        self.deleted.append(item.is_deleted)
        self.observed.append(self._microseconds)
        self.updated.append(microseconds(item.source_updated_at))
        self.payloads.append(payload)
        self.delivery_ids.append(item.delivery_id)

    def key(self, n: int) -> Key:
        """Where an observation stands in time."""
        return Key(self.observed[n], self.updated[n])

    def state(self, n: int) -> State:
        """The version that an observation shows."""
        return State(self.content_hashes[n], self.metadata_hashes[n], self.deleted[n])

    def take_hashes(self, n: int, state: State) -> None:
        """A deletion that says no more is one of the version that it deletes."""
        self.content_hashes[n], self.metadata_hashes[n] = state.content_hash, state.metadata_hash

    def put_payload(self, n: int, payload: str | None, uri: str | None) -> None:
        """Replace a payload by another, or by the address of its object."""
        if isinstance(self.payloads, pa.Array):
            self.payloads = self.payloads.to_pylist()
        self.payloads[n], self.uris[n] = payload, uri

    def repeated_ids(self) -> set[str]:
        """Objects of which there is more than one observation."""
        if len(set(self.external_ids)) == len(self):
            return set()
        return {external_id for external_id, n in Counter(self.external_ids).items() if n > 1}

    def keys_and_hashes(self, repeated: set[str]) -> pa.Table:
        """What `LandedVersions.compare` takes."""
        return pa.table(
            {
                "n": pa.array(np.arange(len(self))),
                "external_id": pa.array(self.external_ids, pa.string()),
                "content_hash": pa.array(self.content_hashes, pa.string()),
                "metadata_hash": pa.array(self.metadata_hashes, pa.string()),
                "is_deleted": pa.array(self.deleted, pa.bool_()),
                "observed_at": pa.array(self.observed, pa.int64()),
                "is_single": pa.repeat(True, len(self))
                if not repeated
                else pa.array([identity not in repeated for identity in self.external_ids]),
            }
        )

    def rows(self, kept: Mapping[int, str], landed_at: pa.Array, landed_by: str) -> pa.Table:
        """The raw rows at the positions in `kept`, whose values are the row ids."""

        def of(values: Sequence[Any] | pa.Array) -> Any:
            if len(kept) == len(values):
                return values
            if isinstance(values, pa.Array):
                return values.take(pa.array(kept))
            return [values[n] for n in kept]

        columns = [
            pa.array(of(self.external_ids), pa.string()),
            pa.array(of(self.content_hashes), pa.string()),
            pa.array(of(self.metadata_hashes), pa.string()),
            pa.array(of(self.payloads), pa.string()),
            pa.array([self.uris.get(n) for n in kept], pa.string()),
            _instants(of(self.updated)),
            _instants(of(self.observed)),
            landed_at,
            pa.array(of(self.deleted), pa.bool_()),
            pa.repeat(landed_by, len(kept)),
            pa.array(of(self.delivery_ids), pa.string()),
            pa.array(kept.values(), pa.string()),
        ]
        return pa.Table.from_arrays(columns, schema=RAW_SCHEMA)


def _numbers(table: pa.Table, name: str) -> list[int]:
    if name not in table.column_names:
        return [ABSENT_TIME] * table.num_rows
    moments = table[name]
    if pa.types.is_timestamp(moments.type) and moments.type.tz:
        moments = moments.cast(pa.timestamp(moments.type.unit, "UTC"))
    numbers = moments.cast(pa.timestamp("us", moments.type.tz)).cast(pa.int64())
    return numbers.fill_null(ABSENT_TIME).to_pylist()


def _instants(times: list[int]) -> pa.Array:
    numbers = np.array(times, dtype=np.int64)
    return pa.array(numbers, mask=numbers == ABSENT_TIME).cast(INSTANT)
