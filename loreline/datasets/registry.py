"""The registry of frozen datasets: an append-only Iceberg table whose rows are the commit points.

A dataset is frozen when its row is there. Revoking one appends another row of the same name: the
latest row of a name says what it is now.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

import loreline
from loreline.datasets.exports import ExportedFile
from loreline.errors import LorelineError
from loreline.lake.catalog import find_table, load_catalog
from loreline.lake.commits import Writer, append
from loreline.operations.account import who
from loreline.postgres import connect
from loreline.settings import Settings

TABLE = "datasets.dataset_snapshot_registry"
# It names a folder, a tag and a part of an object's address.
NAME = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*")
LONGEST_NAME = 64
FROZEN, REVOKED = "frozen", "revoked"


@dataclass(frozen=True)
class Upstream:
    """A snapshot that a dataset was made from, directly or through others.

    Attributes:
        table: `namespace.table`.
        snapshot_id: of the table.
        tag: under which the snapshot is kept.
        read_by: the tables whose rows were made from it.
        made_from: JSON of what it was itself made from when the dataset was frozen (later builds
            may note other inputs for the same rows); empty where that is not recorded.
    """

    table: str
    snapshot_id: int
    tag: str
    read_by: tuple[str, ...]
    made_from: str = ""


@dataclass(frozen=True)
class FrozenDataset:
    """A row of the registry.

    Attributes:
        snapshot_name: the name it was frozen under.
        dataset: its table, as `namespace.table`.
        iceberg_snapshot_id: of that table.
        tag: under which the snapshot is kept.
        row_count: rows that were frozen.
        content_sha256: of the rows, in their order.
        upstream: the snapshots that it was made from.
        parameters: the condition, note and licence, and what the dataset was made from: commit,
            dbt's variables, inputs.
        writer: how the files were written, and the files.
        code_version: of Loreline and, behind a `+`, the git commit that built the dataset.
        mlflow_run_id: of the MLflow run that has the dataset among its inputs.
        frozen_at: when, in UTC.
        frozen_by: who.
        status: `frozen` or `revoked`.
        successor: the name of what should be used instead; empty without one.
        recorded_at: when this row was written, in UTC.
        recorded_by: who wrote it.
    """

    snapshot_name: str
    dataset: str
    iceberg_snapshot_id: int
    tag: str
    row_count: int
    content_sha256: str
    upstream: tuple[Upstream, ...]
    parameters: Mapping[str, Any]
    writer: Mapping[str, Any]
    code_version: str
    mlflow_run_id: str
    frozen_at: datetime
    frozen_by: str
    status: str = FROZEN
    successor: str = ""
    recorded_at: datetime | None = None
    recorded_by: str = ""

    @property
    def where(self) -> str:
        """The condition by which rows were chosen; empty for all."""
        return self.parameters["where"]

    @property
    def files(self) -> list[ExportedFile]:
        """The files that were written."""
        return [ExportedFile(**file) for file in self.writer["files"]]

    def facts(self) -> dict[str, Any]:
        """As JSON shows it."""
        return asdict(self)


SCHEMA = pa.schema(
    [
        ("snapshot_name", pa.string()),
        ("dataset", pa.string()),
        ("iceberg_snapshot_id", pa.int64()),
        ("tag", pa.string()),
        ("row_count", pa.int64()),
        ("content_sha256", pa.string()),
        ("upstream_snapshot_ids", pa.string()),
        ("parameters", pa.string()),
        ("writer", pa.string()),
        ("code_version", pa.string()),
        ("mlflow_run_id", pa.string()),
        ("frozen_at", pa.timestamp("us")),
        ("frozen_by", pa.string()),
        ("status", pa.string()),
        ("successor", pa.string()),
        ("recorded_at", pa.timestamp("us")),
        ("recorded_by", pa.string()),
    ]
)


def check_name(name: str) -> str:
    """A name under which something may be frozen.

    Raises:
        LorelineError: it could name something else: a folder above, another file.
    """
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        raise LorelineError(
            f"{name!r} is no name for a frozen dataset",
            f"use at most {LONGEST_NAME} lower-case letters and digits, with single - _ . between",
        )
    return name


def read(settings: Settings) -> list[FrozenDataset]:
    """The registry: the latest row of each name, in the order in which they were frozen."""
    table = find_table(load_catalog(settings), settings.prefix + TABLE)
    rows = table.scan().to_arrow().to_pylist() if table else []
    latest: dict[str, FrozenDataset] = {}
    for row in sorted(rows, key=lambda row: row["_batch"]):
        latest[row["snapshot_name"]] = _from_row(row)
    return sorted(latest.values(), key=lambda frozen: (frozen.frozen_at, frozen.snapshot_name))


def find(settings: Settings, name: str) -> FrozenDataset:
    """What was frozen under a name.

    Raises:
        LorelineError: nothing was.
    """
    known = {frozen.snapshot_name: frozen for frozen in read(settings)}
    if name not in known:
        raise LorelineError(f"no dataset is frozen as {name}", "`loreline datasets` lists them")
    return known[name]


def record(settings: Settings, frozen: FrozenDataset) -> FrozenDataset:
    """Append a row: from then on the dataset is frozen, or what the row says."""
    written = replace(frozen, recorded_at=now(), recorded_by=who())
    writer = Writer(f"{written.status}:{written.snapshot_name}", "loreline freeze", _version())
    rows = pa.Table.from_pylist([_to_row(written)], SCHEMA)
    append(settings, settings.prefix + TABLE, rows, writer=writer, job_id=writer.invocation_id)
    return written


@contextmanager
def freezing(settings: Settings) -> Iterator[None]:
    """Wait for whoever freezes or revokes in this target, and keep others waiting."""
    with connect(settings, autocommit=True) as connection:
        key = f"{settings.catalog_warehouse}.{settings.prefix}freeze"
        connection.execute("select pg_advisory_lock(hashtextextended(%s, 0))", (key,))
        yield


def now() -> datetime:
    """The time in UTC, without saying so, as the lake keeps times."""
    return datetime.now(UTC).replace(tzinfo=None)


def code_version(commit: str, *, is_clean: bool) -> str:
    """Of Loreline and the project's git commit: `0.1.0+0123abc…`, `.changed` when it was edited."""
    local = (commit or "no-commit") + ("" if is_clean or not commit else ".changed")
    return f"{_version()}+{local}"


def _version() -> str:
    return loreline.__version__


def _to_row(frozen: FrozenDataset) -> dict[str, Any]:
    row = {field.name: getattr(frozen, field.name) for field in fields(frozen)}
    row["upstream_snapshot_ids"] = json.dumps([asdict(one) for one in row.pop("upstream")])
    for name in ("parameters", "writer"):
        row[name] = json.dumps(row[name], sort_keys=True)
    return row


def _from_row(row: Mapping[str, Any]) -> FrozenDataset:
    values = {field.name: row[field.name] for field in fields(FrozenDataset) if field.name in row}
    for name in ("parameters", "writer"):
        values[name] = json.loads(values[name])
    values["upstream"] = _upstream(json.loads(row["upstream_snapshot_ids"]))
    return FrozenDataset(**values)


def _upstream(stored: Sequence[Mapping[str, Any]]) -> tuple[Upstream, ...]:
    return tuple(Upstream(**{**one, "read_by": tuple(one["read_by"])}) for one in stored)
