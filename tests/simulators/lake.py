"""A lake in memory: what a live source lands there, as long as no store is what is tested.

It keeps the newest row of each object as landing does, and cursors as they are saved.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb
import orjson
import pyarrow as pa

from dlt_sources.landing import LoadSummary
from dlt_sources.live import Batch, LiveSource, Plan, Run
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.sweeps import Rails
from dlt_sources.versions import Resource, State, microseconds
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any


@dataclass
class Row:
    """The newest version of an object."""

    key: tuple[int, int]
    state: State
    payload: Json
    seen_at: int


class Killed(Exception):  # noqa: N818 - it is not an error of the program
    """The process ends here."""


class MemoryCursors:
    """Cursors that outlive a run."""

    def __init__(self) -> None:
        self.values: dict[str, Json] = {}

    def get(self, name: str, unless_known: Json = None) -> Json:
        return self.values.get(name, unless_known)

    def time(self, name: str) -> datetime | None:
        told = self.get(name)
        return datetime.fromisoformat(told) if told else None

    def named(self, prefix: str) -> dict[str, Json]:
        found = {n.removeprefix(prefix): v for n, v in self.values.items() if n.startswith(prefix)}
        return orjson.loads(orjson.dumps(found))

    def save(self, values: dict[str, Json]) -> None:
        for name, value in orjson.loads(orjson.dumps(values)).items():
            if value is None:
                self.values.pop(name, None)
            else:
                self.values[name] = value


@dataclass
class MemoryLake:
    """Tables by name, each with rows by id.

    Attributes:
        settings: of the source.
        rows_landed: by the last run.
        rejects: of all runs.
        snapshots: the commits of the last run that landed rows.
        batches_per_commit: how many batches are committed at once.
        told: what runs said of their progress.
        dies_after: ends the next run once that many commits were made, before their cursors are
            saved.
    """

    settings: Settings
    tables: dict[str, dict[str, Row]] = field(default_factory=dict)
    cursors: MemoryCursors = field(default_factory=MemoryCursors)
    rejects: list[Reject] = field(default_factory=list)
    rows_landed: int = 0
    snapshots: int = 0
    batches_per_commit: int = 3
    dies_after: int | None = None
    summary: LoadSummary = field(default_factory=lambda: LoadSummary("memory"))
    told: list[str] = field(default_factory=list)

    def run(
        self,
        source: LiveSource,
        *,
        sweep: bool = False,
        names: Sequence[str] | None = None,
        max_deleted_share: float = 1.0,
    ) -> None:
        """Fetch what is new, as `load_live` does."""
        run = self._begin(sweep, max_deleted_share)
        batches = source.fetch(run) if names is None else source.fetch_named(run, names)
        waiting: list[Batch] = []
        failure: LorelineError | None = None
        try:
            for batch in batches:
                waiting.append(batch)
                if len(waiting) >= self.batches_per_commit:
                    self._commit(waiting)
                    waiting = []
        except LorelineError as error:
            failure = error
        finally:
            batches.close()
        self._commit(waiting)
        self.duckdb.close()
        if failure:
            raise failure

    def plan(self, source: LiveSource, *, sweep: bool = False) -> Plan:
        """What `run` would do."""
        return source.plan(self._begin(sweep, 1.0))

    def land(self, resource: Resource, items: Iterable[Observation | Reject]) -> None:
        """Compare observations with the newest rows."""
        table = self.tables.setdefault(resource.name, {})
        for item in items:
            if isinstance(item, Reject):
                self.rejects.append(item)
                continue
            key = (microseconds(item.observed_at), microseconds(item.source_updated_at))
            known = table.get(item.external_id)
            if item.payload is None:
                before = known.state if known else State(None, None, True)
                state = State(before.content_hash, before.metadata_hash, item.is_deleted)
                payload = known.payload if known else None
            else:
                state = State(*resource.hashes(item.payload), item.is_deleted)
                payload = item.payload
            if known and state == known.state:
                known.seen_at = max(known.seen_at, key[0])
            elif known is None or (key >= known.key and key[0] >= known.seen_at):
                table[item.external_id] = Row(key, state, payload, key[0])
                self.rows_landed += 1

    def live(self, resource: Resource) -> dict[str, Json]:
        """Payloads of what is not deleted, by id."""
        rows = self.tables.get(resource.name, {})
        return {i: row.payload for i, row in rows.items() if not row.state.is_deleted}

    def latest(self, resource: Resource) -> str:
        """SQL for the newest rows, as they were when the run began."""
        if resource.name not in self._written:
            self._written.add(resource.name)
            self._write(resource.name)
        return f'select * from memory.main."landed {resource.name}"'

    def _begin(self, sweep: bool, max_deleted_share: float) -> Run:
        self.duckdb = duckdb.connect(config={"threads": 1})
        self._at_begin = {name: dict(rows) for name, rows in self.tables.items()}
        self._written: set[str] = set()
        self.summary = LoadSummary("memory")
        self.rows_landed = self.snapshots = 0
        return Run(
            self.settings,
            self,  # type: ignore[arg-type] - as far as sources know it
            self.cursors,  # type: ignore[arg-type]
            sweep,
            Rails(max_deleted_share),
            self.told.append,
        )

    def _commit(self, batches: Sequence[Batch]) -> None:
        before = self.rows_landed
        for batch in batches:
            for resource, item in batch.observations:
                self.land(resource, [item])
        self.snapshots += self.rows_landed > before
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                self.dies_after = None
                raise Killed
        for batch in batches:
            self.cursors.save(dict(batch.cursors))

    def _write(self, name: str) -> None:
        rows = self._at_begin.get(name, {})
        table = pa.table(
            {
                "external_id": pa.array(rows, pa.string()),
                "payload": pa.array(
                    [orjson.dumps(row.payload).decode() for row in rows.values()], pa.string()
                ),
                "raw_object_uri": pa.nulls(len(rows), pa.string()),
                "source_updated_at": pa.array(
                    [None if row.key[1] < 0 else row.key[1] for row in rows.values()],
                    pa.timestamp("us"),
                ),
                "observed_at": pa.array([row.key[0] for row in rows.values()], pa.timestamp("us")),
                "is_deleted": pa.array([row.state.is_deleted for row in rows.values()], pa.bool_()),
            }
        )
        self.duckdb.register("given", table)
        self.duckdb.execute(f'create table memory.main."landed {name}" as select * from given')
        self.duckdb.unregister("given")
