"""SQL over the lake and Postgres: one statement, or a prompt."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json_rows, print_table, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb

    from loreline.settings import Settings

SHOWN_ROWS = 1_000
FETCHED_ROWS = 2_000

TABLES = """
select database_name || '.' || schema_name || '.' || table_name as name
from duckdb_tables()
where database_name in ('lake', 'pg') and not internal
    and schema_name not in ('pg_catalog', 'information_schema')
union all
select database_name || '.' || schema_name || '.' || view_name as name
from duckdb_views()
where database_name in ('lake', 'pg') and not internal
    and schema_name not in ('pg_catalog', 'information_schema')
order by name
"""


def sql(
    statement: Annotated[
        str | None,
        typer.Argument(help="SQL, or .tables, or .schema NAME."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Run SQL over the lake and Postgres, read-only.

    The lake is attached as lake, Postgres as pg:

    loreline sql "select title from lake.knowledge.documents_current"

    Without a statement: a prompt, or what standard input holds when it is no terminal.
    """
    from loreline.settings import Settings

    settings = Settings.load()
    if statement is None and sys.stdin.isatty():
        from loreline.cli.prompt import converse

        converse(connect(settings), settings.home / "sql_history", as_json=as_json)
        return
    run(connect(settings), sys.stdin.read() if statement is None else statement, as_json=as_json)


def connect(settings: Settings) -> duckdb.DuckDBPyConnection:
    """DuckDB with both stores attached, by credentials that may only read where there are such."""
    from loreline.lake import duck

    return duck.connect(settings.as_reader())


def run(connection: duckdb.DuckDBPyConnection, statement: str, *, as_json: bool) -> None:
    """Run a statement or a dot command and print what it gives.

    Raises:
        LorelineError: DuckDB refuses it, with DuckDB's reason.
        KeyboardInterrupt: it was cancelled.
    """
    with _reported(connection):
        _create_what_is_computed(connection, statement)
        result = connection.execute(_expanded(connection, statement.strip()))
        columns = [column[0] for column in result.description or ()]
        rows = _rows(result) if columns else iter(())
        if as_json:
            print_json_rows(columns, rows)
            return
        shown = list(islice(rows, SHOWN_ROWS))
        if _is_acknowledgement(columns, shown):
            say("ok")
            return
        print_table(columns, shown)
        more = next(rows, None) is not None
        say(_count(len(shown)) if not more else f"the first {SHOWN_ROWS} rows; --json gives all")


def _create_what_is_computed(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    """Create the view of what is computed when it is asked, if the statement asks for it."""
    if "operations.coverage" in statement.lower():
        from loreline.serving.coverage import create_view
        from loreline.settings import Settings

        create_view(connection, Settings.load())


def _expanded(connection: duckdb.DuckDBPyConnection, statement: str) -> str:
    """The SQL behind a dot command; anything else as it is."""
    match = re.fullmatch(r"\.(\w+)\s*(.*?)\s*;?", statement)
    if not match:
        return statement
    command, name = match.groups()
    if command == "tables":
        return TABLES
    if command == "schema" and name:
        return f"describe {_table(connection, name)}"
    raise LorelineError(f"no command .{command}", "there are .tables and .schema NAME")


def _table(connection: duckdb.DuckDBPyConnection, name: str) -> str:
    """The full name of a table of which the last part, or more, was given."""
    names = [row[0] for row in connection.execute(TABLES).fetchall()]
    found = [full for full in names if full == name or full.endswith("." + name)]
    if len(found) == 1:
        return ".".join(f'"{part}"' for part in found[0].split("."))
    if found:
        raise LorelineError(f"{name} is in {', '.join(found)}", "say which")
    raise LorelineError(f"there is no table {name}", "`.tables` lists them")


def _rows(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(FETCHED_ROWS):
        yield from rows


@contextmanager
def _reported(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        # What follows an empty line repeats the statement and points into it.
        reason = str(error).split("\n\nLINE", 1)[0]
        is_lost = isinstance(error, duckdb.CatalogException) and "Did you mean" not in reason
        advice = "`loreline sql .tables` lists what is there" if is_lost else ""
        raise LorelineError(reason, advice) from error
    except RuntimeError as error:
        if "interrupted" not in str(error):
            raise
        # Without it the statement runs on, and the next one waits for it.
        connection.interrupt()
        raise KeyboardInterrupt from error


def _is_acknowledgement(columns: list[str], rows: list[tuple[Any, ...]]) -> bool:
    return not columns or (columns in (["Success"], ["Count"]) and not rows)


def _count(rows: int) -> str:
    return "1 row" if rows == 1 else f"{rows:,} rows"
