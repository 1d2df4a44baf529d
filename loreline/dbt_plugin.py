"""The dbt-duckdb plugin: attaches the stores, offers SQL functions, materializes in the lake.

Named in `profiles.yml`; its `config` says which dbt target runs, so that a plain `dbt build` writes
where that target may.
"""

from __future__ import annotations

import gc

# dbt has read its manifest when it loads this, and what it has read stays to the end: a collector
# that looks through it again and again takes 0.15 s each time, while these imports run and after.
gc.freeze()

import dataclasses
import re
import threading
from collections.abc import Iterator
from typing import Any

import duckdb
import pyarrow as pa
from dbt.adapters.duckdb.plugins import BasePlugin
from dbt.adapters.duckdb.utils import TargetConfig
from dbt_common.exceptions import DbtRuntimeError

from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.catalog import list_tables, load_catalog
from loreline.lake.made_from import current_snapshots
from loreline.lake.materialize import (
    Model,
    Reading,
    materialize_batches,
    materialize_seed,
    materialize_sql,
)
from loreline.lake.raw import ensure_raw_tables
from loreline.lake.sql_functions import register
from loreline.operations import builds
from loreline.postgres import connect
from loreline.settings import Settings

# What the Python model that runs in this thread reads and is; dbt gives its function no way to be
# handed either.
_running = threading.local()

# Of more tables that were never built the others are counted.
MISSING_SHOWN = 3

_UPSTREAM = re.compile(r'"?lake"?\."?(\w+)"?\."?(\w+)"?', re.IGNORECASE)


