"""Runs a source into the lake: what `loreline ingest` calls."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
import psycopg
import pyarrow as pa
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from pyiceberg.exceptions import CommitFailedException, RESTError

from dlt_sources.border import PACKAGE_BYTES, ContractError
from dlt_sources.destination import Lake
from dlt_sources.evaluation import evaluation
from dlt_sources.gateway import gateway
from dlt_sources.google_docs import google_docs
from dlt_sources.incident_reports import incident_reports
from dlt_sources.inputs import fingerprint, remember, was_landed
from dlt_sources.json_files import told_complete
from dlt_sources.judge import judge
from dlt_sources.landing import Landing, LoadSummary, raw_resource
from dlt_sources.linear import linear
from dlt_sources.loads import recorded
from dlt_sources.log_files import log_files
from dlt_sources.notion import notion
from dlt_sources.remote import is_remote, local_copy, without_password
from dlt_sources.review import review
from dlt_sources.slack import slack
from loreline import __version__
from loreline.contracts.odcs import digest_of
from loreline.errors import LorelineError
from loreline.lake.commits import Commit, Writer
from loreline.settings import Settings

SOURCES: dict[str, Callable[..., DltSource]] = {
    "evaluation": evaluation,
    "gateway": gateway,
    "google_docs": google_docs,
    "incident_reports": incident_reports,
    "judge": judge,
    "linear": linear,
    "log_files": log_files,
    "notion": notion,
    "review": review,
    "slack": slack,
}
# Sources that are in the stores of the settings, and nowhere else.
STORED_SOURCES = {"judge", "review"}
# Sources that tell by themselves what of their input is new, without reading all of it.
RESUMING_SOURCES = {"log_files"}
# How the object store, the catalog, Postgres and DuckDB say that they failed.
STORE_ERRORS = (OSError, RESTError, CommitFailedException, psycopg.Error, duckdb.Error)


def load(
    settings: Settings,
    source: str,
    location: str | Path | None = None,
    *,
    observed_at: datetime | None = None,
    progress: Callable[[str], None] | None = None,
    again: bool = False,
    waits: bool = True,
    **options: Any,
) -> LoadSummary:
    """Land what a source holds at a location.

    What an interrupted run had already compared is committed first. Landing the same input again
    changes nothing; input that was landed to its end is not even read.

    Args:
        settings: the stores.
        source: one of `SOURCES`.
        location: the file or folder to read, or the address of one as `dlt_sources.remote` says;
            None of a source that is in the stores.
        observed_at: when the input was exported, if the location does not tell.
        progress: told in a line what goes on.
        again: read and compare also what was landed to its end before.
        waits: whether to wait where another load of the source is running.
        options: arguments of the source's own, such as Slack's `max_deleted_share`.

    Raises:
        BusyError: another load is running, and this is not to wait.
        LorelineError: the location or a store cannot be read, or a sweep would delete too much;
            what was compared before is landed.
        ContractError: rows break a contract that says to stop; nothing of their package is landed.
    """
    if source not in SOURCES:
        raise LorelineError(f"no source is called {source}", f"use one of {', '.join(SOURCES)}")
    if (location is None) != (source in STORED_SOURCES):
        raise LorelineError(
            f"{source} is read from "
            + ("the stores, not from files" if location else "a file or folder"),
            "leave the location out" if location else "say where it is",
        )
    started = time.monotonic()
    landed_by = "file" if location else "api"
    with (
        Landing(settings, source, landed_by=landed_by, progress=progress, waits=waits) as landing,
        recorded(landing),
    ):
        summary = landing.summary

        def committed(commit: Commit) -> None:
            summary.snapshots.setdefault(commit.table, []).append(commit.snapshot_id)

        pipeline = _pipeline(settings, landing.namespace, committed)
        _run(pipeline)
        if location is not None and source not in RESUMING_SOURCES and is_remote(str(location)):
            if progress:
                progress(f"fetching what is new at {without_password(str(location))}")
            copies = settings.home / "copies" / landing.namespace
            location = local_copy(settings, str(location), copies)
        identity = (
            fingerprint(Path(location), observed_at, options, digest_of(settings, source))
            if location is not None and source not in RESUMING_SOURCES
            else None
        )
        if source in RESUMING_SOURCES:
            landing.told_complete = False
        elif location is not None:
            landing.told_complete = told_complete(Path(location))
        if identity and not again and was_landed(landing, identity):
            summary.seconds = time.monotonic() - started
            return summary
        rows = _Rows(SOURCES[source](location, observed_at, landing=landing, **options))
        while package := rows.package():
            _run(pipeline, package)
        landing.finish(rows.resources)
        if rows.error:
            raise rows.error
        if identity:
            landing.remember_volumes(identity)
            remember(landing, identity)
    summary.seconds = time.monotonic() - started
    return summary


def land_pending(landing: Landing) -> None:
    """Commit what an interrupted run had compared, before anything is compared with what landed."""
    _run(_pipeline(landing.settings, landing.namespace, lambda commit: None))


def land_tables(landing: Landing, tables: Iterable[tuple[str, pa.Table]]) -> None:
    """Land tables, each with the name of its resource, as one package."""

    def committed(commit: Commit) -> None:
        landing.summary.snapshots.setdefault(commit.table, []).append(commit.snapshot_id)

    pipeline = _pipeline(landing.settings, landing.namespace, committed)
    named = (dlt.mark.with_table_name(table, name) for name, table in tables)
    _run(pipeline, raw_resource(named, "raw_rows"))


def read_whole(source: DltSource) -> tuple[list[tuple[str, pa.Table]], LorelineError | None]:
    """All tables of a small input, each with its resource; and what ended the reading early."""
    rows = _Rows(source)
    return list(rows.tables), rows.error


class _Rows:
    """The tables of all resources of a source, cut into packages of bounded size."""

    def __init__(self, source: DltSource) -> None:
        self.resources = list(source.selected_resources)
        self.error: LorelineError | None = None
        self.tables = self._read(source)
        self._next: tuple[str, pa.Table] | None = None

    def package(self) -> Any | None:
        """The next package as a dlt resource; None when all was read."""
        self._next = next(self.tables, None)
        if self._next is None:
            return None
        return raw_resource(self._take(), "raw_rows")

    def _take(self) -> Iterator[Any]:
        size = 0
        while self._next:
            name, table = self._next
            yield dlt.mark.with_table_name(table, name)
            size += table.nbytes
            if size >= PACKAGE_BYTES:
                return
            self._next = next(self.tables, None)

    def _read(self, source: DltSource) -> Iterator[tuple[str, pa.Table]]:
        """What fails half-way ends the reading, and is raised once the rest is landed."""
        try:
            for name, resource in source.selected_resources.items():
                for table in resource:
                    yield name, table
        except ContractError:
            # Nothing of the package is to be landed, not even what came before.
            raise
        except Exception as error:
            self.error = _explained(error)
            if self.error is None:
                raise


def _pipeline(
    settings: Settings, namespace: str, committed: Callable[[Commit], None]
) -> dlt.Pipeline:
    writer = Writer(str(uuid.uuid4()), namespace, __version__)
    return dlt.pipeline(
        pipeline_name=namespace,
        pipelines_dir=str(settings.home / "pipelines"),
        destination=Lake(settings, namespace, writer, committed),
        dataset_name=namespace,
    )


def _run(pipeline: dlt.Pipeline, package: Any | None = None) -> None:
    """Run a package, or without one what an interrupted run left to do.

    Step by step: `pipeline.run` would first compare its state with the destination's, and drop what
    is left to do where the destination is still empty.
    """
    if package is None and not pipeline.has_pending_data:
        return
    try:
        if package is None:
            _forget_what_is_normalized(pipeline)
        else:
            pipeline.extract(package)
        pipeline.normalize()
        pipeline.load()
        # What writing took goes back, or each package would seem to need more than the last.
        pa.default_memory_pool().release_unused()
    except PipelineStepFailed as error:
        if explained := _explained(error):
            raise explained from error
        raise


def _forget_what_is_normalized(pipeline: dlt.Pipeline) -> None:
    """Remove extracted packages that dlt had normalized when it was killed.

    It puts the normalized package in its place first and removes the extracted one then; between
    the two it would normalize it again, and fail because the place is taken.
    """
    normalized = set(pipeline.list_normalized_load_packages())
    for load_id in normalized.intersection(pipeline.list_extracted_load_packages()):
        pipeline._get_normalize_storage().extracted_packages.delete_package(load_id)


def _explained(error: BaseException) -> LorelineError | None:
    """What to tell a person of an error in a step of dlt; None where it is ours to mend."""
    chain: list[BaseException] = [error]
    while following := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(following)
    for each in chain:
        if isinstance(each, LorelineError):
            return each
    for each in reversed(chain):
        if isinstance(each, STORE_ERRORS):
            lines = str(each).strip().splitlines() or [type(each).__name__]
            return LorelineError(
                f"a store failed while rows were landed ({lines[0]})",
                "check `loreline doctor` and land again: what was begun is finished first",
            )
    return None
