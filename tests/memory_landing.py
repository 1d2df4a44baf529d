"""A landing of Linear's tables in memory: for what needs many runs, and no lake."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import UTC
from itertools import islice
from typing import Any

import duckdb
import pyarrow as pa

from dlt_sources.landed_versions import registered
from dlt_sources.linear.settings import TABLES
from dlt_sources.live import Batch, Run
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.sweeps import Rails
from dlt_sources.versions import Resource
from loreline.settings import Settings

ROWS = "external_id varchar, payload varchar, source_updated_at timestamp, is_deleted boolean"


class MemoryCursors(dict):
    """Cursors as `dlt_sources.cursors.Cursors` keeps them."""

    def named(self, prefix: str) -> dict[str, Any]:
        return {k.removeprefix(prefix): v for k, v in self.items() if k.startswith(prefix)}

    def save(self, values: dict[str, Any]) -> None:
        self.update({name: json.loads(json.dumps(value)) for name, value in values.items()})


class MemoryLanding:
    """The newest version of each object; a run sees them as they were when it began."""

    def __init__(self) -> None:
        self.duckdb = duckdb.connect(config={"threads": 1})
        self.objects: dict[str, dict[str, Observation]] = {name: {} for name in TABLES}
        for table in TABLES:
            self.duckdb.execute(f"create table {table} ({ROWS})")

    def begin(self) -> None:
        for table, objects in self.objects.items():
            self.duckdb.execute(f"delete from {table}")
            seen = objects.values()
            times = [each.source_updated_at for each in seen]
            rows = pa.table(
                {
                    "external_id": pa.array(objects, pa.string()),
                    "payload": pa.array([json.dumps(each.payload) for each in seen], pa.string()),
                    "source_updated_at": pa.array(
                        [t and t.astimezone(UTC).replace(tzinfo=None) for t in times],
                        pa.timestamp("us"),
                    ),
                    "is_deleted": pa.array([each.is_deleted for each in seen], pa.bool_()),
                }
            )
            with registered(self.duckdb, "newest", rows):
                self.duckdb.execute(f"insert into {table} select * from newest")

    def latest(self, resource: Resource) -> str:
        return f"select * from {resource.name}"

    def commit(self, batch: Batch) -> int:
        changed = 0
        for resource, seen in batch.observations:
            if not isinstance(seen, Observation):
                continue
            objects = self.objects[resource.name]
            known = objects.get(seen.external_id)
            if known and seen.observed_at < known.observed_at:
                continue
            if seen.payload is None and known:
                seen.payload = known.payload
            changed += known is None or (known.is_deleted, resource.hashes(known.payload)) != (
                seen.is_deleted,
                resource.hashes(seen.payload),
            )
            objects[seen.external_id] = seen
        return changed


class Memory:
    """What is landed of Linear.

    Attributes:
        rejects: what was set aside.
    """

    def __init__(self) -> None:
        self.landing, self.cursors = MemoryLanding(), MemoryCursors()
        self.rejects: list[Reject] = []

    def land(
        self,
        settings: Settings,
        fetching: Callable[[Run], Iterable[Batch]],
        *,
        sweep: bool = False,
        stop: int | None = None,
        share: float = 1.0,
    ) -> int:
        """One run, which is killed after `stop` batches.

        Returns:
            How many observations changed something.
        """
        self.landing.begin()
        rails = Rails(share)
        run = Run(settings, self.landing, self.cursors, sweep, rails, lambda line: None, {})  # type: ignore[arg-type]
        changed = 0
        for batch in islice(fetching(run), stop):
            self.rejects += [each for _, each in batch.observations if isinstance(each, Reject)]
            changed += self.landing.commit(batch)
            self.cursors.save(dict(batch.cursors))
        return changed

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """Payloads by id of what is landed and not deleted."""
        return {
            identity: seen.payload
            for identity, seen in self.landing.objects[table].items()
            if not seen.is_deleted
        }
