"""Answers that are kept in Postgres the moment they are there, by one command at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg.sql import Composed

from loreline.errors import LorelineError
from loreline.postgres import connect
from loreline.settings import Settings


@contextmanager
def alone(connection: psycopg.Connection, settings: Settings, table: str, what: str) -> Iterator:
    """Let nobody else write to a table of calls meanwhile, who could make the same ones.

    Args:
        connection: in autocommit; it holds the lock.
        settings: whose schemas.
        table: its name in `operations`.
        what: runs then, for the error.

    Raises:
        LorelineError: somebody does.
    """
    key = [f"{settings.prefix}operations.{table}"]
    lock = "select pg_try_advisory_lock(hashtextextended(%s, 0))"
    row = connection.execute(lock, key).fetchone()
    if row is None or not row[0]:
        raise LorelineError(f"another {what} is running", "wait until it has ended")
    try:
        yield
    finally:
        if not connection.closed:
            connection.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", key)


def keep(
    connection: psycopg.Connection,
    settings: Settings,
    statement: Composed,
    row: Mapping[str, Any],
) -> None:
    """Insert an answer.

    Raises:
        LorelineError: the connection was lost, and with it the right to go on; the answer is kept
            if a new one can be made.
    """
    try:
        connection.execute(statement, row)
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        with connect(settings, autocommit=True) as fresh:
            fresh.execute(statement, row)
        raise LorelineError(
            "the connection to Postgres was lost", "run it again; every answer is kept"
        ) from error
