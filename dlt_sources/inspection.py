"""What contracts say of rows that are not about to land: files before, and raw tables after."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import duckdb
import pyarrow as pa

from dlt_sources.border import PACKAGE_BYTES, Border, Findings, weight
from dlt_sources.json_files import told_complete
from dlt_sources.landing import Landing
from dlt_sources.objects import ObjectStore
from dlt_sources.quarantine import Reject
from dlt_sources.slices import MAX_PAYLOAD_BYTES, Observation
from dlt_sources.versions import Resource
from loreline.contracts.odcs import WARN, Contract, contract_of
from loreline.contracts.results import recent_volume
from loreline.lake.duck import connect as connect_lake
from loreline.postgres import connect
from loreline.settings import Settings

# Rows of a raw table that are judged at once: bounded by their bytes, too, as at landing.
BATCH_ROWS = 20_000


class Inspection(Landing):
    """A landing that lands nothing: it reads a source and judges all that it says.

    No store is needed for it. Rows are not compared with what is landed, and none is set aside.

    Attributes:
        findings: of each table that has a contract.
        without_contract: tables that have none.
        rejected: input that could not be read, by reason.
    """

    def __init__(
        self, settings: Settings, source: str, progress: Callable[[str], None] | None = None
    ) -> None:
        super().__init__(settings, source, progress=progress)
        self.findings: list[Findings] = []
        self.without_contract: list[str] = []
        self.rejected: Counter[str] = Counter()

    def __enter__(self) -> Self:
        folder = self._held.enter_context(tempfile.TemporaryDirectory())
        self.folder = Path(folder)
        self._begin_opening()
        self.quarantine = SimpleNamespace(
            add=self._reject, flush=lambda: None, counts=self.rejected
        )  # type: ignore[assignment]
        return self

    def rows(
        self, resource: Resource, observations: Iterable[Observation | Reject | pa.Table]
    ) -> Iterator[pa.Table]:
        """Judge observations; nothing comes of them."""
        contract = contract_of(self.settings, self.source, resource.name)
        if contract is None:
            self.without_contract.append(resource.name)
        tables = self._read(resource, observations)
        border = Border(contract, WARN, _none_is_kept) if contract else None
        for package in packages(tables):
            if border:
                border.observed += len(package)
                border.judge(package)
                self._progress(f"{border.contract.name}: {border.observed:,} rows")
        if border:
            self.findings.append(border.findings)
            self._judge_volume(border)
        yield from ()

    def _open_duckdb(self) -> duckdb.DuckDBPyConnection:
        return duckdb.connect()

    def landed_table(self, resource: str) -> None:
        """Nothing is taken for landed: input is judged from its beginning."""

    def tombstones(self, *_: object) -> Iterator[pa.Table]:
        """Nothing is concluded from what is absent."""
        yield from ()

    def _read(
        self, resource: Resource, observations: Iterable[Observation | Reject | pa.Table]
    ) -> Iterator[pa.Table]:
        for arrived in self._slices(resource, observations):
            positions = dict.fromkeys(range(len(arrived)), "")
            yield arrived.rows(positions, self._landing_times(len(arrived)), self.landed_by)

    def _judge_volume(self, border: Border) -> None:
        volume = border.contract.volume
        if not volume or not self.settings.postgres_url:
            return
        if not volume.is_meant_for(self.told_complete):
            return
        with connect(self.settings) as connection:
            border.median = recent_volume(self.settings, connection, border.contract, volume.loads)
        border.judge_volume()

    def _reject(self, reject: Reject, resource: str = "") -> None:
        self.rejected[reject.reason] += 1


def inspect(
    settings: Settings,
    source: str,
    location: str | Path,
    observed_at: datetime | None = None,
    progress: Callable[[str], None] | None = None,
) -> Inspection:
    """Judge what a source would say from a location; `progress` is told how far it is.

    Raises:
        LorelineError: it cannot be read.
    """
    from dlt_sources.pipeline import SOURCES

    with Inspection(settings, source, progress) as inspection:
        inspection.told_complete = told_complete(Path(location))
        for resource in SOURCES[source](
            location, observed_at, landing=inspection
        ).selected_resources.values():
            for _ in resource:
                pass
    return inspection


def judge_landed(
    settings: Settings, contract: Contract, progress: Callable[[str], None] = lambda line: None
) -> Findings:
    """Judge the newest versions that a raw table holds, a part at a time; `progress` is told."""
    table = f'lake."{settings.prefix}raw_{contract.source}"."{contract.resource}"'
    objects = ObjectStore(settings)
    with connect_lake(settings) as lake:
        border = Border(contract, WARN, objects.get)
        progress(contract.name)
        reader = lake.execute(
            f"""
            with newest as (
                select arg_max(
                    _dlt_id,
                    (observed_at, coalesce(source_updated_at, '-infinity'), _batch, landed_at)
                ) as _dlt_id
                from {table}
                group by external_id
            )
            select external_id, payload, raw_object_uri, is_deleted, observed_at, source_updated_at
            from {table}
            where _dlt_id in (select newest._dlt_id from newest) and not is_deleted
            """  # noqa: S608 - the names in it are our own
        ).to_arrow_reader(BATCH_ROWS)
        for package in packages(chain.from_iterable(map(_parts, reader))):
            border.judge(package)
            progress(f"{contract.name}: {border.findings.rows:,} rows")
    return border.findings


def packages(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Tables put together to what is judged at once."""
    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        waiting.append(table)
        size += weight(table)
        if size >= PACKAGE_BYTES:
            yield pa.concat_tables(waiting)
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting)


def _parts(batch: pa.RecordBatch) -> Iterator[pa.Table]:
    """A batch cut into parts, smaller ones where payloads are kept as objects."""
    table = pa.Table.from_batches([batch])
    step = len(table) if weight(table) <= PACKAGE_BYTES else PACKAGE_BYTES // MAX_PAYLOAD_BYTES
    for start in range(0, len(table), max(step, 1)):
        yield table.slice(start, step)


def _none_is_kept(uri: str) -> bytes:
    raise ValueError(uri)