class Plugin(BasePlugin):
    """One per dbt process; its cursor is the thread's own DuckDB connection."""

    def initialize(self, plugin_config: dict[str, Any]) -> None:
        """Read the settings for dbt's target."""
        self.settings = dataclasses.replace(Settings.load(), target=plugin_config["target"])
        self.threads = threading.local()

    def update_connection_config(self, creds: Any, config: dict[str, Any]) -> None:
        """Let DuckDB spill to disk under a limit."""
        config.update(duck.connection_config(self.settings))

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Attach the lake and Postgres, and register the scalar functions."""
        duck.prepare(conn, self.settings, read_only=False)
        register(conn, self.settings)

    def configure_cursor(self, cursor: duckdb.DuckDBPyConnection) -> None:
        """Remember the connection of this thread: temporary tables live in it."""
        cursor.execute("set timezone = 'UTC'")
        self.threads.cursor = cursor

    def store(self, target_config: TargetConfig) -> None:
        """Entry point of the materializations (`adapter.store_relation` in Jinja).

        `target_config.config` holds the step, the model and what the step needs; the message for
        dbt's log is put into it as `message`.
        """
        request = target_config.config
        if request["step"] == "ensure_raw":
            ensure_raw_tables(self.settings, request["names"])
            return
        if request["step"] == "build_begun":
            build = (request["invocation_id"], request["command"], request["selection"])
            builds.begun(self.settings, *build)
            return
        if request["step"] == "build_ended":
            builds.ended(self.settings, request["invocation_id"], request["results"])
            return
        if request["step"] == "require_upstream":
            self._require(request["reads"])
            return
        if request["step"] == "list_tables":
            request["tables"] = self._tables(request["database"], request["schema"])
            return
        model = _model(request["model"])
        try:
            request["message"] = self._step(request["step"], model, request)
        except LorelineError as error:
            raise DbtRuntimeError(str(error)) from error

    def _tables(self, database: str, schema: str) -> list[str]:
        if database == "lake":
            return list_tables(load_catalog(self.settings), schema)
        if database != "pg":
            return []
        query = "select tablename from pg_tables where schemaname = %s order by 1"
        with connect(self.settings) as connection:
            return [name for (name,) in connection.execute(query, [schema])]

    def _require(self, reads: list[dict[str, str]]) -> None:
        """Make sure that all is there which models read and this run does not build."""
        places = {(read["database"], read["schema"]) for read in reads}
        found = {place: self._tables(*place) for place in places}
        readers: dict[str, str] = {}
        for read in reads:
            if read["identifier"] not in found[read["database"], read["schema"]]:
                readers.setdefault(read["name"], read["reader"])
        if not readers:
            return
        named = [f"{name} (read by {reader})" for name, reader in readers.items()]
        command = "loreline build --select " + " ".join(f"+{name}" for name in readers)
        if len(named) > MISSING_SHOWN:
            named[MISSING_SHOWN:] = [f"{len(named) - MISSING_SHOWN} more"]
            command = "loreline build"
        raise DbtRuntimeError(
            f"what the selection reads was never built: {', '.join(named)}: "
            f"run `{command}` first, then this again"
        )

    def _step(self, step: str, model: Model, request: dict[str, Any]) -> str:
        cursor = self.threads.cursor
        if step == "sql":
            return materialize_sql(self.settings, cursor, model, request["sql"])
        if step == "seed":
            return materialize_seed(
                self.settings,
                cursor,
                model,
                request["file"],
                request["column_types"],
                request["delimiter"],
            )
        if step == "begin_python":
            _running.reading = Reading(
                self.settings,
                model.name,
                from_start=not model.is_incremental,
                empty=model.empty,
            )
            _running.model = model
            if model.materialized == "table":
                _running.reading.inputs += current_snapshots(self.settings, model.upstream)
            return ""
        assert step == "end_python", step
        return _running.message


def store_python_result(result: Any, connection: duckdb.DuckDBPyConnection) -> None:
    """Commit what a dbt Python model returned: a batch reader slice by slice, else as a whole."""
    model: Model = _running.model
    reading: Reading = _running.reading
    if isinstance(result, pa.RecordBatchReader):
        _running.message = materialize_batches(reading.settings, connection, model, result, reading)
        return
    connection.register("python_result", result)
    try:
        _running.message = materialize_sql(
            reading.settings, connection, model, "select * from python_result", reading
        )
    finally:
        connection.unregister("python_result")


def settings() -> Settings:
    """The settings of the Python model that runs in this thread."""
    return _running.reading.settings


def is_empty_run() -> bool:
    """Whether dbt runs with `--empty`: a Python model then must not touch anything outside."""
    return _running.model.empty


def is_full_refresh() -> bool:
    """Whether dbt runs with `--full-refresh`: what is kept outside the lake is then not trusted."""
    return _running.model.full_refresh


def variable(name: str) -> Any:
    """A variable that dbt was given with `--vars`; None where it was not."""
    return _running.model.variables.get(name)


def table_name(relation: duckdb.DuckDBPyRelation) -> str:
    """`lake.schema.table` of what `dbt.ref(…)` gave, for SQL that a Python model writes itself."""
    found = _UPSTREAM.search(relation.sql_query())
    assert found, relation.sql_query()
    return f"lake.{found[1]}.{found[2]}"


def new_rows(relation: duckdb.DuckDBPyRelation, *, variant: str = "") -> duckdb.DuckDBPyRelation:
    """The rows of `dbt.ref(…)` that the running Python model has not read yet.

    The twin of the macro `newer_than_watermark`.

    Args:
        relation: an upstream table, as dbt gives it.
        variant: the slice of the model that reads, such as a configuration hash.
    """
    low, high = _running.reading.range(table_name(relation).removeprefix("lake."), variant)
    return relation.filter(f"_batch > {low} and _batch <= {high}")


def reader(schema: pa.Schema, batches: Iterator[pa.RecordBatch]) -> pa.RecordBatchReader:
    """What a Python model returns so that each batch is committed by itself."""
    return pa.RecordBatchReader.from_batches(schema, batches)


def _model(fields: dict[str, Any]) -> Model:
    tuples = {
        name: tuple(tuple(item) if isinstance(item, list) else item for item in value)
        for name, value in fields.items()
        if isinstance(value, list)
    }
    return Model(**{**fields, **tuples})
