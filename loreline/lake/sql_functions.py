"""Scalar functions that the models call where SQL has no word for it, registered in DuckDB.

Each has a macro in `macros/portable/`; another engine registers the same Python functions.
"""

from __future__ import annotations

import duckdb

from loreline.settings import Settings


def register(connection: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Register the functions in a connection."""
