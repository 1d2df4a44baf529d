"""Stands for dbt's `adapter` while sqlfluff renders the SQL: no stack, no connection."""

from collections.abc import Callable

import jinja2


@jinja2.pass_context
def dispatch(context: jinja2.runtime.Context, macro_name: str, package: str) -> Callable[..., str]:
    """The macro that DuckDB gets."""
    return context[f"duckdb__{macro_name}"]
