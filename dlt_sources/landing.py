"""How an observed object becomes a raw row, or does not.

A raw table holds one row per observed version of an object and is never edited. A row lands when
the object's content, its metadata or its deletion differ from the object's latest row, so A → B → A
lands three rows. The latest row is the one observed last, then the one changed last at the source,
then the one landed last: what an old export says of an object that was seen later is outdated, does
not land, and is counted.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

import dlt
import duckdb
import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from dlt.extract import DltResource
from psycopg.sql import SQL, Identifier

from dlt_sources.border import PACKAGE_BYTES, Border, ContractError, weight
from dlt_sources.landed_versions import LandedVersions, Latest
from dlt_sources.masking import Masking
from dlt_sources.objects import ObjectStore
from dlt_sources.quarantine import UNTIL_READ, Quarantine, Reject, storable
from dlt_sources.sightings import Sightings
from dlt_sources.slices import INSTANT, RAW_SCHEMA, Observation, Slice
from dlt_sources.versions import Resource, State, microseconds, row_id
from loreline.contracts.odcs import QUARANTINE, Contract, contract_of
from loreline.contracts.results import keep as keep_result
from loreline.contracts.results import recent_volume, remember_volume
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.catalog import find_table, load_catalog
from loreline.operations.quarantine import leave
from loreline.postgres import connect
from loreline.settings import Settings

# A slice is what is compared and yielded at once: the unit of memory.
SLICE_ROWS = 20_000
SLICE_BYTES = 32 * 1024 * 1024
DUCKDB_MEMORY_LIMIT = "512MB"
SECONDS_TO_BE_LET_IN = 15
# What the advisory locks on a source's name are for: who loads it, and who is to be let in.
SOURCE_LOCK = 1
URGENT_LOCK = 3


class BusyError(LorelineError):
    """Another load of the source is running."""


@dataclass
class LoadSummary:
    """What one load did.

    Attributes:
        source: notion, slack, …
        landed: rows by resource, tombstones included.
        unchanged: observations equal to the object's latest row.
        outdated: observations older than the object's latest row or sighting.
        tombstones: rows that record a deletion.
        quarantined: rejected inputs by reason, those known from earlier loads included.
        masked: keys and tokens that were masked, by rule.
        passed_over: files that hold nothing to land, such as attachments, by kind.
        seconds: how long it took.
        snapshots: ids of the Iceberg snapshots made, by table.
        broken: rules of contracts that rows break: `table`, `rule`, `rows`, `examples`, and what
            was `done` with the rows: quarantine or warn.
        new_fields: rows by field that no contract knows, as `table: field`.
    """

    source: str
    landed: Counter[str] = field(default_factory=Counter)
    unchanged: int = 0
    outdated: int = 0
    tombstones: int = 0
    quarantined: Counter[str] = field(default_factory=Counter)
    masked: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    snapshots: dict[str, list[int]] = field(default_factory=dict)
    broken: list[dict[str, Any]] = field(default_factory=list)
    new_fields: Counter[str] = field(default_factory=Counter)

    @property
    def rows(self) -> int:
        """Rows landed in all."""
        return self.landed.total()

    def add_broken(self, table: str, rule: str, rows: int, done: str, examples: list[Any]) -> None:
        """Count rows that break a rule, beside those of earlier batches."""
        for known in self.broken:
            if (known["table"], known["rule"], known["done"]) == (table, rule, done):
                known["rows"] += rows
                return
        self.broken.append(
            {"table": table, "rule": rule, "rows": rows, "done": done, "examples": examples}
        )


class Landing:
    """One load of one source: compares what is observed with what was landed.

    Only one load of a source runs at a time: entering waits for the one that holds the lock.

    Args:
        settings: the stores.
        source: notion, slack, …; its tables are `raw_<source>.<resource>`.
        landed_by: api, export, webhook, file or stream.
        progress: told in a line what goes on, after each slice and before waiting.
        waits: whether to wait for another load of the source; entering fails otherwise.
        is_urgent: whether another load that calls `let_in` is to let this one in; without `waits`,
            so much time is given it.
    """

    def __init__(
        self,
        settings: Settings,
        source: str,
        *,
        landed_by: str = "file",
        progress: Callable[[str], None] | None = None,
        waits: bool = True,
        is_urgent: bool = False,
    ) -> None:
        self.settings = settings
        self.source = source
        self.landed_by = landed_by
        self.waits = waits
        self.is_urgent = is_urgent
        self.summary = LoadSummary(source)
        self.namespace = f"{settings.prefix}raw_{source}"
        # The load that lets an urgent one in goes on to use its own.
        folder = f"{self.namespace}.urgent" if is_urgent else self.namespace
        self.folder = settings.home / "landing" / folder
        # Whether the input says that it shows all that there is; None where it says nothing.
        self.told_complete: bool | None = None
        self._masking = Masking(settings, self.summary.masked)
        self._progress = progress or (lambda line: None)
        self._whole: set[tuple[str, str]] = set()
        self._borders: dict[str, Border] = {}
        self._tables: dict[str, _RawTable] = {}
        self._last_landed_at = 0
        self._held = ExitStack()

    @classmethod
    def begin(cls, source: str) -> Self:
        """A load of its own for a source that is run by plain dlt; it ends with the process."""
        return cls(Settings.load(), source).__enter__()

    def __enter__(self) -> Self:
        # It takes a third of a second, in which the lock is waited for, and a source asked.
        self._begin_opening()
        try:
            self._lock()
        except BaseException:
            self.__exit__()
            raise
        self.objects = ObjectStore(self.settings)
        self.postgres = self._held.enter_context(connect(self.settings, autocommit=True))
        self.quarantine = Quarantine(self.settings, self.source, self.postgres, self.objects)
        self.summary.quarantined = self.quarantine.counts
        # The lock makes the folder this load's own: what a killed one left is of no use.
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self._held.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._opening.exception():
            self.duckdb.close()
        self._held.close()

    def _begin_opening(self) -> None:
        pool = self._held.enter_context(ThreadPoolExecutor(1))
        self._opening = pool.submit(self._open_duckdb)

    @property
    def duckdb(self) -> duckdb.DuckDBPyConnection:
        """DuckDB with the lake attached as `lake`; waits until it is.

        Raises:
            LorelineError: a store does not answer.
        """
        return self._opening.result()

    def _open_duckdb(self) -> duckdb.DuckDBPyConnection:
        connection = duck.connect(self.settings)
        connection.execute(f"set memory_limit = '{DUCKDB_MEMORY_LIMIT}'")
        return connection

    def rows(
        self, resource: Resource, observations: Iterable[Observation | Reject | pa.Table]
    ) -> Iterator[pa.Table]:
        """Compare observations with the landed versions, in the order in which they come.

        Simple rows may come in bulk, as the tables that `Slice.of_table` takes. Rejected input met
        on the way goes to the quarantine, and so do rows that break the table's contract. All
        observations of a resource go through one call: at its end, their number is judged.

        Yields:
            Tables of `RAW_SCHEMA` with the rows to land; none where nothing changed.

        Raises:
            ContractError: rows break a contract that says to stop.
        """
        rows = self._compared(resource, observations)
        if contract := contract_of(self.settings, self.source, resource.name):
            rows = self._admitted(resource, contract, rows)
        try:
            for table in rows:
                # A source may never read again what lies before rows that are committed.
                self.quarantine.flush()
                yield table
        finally:
            self.quarantine.flush()

    def tombstones(
        self, resource: Resource, covered: str, observed_at: datetime, max_share: float, least: int
    ) -> Iterator[pa.Table]:
        """Delete what a complete observation covers and did not show.

        Args:
            resource: a swept resource, all of whose observations have gone through `rows`.
            covered: SQL condition on `external_id`: what the observation covers.
            observed_at: when it was made.
            max_share: the largest share of what is covered that may be absent, 0 to 1.
            least: fewer absent objects than this are never too many.

        Raises:
            LorelineError: more is absent than that, as after a broken export; nothing is deleted.
        """
        table = self._table(resource)
        if table.is_suspect:
            return
        absent, present = table.versions.absent(covered, observed_at)
        if len(absent) >= least and len(absent) > max_share * present:
            raise LorelineError(
                f"{len(absent)} of {present} {self.source} {resource.name} are absent, more than"
                f" {max_share:.0%}: none was deleted",
                "check that the export is complete; if it is, set"
                f" SOURCES__{self.source.upper()}__MAX_DELETED_SHARE=1 for this load",
            )
        yield from self._compared(
            resource, (Observation(i, None, observed_at, is_deleted=True) for i in absent)
        )

    def landed_table(self, resource: str) -> str | None:
        """The raw table as `duckdb` knows it; None where nothing is landed."""
        name = f"{self.namespace}.{resource}"
        return f"lake.{name}" if find_table(load_catalog(self.settings), name) else None

    def latest(self, resource: Resource) -> str:
        """SQL for the newest row of each object that is landed, as it was when the load began.

        Its columns are `external_id`, `payload`, `raw_object_uri`, `source_updated_at`,
        `observed_at` and `is_deleted`.
        """
        return self._table(resource).versions.latest()

    def was_read(self, resource: Resource, origin: str) -> None:
        """A file was read to its end: that it once was not need not wait in the quarantine."""
        self._whole.add((resource.name, storable(origin)))

    def finish(self, resources: Iterable[str]) -> None:
        """Record the load, once its rows are committed: sightings, what is settled, freshness."""
        for table in self._tables.values():
            table.sightings.save()
        if self._whole:
            self._settle()
        for resource in resources:
            self._record_freshness(resource)

    def remember_volumes(self, input_fingerprint: str) -> None:
        """Note how many rows a complete input showed, for the loads to come."""
        for resource, border in self._borders.items():
            volume = border.contract.volume
            is_meant = volume is not None and volume.is_meant_for(self.told_complete)
            if is_meant and border.observed and not self._tables[resource].is_suspect:
                remember_volume(
                    self.settings,
                    self.postgres,
                    self.source,
                    resource,
                    input_fingerprint,
                    border.observed,
                )

    def _admitted(
        self, resource: Resource, contract: Contract, compared: Iterator[pa.Table]
    ) -> Iterator[pa.Table]:
        """The rows that keep the contract; the others are set aside."""
        median = self._usual_volume(contract)
        border = Border(contract, self.settings.on_breach, self.objects.get, median)
        self._borders[resource.name] = border
        failure: LorelineError | None = None
        waiting: list[pa.Table] = []
        size = 0
        try:
            try:
                for rows in compared:
                    waiting.append(rows)
                    size += weight(rows)
                    if size >= PACKAGE_BYTES:
                        yield from self._judged(resource, border, waiting, so_far=True)
                        waiting, size = [], 0
            except ContractError:
                raise
            except LorelineError as error:
                # What was compared before the failure lands all the same.
                failure = error
            yield from self._judged(resource, border, waiting, so_far=failure is not None)
        finally:
            self._report(border)
        if failure:
            raise failure

    def _judged(
        self, resource: Resource, border: Border, package: list[pa.Table], *, so_far: bool
    ) -> Iterator[pa.Table]:
        """The rows of a package that keep the contract; there are more to come `so_far`."""
        good = package
        if package:
            rows = pa.concat_tables(package)
            if rejects := border.judge(rows):
                good = [self._set_aside(resource, rows, rejects)]
        if self._is_sudden(border, so_far=so_far):
            self._table(resource).is_suspect = True
            rows = pa.concat_tables([RAW_SCHEMA.empty_table(), *good])
            good = [self._set_aside(resource, rows, border.refuse(rows))]
        return filter(len, good)

    def _set_aside(
        self, resource: Resource, rows: pa.Table, rejects: Mapping[int, Reject]
    ) -> pa.Table:
        """Put rows into the quarantine, as if they had never been compared.

        Returns:
            The others. Of the same objects, only those that still differ from the row before.
        """
        table = self._table(resource)
        refused = np.zeros(len(rows), dtype=bool)
        refused[list(rejects)] = True
        for reject in rejects.values():
            self.quarantine.add(reject, resource.name)
        of_refused = pc.is_in(
            rows["external_id"],
            value_set=pa.array([r.external_id for r in rejects.values()], pa.string()),
        ).to_numpy()
        touched = rows.filter(pa.array(of_refused))
        again = rows.filter(pa.array(of_refused & ~refused))
        table.versions.forget(touched)
        kept = again
        if len(again):
            kept = again.take(pa.array(self._changes(table, Slice.of_rows(again)), pa.int64()))
            table.versions.remember(kept)
        self.summary.landed[resource.name] -= len(rejects) + len(again) - len(kept)
        self.summary.tombstones -= _count(touched["is_deleted"]) - _count(kept["is_deleted"])
        return pa.concat_tables([rows.filter(pa.array(~of_refused)), kept])

    def _usual_volume(self, contract: Contract) -> float | None:
        """The median of the rows of recent loads; None where their number is not judged."""
        if contract.volume is None or not contract.volume.is_meant_for(self.told_complete):
            return None
        return recent_volume(self.settings, self.postgres, contract, contract.volume.loads)

    def _is_sudden(self, border: Border, *, so_far: bool) -> bool:
        """Whether the number of rows is such that no more of them are to land.

        Raises:
            ContractError: it is, and the contract says to stop.
        """
        # A resource without any observation was not even looked up.
        if table := self._tables.get(border.contract.resource):
            border.observed = table.observed
        return border.judge_overflow() if so_far else border.judge_volume() == QUARANTINE

    def _report(self, border: Border) -> None:
        """Say in the summary what rows broke, and keep what was said of them."""
        found, contract = border.findings, border.contract
        for (rule, done), rows in found.breaches.items():
            self.summary.add_broken(
                contract.resource, rule, rows, done, found.examples.get(rule, [])
            )
        for name, rows in found.new_fields.items():
            self.summary.new_fields[f"{contract.resource}: {name}"] += rows
        if found.result:
            keep_result(self.settings, self.postgres, contract, found.rows, found.result)

    def is_wanted(self) -> bool:
        """Whether an urgent load of the source waits to be let in, which another one does not."""
        if self.is_urgent:
            return False
        place = (self._lock_name(), URGENT_LOCK)
        asked = self._lock_held.execute(
            "select pg_try_advisory_lock_shared(hashtextextended(%s, %s))", place
        ).fetchone()
        if asked == (False,):
            return True
        self._lock_held.execute("select pg_advisory_unlock_shared(hashtextextended(%s, %s))", place)
        return False

    def let_in(self) -> None:
        """Let an urgent load of the source run now, and know what it has landed.

        All that was compared has to be committed. `latest` goes on to tell what was there when this
        load began.
        """
        place = (self._lock_name(), SOURCE_LOCK)
        until = {
            name: table.versions.last_batch(self.landed_table(name))
            for name, table in self._tables.items()
        }
        # Who waits is given the lock by this; asked for again, it is had after them.
        self._lock_held.execute("select pg_advisory_unlock(hashtextextended(%s, %s))", place)
        self._lock_held.execute("select pg_advisory_lock(hashtextextended(%s, %s))", place)
        for name, table in self._tables.items():
            table.versions.catch_up(self.landed_table(name), until[name])
            table.sightings.catch_up()

    def _lock_name(self) -> str:
        return f"{self.settings.catalog_warehouse}.{self.namespace}"

    def _lock(self) -> None:
        """Hold the source's lock until the landing is closed, or the process dies."""
        self._lock_held = self._held.enter_context(connect(self.settings, autocommit=True))
        execute, key = self._lock_held.execute, self._lock_name()
        if self.is_urgent:
            if not self.waits:
                execute(f"set lock_timeout = '{SECONDS_TO_BE_LET_IN}s'")
            self._wait_for(key, URGENT_LOCK)
        statement = "select pg_try_advisory_lock(hashtextextended(%s, %s))"
        if execute(statement, (key, SOURCE_LOCK)).fetchone() == (False,):
            if not (self.waits or self.is_urgent):
                raise self._busy()
            if self.waits:
                self._progress(f"{self.source}: waiting for another load to end")
            self._wait_for(key, SOURCE_LOCK)

    def _wait_for(self, key: str, lock: int) -> None:
        try:
            self._lock_held.execute(
                "select pg_advisory_lock(hashtextextended(%s, %s))", (key, lock)
            )
        except psycopg.errors.LockNotAvailable:
            raise self._busy() from None

    def _busy(self) -> BusyError:
        return BusyError(
            f"another load of {self.source} is running",
            "what is new is in it, or in the next one",
        )

    def _table(self, resource: Resource) -> _RawTable:
        """What is landed of a resource, as it was when the load began and since."""
        if resource.name not in self._tables:
            name = f"{self.namespace}.{resource.name}"
            landed = find_table(load_catalog(self.settings), name)
            self._tables[resource.name] = _RawTable(
                f"{self.source}.{resource.name}",
                LandedVersions(self.duckdb, landed, resource.name),
                Sightings(self.duckdb, self.objects, name, self.folder),
            )
        return self._tables[resource.name]

    def _compared(
        self, resource: Resource, observations: Iterable[Observation | Reject | pa.Table]
    ) -> Iterator[pa.Table]:
        for arrived in self._slices(resource, observations):
            yield from self._compare(resource, arrived)

    def _slices(
        self, resource: Resource, observations: Iterable[Observation | Reject | pa.Table]
    ) -> Iterator[Slice]:
        arrived = Slice()
        failure: LorelineError | None = None
        try:
            for item in self._masking.masked(observations):
                if isinstance(item, Reject):
                    self.quarantine.add(item, resource.name)
                elif isinstance(item, pa.Table):
                    if resource.volatile or resource.metadata:
                        raise ValueError(f"{resource.name}: rows in bulk are hashed as they are")
                    for start in range(0, item.num_rows, SLICE_ROWS):
                        yield Slice.of_table(item.slice(start, SLICE_ROWS))
                else:
                    if arrived.is_full(SLICE_ROWS, SLICE_BYTES, item):
                        yield arrived
                        arrived = Slice()
                    self._add(resource, arrived, item)
        except LorelineError as error:
            # What was read before the failure lands all the same.
            failure = error
        if len(arrived):
            yield arrived
        if failure:
            raise failure

    def _add(self, resource: Resource, arrived: Slice, item: Observation) -> None:
        try:
            arrived.add(item, resource)
        except TypeError as error:
            raw = item.raw or json.dumps(item.payload).encode()
            self.quarantine.add(
                Reject("nested_too_deep", str(error), raw, item.origin), resource.name
            )

    def _compare(self, resource: Resource, arrived: Slice) -> Iterator[pa.Table]:
        table = self._table(resource)
        if resource.swept:
            table.versions.mark_seen(arrived.external_ids)
        kept = self._changes(table, arrived)
        table.observed += len(arrived)
        if kept:
            self._complete_payloads(table, arrived, kept)
            rows = arrived.rows(kept, self._landing_times(len(kept)), self.landed_by)
            table.versions.remember(rows)
            self.summary.landed[resource.name] += len(kept)
            self.summary.tombstones += sum(arrived.deleted[n] for n in kept)
            yield rows
        landed = self.summary.landed[resource.name]
        self._progress(f"{table.name}: {table.observed} observed, {landed} landed")

    def _changes(self, table: _RawTable, arrived: Slice) -> dict[int, str]:
        """The positions of the observations that are new versions, with their row ids."""
        repeated = arrived.repeated_ids()
        found = table.versions.compare(arrived.keys_and_hashes(repeated))
        known = found.latest
        replayed = _replayed(arrived, known, repeated)
        last_seen = table.sightings.last_seen(arrived.external_ids, arrived.observed)
        sighted = found.later
        kept: dict[int, str] = {}
        for n, external_id in enumerate(arrived.external_ids):
            if n in found.unchanged:
                continue
            latest, repetition = known.get(external_id), 0
            if latest or external_id in repeated:
                key = arrived.key(n)
                if latest and arrived.payloads[n] is None:
                    arrived.take_hashes(n, latest.state)
                state = arrived.state(n)
                if latest and (n in replayed or state == latest.state):
                    self.summary.unchanged += 1
                    if key.observed_at > latest.key.observed_at:
                        sighted.append(n)
                        last_seen[external_id] = max(last_seen.get(external_id, 0), key[0])
                    continue
                if latest and (key < latest.key or key[0] < last_seen.get(external_id, 0)):
                    self.summary.outdated += 1
                    continue
                same_time = latest.states if latest and key == latest.key else []
                repetition = same_time.count(state)
                known[external_id] = Latest(key, [*same_time, state])
            kept[n] = row_id(
                table.name,
                external_id,
                arrived.content_hashes[n],
                arrived.metadata_hashes[n],
                arrived.deleted[n],
                arrived.observed[n],
                arrived.updated[n],
                repetition,
            )
        self.summary.unchanged += len(found.unchanged)
        if sighted:
            table.sightings.add(
                [arrived.external_ids[n] for n in sighted], [arrived.observed[n] for n in sighted]
            )
        return kept

    def _complete_payloads(self, table: _RawTable, arrived: Slice, kept: Mapping[int, str]) -> None:
        """Give silent deletions the last known payload, and large payloads an object."""
        silent = [n for n in arrived.silent if n in kept]
        if silent:
            last = table.versions.payloads([arrived.external_ids[n] for n in silent])
            for n in silent:
                arrived.put_payload(n, *last.get(arrived.external_ids[n], (None, None)))
        for n in arrived.large:
            if n in kept:
                arrived.put_payload(n, None, self.objects.put(_bytes(arrived.payloads[n])))

    def _landing_times(self, count: int) -> pa.Array:
        """`landed_at` of new rows: no two of a load are equal, so that it tells their order."""
        first = max(microseconds(datetime.now(UTC)), self._last_landed_at + 1)
        self._last_landed_at = first + count - 1
        return pa.array(np.arange(first, first + count)).cast(INSTANT)

    def _settle(self) -> None:
        """Take out of the quarantine what was set aside of files that were read by now."""
        waiting = self.postgres.execute(
            SQL(
                "select fingerprint, resource, origin from {}"
                " where source = %s and reason = any(%s)"
            ).format(Identifier(f"{self.settings.prefix}operations", "quarantine")),
            (self.source, [*UNTIL_READ]),
        )
        settled = [known for known, *place in waiting if tuple(place) in self._whole]
        leave(self.postgres, self.settings, settled, "landed")

    def _record_freshness(self, resource: str) -> None:
        """Bring `operations.source_freshness` to what the raw table holds now."""
        table = self.landed_table(resource)
        if table is None:
            return
        totals = self.duckdb.execute(
            f"""
            select
                max(landed_at),
                max(source_updated_at),
                count(*),
                count(*) filter (is_deleted)
            from {table}
            """  # noqa: S608 - the name is our own
        ).fetchone()
        assert totals is not None
        if totals[0] is None:
            return
        self.postgres.execute(
            SQL(
                "insert into {} (source, resource, last_landed_at, last_source_update, rows,"
                " tombstones) values (%s, %s, %s at time zone 'utc', %s at time zone 'utc', %s, %s)"
                " on conflict (source, resource) do update set"
                " last_landed_at = excluded.last_landed_at,"
                " last_source_update = excluded.last_source_update,"
                " rows = excluded.rows, tombstones = excluded.tombstones"
            ).format(Identifier(f"{self.settings.prefix}operations", "source_freshness")),
            (self.source, resource, *totals),
        )


