"""DuckDB as the engine over the lake: nothing of its own is kept in it."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import duckdb

from loreline.errors import LorelineError
from loreline.settings import Settings

EXTENSIONS = ("httpfs", "avro", "iceberg", "postgres")
# DuckDB derives the entry point from the file's name, and this extension's own name is longer than
# its package's.
FILE_NAMES = {"postgres": "postgres_scanner"}


def extension_file(name: str, settings: Settings) -> Path:
    """The file of a DuckDB extension that came from the package index, so that none is downloaded.

    Raises:
        LorelineError: the package is missing, or built for another DuckDB.
    """
    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    folders = package.submodule_search_locations if package else None
    file = Path(folders[0] if folders else "", "extensions", f"v{duckdb.__version__}")
    file = file / f"{name}.duckdb_extension"
    if not file.exists():
        raise LorelineError(
            f"DuckDB extension {name} for {duckdb.__version__} is not installed",
            f"pip install duckdb-extension-{name}=={duckdb.__version__}",
        )
    if name not in FILE_NAMES:
        return file
    link = settings.home / "duckdb" / f"{FILE_NAMES[name]}.duckdb_extension"
    if not link.exists():
        # Renamed into place: several processes may be the first.
        link.parent.mkdir(parents=True, exist_ok=True)
        fresh = link.with_name(f"{link.name}.{os.getpid()}")
        fresh.symlink_to(file)
        fresh.replace(link)
    return link


def load_statements(settings: Settings) -> list[str]:
    """SQL that loads the extensions."""
    return [f"load {_quoted(extension_file(name, settings))}" for name in EXTENSIONS]


def attach_statements(
    settings: Settings,
    *,
    read_only: bool,
    postgres_url: str | None = None,
    lake: str = "lake",
) -> list[str]:
    """SQL that attaches the lake as `lake` and Postgres, always read-only, as `pg`.

    Args:
        settings: the addresses and credentials.
        read_only: whether the lake refuses writes.
        postgres_url: credentials other than the settings' own, such as a reader's.
        lake: another name for the lake.
    """
    settings.require_stores()
    scheme, _, endpoint = settings.s3_endpoint.partition("://")
    client_id, _, client_secret = settings.catalog_credential.partition(":")
    s3 = (
        f"key_id {_quoted(settings.s3_access_key_id)}, "
        f"secret {_quoted(settings.s3_secret_access_key)}, region {_quoted(settings.s3_region)}, "
        f"endpoint {_quoted(endpoint)}, url_style 'path', "
        f"use_ssl {str(scheme == 'https').lower()}"
    )
    attach_options = [
        "type iceberg",
        f"endpoint {_quoted(settings.catalog_uri)}",
        "access_delegation_mode 'none'",
    ]
    statements = [f"create or replace secret loreline_store (type s3, {s3})"]
    if settings.catalog_credential:
        statements.append(
            f"create or replace secret loreline_catalog (type iceberg, "
            f"client_id {_quoted(client_id)}, client_secret {_quoted(client_secret)}, "
            f"oauth2_server_uri {_quoted(settings.oauth2_uri)})"
        )
        attach_options.append("secret loreline_catalog")
    else:
        attach_options.append("authorization_type 'none'")
    if read_only:
        attach_options.append("read_only")
    postgres = _quoted(postgres_url or settings.postgres_url)
    return [
        *statements,
        f"attach {_quoted(settings.catalog_warehouse)} as {lake} ({', '.join(attach_options)})",
        f"attach {postgres} as pg (type postgres, read_only)",
    ]


def connect(settings: Settings, *, read_only: bool = True) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the lake attached as `lake` and Postgres as `pg`.

    Raises:
        LorelineError: a store does not answer.
    """
    connection = duckdb.connect(config=connection_config(settings))
    prepare(connection, settings, read_only=read_only)
    return connection


def rows_if_built(connection: duckdb.DuckDBPyConnection, query: str) -> list[Any] | None:
    """What a query gives; None where a table that it reads was not built."""
    try:
        return connection.execute(query).fetchall()
    except duckdb.CatalogException:
        return None


def connection_config(settings: Settings) -> dict[str, str]:
    """Limits under which DuckDB spills to disk instead of failing."""
    spill = settings.home / "duckdb" / "spill"
    spill.mkdir(parents=True, exist_ok=True)
    return {"memory_limit": settings.duckdb_memory_limit, "temp_directory": str(spill)}


def prepare(
    connection: duckdb.DuckDBPyConnection,
    settings: Settings,
    *,
    read_only: bool,
    lake: str = "lake",
) -> None:
    """Load the extensions into a connection and attach both stores, the lake under this name."""
    for statement in load_statements(settings):
        connection.execute(statement)
    connection.execute("set timezone = 'UTC'")
    # A property of our tables, meant for other engines, at which DuckDB would refuse a merge.
    connection.execute("set global ignore_target_file_size_for_partitioned_tables = true")
    for statement in attach_statements(settings, read_only=read_only, lake=lake):
        try:
            connection.execute(statement)
        except duckdb.Error as error:
            # DuckDB's message holds the statement's connection string, password included.
            store = "Postgres" if "as pg" in statement else "the Iceberg catalog"
            raise LorelineError(
                f"DuckDB could not attach {store}",
                "check `loreline doctor`, and LORELINE_CATALOG_URI or LORELINE_POSTGRES_URL",
            ) from (None if "as pg" in statement else error)


def _quoted(value: object) -> str:
    return "'" + str(value).replace("'", "''") + "'"
