"""Input that could not be landed: counted by reason, and kept with its bytes.

One row of `operations.quarantine` per distinct input, however often the same file is read.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import psycopg
from psycopg.sql import SQL, Identifier

from dlt_sources.objects import ObjectStore
from loreline.settings import Settings

# Larger ones are objects; the row then holds their address.
MAX_INLINE_BYTES = 64 * 1024
# Of a file, not of what is in it: until it was read to its end.
UNTIL_READ = ("broken_archive", "unreadable_file")
_FLUSH_ROWS = 500


@dataclass(frozen=True, slots=True)
class Reject:
    """A piece of input that is set aside.

    Attributes:
        reason: a short name, counted by: broken_json, missing_id, wrong_type, …
        detail: what exactly is wrong, for a person.
        raw: the bytes as received.
        origin: where they came from: file, and line or element.
        resource: the raw table that they were meant for, where that is known.
        external_id: the object's id, where it has one.
        observed_at: when the source said it, where that is known.
        source_updated_at: when the source says the object changed, likewise.
    """

    reason: str
    detail: str
    raw: bytes
    origin: str
    resource: str = ""
    external_id: str | None = None
    observed_at: datetime | None = None
    source_updated_at: datetime | None = None


class Quarantine:
    """Collects what one load sets aside and writes it to Postgres in batches.

    What somebody has dropped before is counted, and not set aside again.

    Attributes:
        counts: rejected input by reason.
        observed_at: when the load's input was observed: when a reject was, which does not say so.
    """

    def __init__(
        self,
        settings: Settings,
        source: str,
        connection: psycopg.Connection,
        objects: ObjectStore,
    ) -> None:
        self.source = source
        self.connection = connection
        self.objects = objects
        self.counts: Counter[str] = Counter()
        self.observed_at: datetime | None = None
        self._rows: list[tuple[str | datetime | None, ...]] = []
        schema = f"{settings.prefix}operations"
        self._insert = SQL(
            "insert into {} (fingerprint, source, resource, external_id, reason, detail, payload,"
            " payload_uri, origin, observed_at, source_updated_at)"
            " select %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s"
            " where not exists (select from {} where fingerprint = %s and outcome = 'dropped')"
            " on conflict (fingerprint) do nothing"
        ).format(Identifier(schema, "quarantine"), Identifier(schema, "quarantine_log"))

    def add(self, reject: Reject, resource: str = "") -> None:
        """Set one piece of input aside; `resource` names its table unless the reject does."""
        self.counts[reject.reason] += 1
        resource = reject.resource or resource
        text, uri = self._kept(reject.raw)
        fingerprint = hashlib.sha256(
            b"\0".join(
                [self.source.encode(), resource.encode(), reject.reason.encode(), reject.raw]
            )
        )
        self._rows.append(
            (
                fingerprint.hexdigest(),
                self.source,
                resource,
                reject.external_id,
                reject.reason,
                storable(reject.detail),
                text,
                uri,
                storable(reject.origin),
                reject.observed_at or self.observed_at,
                reject.source_updated_at,
                fingerprint.hexdigest(),
            )
        )
        if len(self._rows) >= _FLUSH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what was collected; inputs that are there already stay as they are."""
        if not self._rows:
            return
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(self._insert, self._rows)
        self._rows.clear()

    def _kept(self, raw: bytes) -> tuple[str | None, str | None]:
        """The bytes as text where Postgres can hold them, otherwise the address of an object."""
        if len(raw) <= MAX_INLINE_BYTES and b"\0" not in raw:
            try:
                return raw.decode(), None
            except UnicodeDecodeError:
                pass
        return None, self.objects.put(raw)


def storable(text: str) -> str:
    """Text as Postgres can hold it."""
    return text.replace("\0", "\\0").encode(errors="replace").decode()
