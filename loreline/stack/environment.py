"""The settings in the form that other programs take: shell variables, DuckDB statements."""

from __future__ import annotations

import shlex

from loreline.lake.duck import attach_statements, load_statements
from loreline.settings import Settings

# The switches under which dlt, dbt and what they bring send nothing about their use.
NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
    "RUNTIME__DLTHUB_TELEMETRY": "false",
}


def export_lines(settings: Settings) -> str:
    """Lines for `eval "$(loreline env)"`, after which plain `dbt` and `dlt` find the stores."""
    variables = settings.environment() | NO_TELEMETRY
    return "".join(f"export {name}={_quoted(value)}\n" for name, value in variables.items())


def duckdb_init(settings: Settings) -> str:
    """SQL for a DuckDB of the same version: the lake as `lake` and Postgres as `pg`, to read only.

    The credentials in it may only read when the settings hold such ones.
    """
    statements = [
        *load_statements(settings),
        "set timezone = 'UTC'",
        *attach_statements(settings.as_reader(), read_only=True),
    ]
    return "".join(f"{statement};\n" for statement in statements)


def _quoted(value: str) -> str:
    quoted = shlex.quote(value)
    return quoted if quoted.startswith("'") else f"'{quoted}'"
