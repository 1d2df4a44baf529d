"""Models, compiled and run over given snapshots: `python -m loreline.datasets.rerun`.

Reads requests from standard input, one line of JSON each, and answers each by a line of JSON. It is
the recorded commit's copy of this file that a rebuild runs: keep what goes in and out as it is.

The compiled SQL runs as it is. What it calls `lake` is a database of this process, whose tables are
views of the real ones at their snapshots.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.sql_functions import register
from loreline.settings import Settings

# Sums of floating-point numbers depend on the order in which threads come to them.
SIGNIFICANT_DIGITS = 9


def main() -> int:
    """Run the requests of standard input, one after the other, up to the first that fails."""
    settings = Settings.load()
    with tempfile.TemporaryDirectory() as folder:
        for line in sys.stdin:
            request = json.loads(line)
            try:
                # dbt prints; the answers are to be the only lines.
                with contextlib.redirect_stdout(sys.stderr):
                    # What dbt has parsed is kept for the next model.
                    sql = compiled(
                        request["project"], request["table"], request["variables"], folder
                    )
                    answer = compared(settings, request, sql)
            except (LorelineError, duckdb.Error) as error:
                print(" ".join(str(error).split()), file=sys.stderr)
                return 1
            answer["sql_sha256"] = hashlib.sha256(sql.encode()).hexdigest()
            print(json.dumps(answer), flush=True)
    return 0


def compiled(project: str, table: str, variables: Mapping[str, Any], folder: str) -> str:
    """The SQL of a model, as dbt compiles it.

    Raises:
        LorelineError: the project has no such model, or dbt cannot compile it.
    """
    from dbt.cli.main import dbtRunner

    name = table.rsplit(".", 1)[-1]
    places = ["--project-dir", project, "--profiles-dir", project]
    outputs = ["--target-path", folder, "--log-path", folder, "--log-level", "none"]
    chosen = ["--select", name, "--vars", json.dumps(variables)]
    done = dbtRunner().invoke(["--quiet", "compile", *chosen, *places, *outputs])
    nodes = [one.node for one in done.result or [] if one.node.name == name]
    if not done.success or not nodes or not nodes[0].compiled_code:
        raise LorelineError(
            f"dbt cannot compile {name} of this commit", str(done.exception or "no such model")
        )
    return nodes[0].compiled_code


def compared(settings: Settings, request: Mapping[str, Any], sql: str) -> dict[str, Any]:
    """Run the SQL over the snapshots, and compare its rows with those of the model's own."""
    with duckdb.connect(config=duck.connection_config(settings)) as connection:
        duck.prepare(connection, settings, read_only=True, lake="stored")
        register(connection, settings)
        connection.execute("attach ':memory:' as lake")
        for table, snapshot_id in request["inputs"]:
            _show(connection, table, snapshot_id)
        table, snapshot_id = request["table"], request["snapshot_id"]
        stored = f"select * from stored.{table} at (version => {snapshot_id})"
        described = connection.execute(f"describe {stored}").fetchall()
        columns = [(name, kind) for name, kind, *_ in described if not name.startswith("_")]
        connection.execute(f"create temp table rebuilt as {sql}")
        connection.execute(f"create temp table kept as {stored}")
        rebuilt, kept = (f"select {_columns(columns)} from {name}" for name in ("rebuilt", "kept"))
        return {
            "rows": _count(connection, kept),
            "rebuilt": _count(connection, rebuilt),
            "missing": _count(connection, f"({kept}) except all ({rebuilt})"),
            "extra": _count(connection, f"({rebuilt}) except all ({kept})"),
        }


def _show(connection: duckdb.DuckDBPyConnection, table: str, snapshot_id: int | None) -> None:
    schema, name = table.split(".")
    # Without a snapshot the table was empty.
    at = f"at (version => {snapshot_id})" if snapshot_id is not None else "limit 0"
    connection.execute(f'create schema if not exists lake."{schema}"')
    connection.execute(
        f'create or replace view lake."{schema}"."{name}" as'
        f' select * from stored."{schema}"."{name}" {at}'
    )


def _columns(columns: Sequence[tuple[str, str]]) -> str:
    """The columns in the types of the stored ones; floating-point numbers as text."""
    return ", ".join(
        f'printf(\'%.{SIGNIFICANT_DIGITS}g\', "{name}"::double) as "{name}"'
        if kind in ("FLOAT", "DOUBLE")
        else f'cast("{name}" as {kind}) as "{name}"'
        for name, kind in columns
    )


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(f"select count(*) from ({query})").fetchone()
    assert row is not None
    return row[0]


if __name__ == "__main__":
    sys.exit(main())