@dataclass
class _RawTable:
    """One raw table during a load."""

    name: str
    versions: LandedVersions
    sightings: Sightings
    observed: int = 0
    # Its input shows so much more or less than usual that nothing is concluded from it.
    is_suspect: bool = False


def raw_resource(rows: Iterable[Any], name: str) -> DltResource:
    """Tables of `RAW_SCHEMA` as the dlt resource that appends them to a raw table."""
    return dlt.resource(
        rows,
        name=name,
        write_disposition="append",
        table_format="iceberg",
        columns={
            column.name: {"data_type": "timestamp", "timezone": False, "precision": 6}
            for column in RAW_SCHEMA
            if column.type == INSTANT
        },
    )


def _replayed(arrived: Slice, known: Mapping[str, Latest], repeated: set[str]) -> set[int]:
    """Positions of versions that an earlier load of the same observation has landed already.

    Where an object comes several times at the very same time, as in A → B → A, equality with the
    latest row does not tell a second load from a change: the sequences have to be compared.
    """
    runs: dict[str, list[int]] = {}
    for n, external_id in enumerate(arrived.external_ids) if repeated else ():
        latest = known.get(external_id) if external_id in repeated else None
        if latest and arrived.key(n) == latest.key:
            runs.setdefault(external_id, []).append(n)
    found: set[int] = set()
    for external_id, run in runs.items():
        changes = [
            n
            for before, n in zip([None, *run], run, strict=False)
            if before is None or arrived.state(before) != arrived.state(n)
        ]
        overlap = _overlap(known[external_id].states, [arrived.state(n) for n in changes])
        first_new = [*changes, run[-1] + 1][overlap]
        found.update(n for n in run if n < first_new)
    return found


def _overlap(landed: list[State], arriving: list[State]) -> int:
    """How many of the arriving states are the last of the landed ones."""
    longest = min(len(landed), len(arriving))
    return next((n for n in range(longest, 0, -1) if landed[-n:] == arriving[:n]), 0)


def _count(flags: pa.ChunkedArray) -> int:
    return pc.sum(flags).as_py() or 0


def _bytes(payload: Any) -> bytes:
    return payload if isinstance(payload, bytes) else str(payload).encode()
