"""Events that a gateway inserts into a table of Postgres.

Rows are marked once what they hold is committed to the lake. Which ones wait is told by that mark
alone: numbers are given out before transactions end, and a row may become visible after a later
one was read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from dlt_sources.gateway.bounds import BYTES_PER_COMMIT, MESSAGES_PER_COMMIT
from loreline.errors import LorelineError
from loreline.settings import Settings

OWN_TABLE = "pipeline_event_inbox"
_ROWS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Row:
    """A row that waits.

    Attributes:
        identity: its key, of whatever type.
        payload: JSON.
        created_at: when the gateway inserted it.
    """

    identity: Any
    payload: bytes
    created_at: datetime


@dataclass(frozen=True)
class Inbox:
    """A table of events: `id`, `payload`, `created_at`, `consumed_at`.

    Attributes:
        url: of its Postgres.
        schema: in which it is.
        name: what it is called.
        removes: whether to delete rows instead of marking them.
    """

    url: str
    schema: str
    name: str
    removes: bool = False

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}"

    @property
    def _table(self) -> Identifier:
        return Identifier(self.schema, self.name)

    def waiting(self) -> int:
        """How many rows wait."""
        with self._connected() as connection:
            row = connection.execute(
                SQL("select count(*) from {} where consumed_at is null").format(self._table)
            ).fetchone()
        return row[0] if row else 0

    def read(self) -> tuple[list[Row], bool]:
        """Rows that wait, as many as are to be committed at once, and whether there may be more."""
        query = SQL(
            "select id, payload::text, created_at from {} where consumed_at is null order by id"
        ).format(self._table)
        rows: list[Row] = []
        size = 0
        with self._connected() as connection, connection.cursor(name="waiting") as cursor:
            cursor.itersize = _ROWS_AT_ONCE
            cursor.execute(query)
            for identity, payload, created_at in cursor:
                rows.append(Row(identity, payload.encode(), created_at))
                size += len(rows[-1].payload)
                if len(rows) >= MESSAGES_PER_COMMIT or size >= BYTES_PER_COMMIT:
                    return rows, True
        return rows, False

    def consume(self, rows: list[Row]) -> None:
        """Mark rows, or delete them: what they hold is committed."""
        statement: Composed = SQL(
            "delete from {} where id = any(%s)"
            if self.removes
            else "update {} set consumed_at = now() where id = any(%s)"
        ).format(self._table)
        with self._connected() as connection:
            connection.execute(statement, ([row.identity for row in rows],))

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        try:
            with psycopg.connect(self.url, connect_timeout=10) as connection:
                yield connection
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
            raise LorelineError(
                f"{self} is no inbox of events ({_line(error)})",
                "it needs the columns id, payload, created_at and consumed_at (timestamptz):"
                " dlt_sources/gateway/README.md",
            ) from None
        except psycopg.errors.InsufficientPrivilege as error:
            raise LorelineError(
                f"{self} may not be read and marked ({_line(error)})",
                f"grant select and {'delete' if self.removes else 'update'} on it",
            ) from None
        except psycopg.Error as error:
            raise LorelineError(
                f"the inbox {self} cannot be read ({_line(error)})",
                "check LORELINE_EVENT_INBOX_URL; what was landed stays, the rest waits",
            ) from None


def inboxes(settings: Settings) -> list[Inbox]:
    """The inboxes to read: the one that the settings name, and our own."""
    removes = settings.event_inbox_remove.lower() == "true"
    own = Inbox(settings.postgres_url, f"{settings.prefix}operations", OWN_TABLE, removes)
    if not settings.event_inbox_url and not settings.event_inbox_table:
        return [own]
    schema, _, name = settings.event_inbox_table.rpartition(".")
    if settings.event_inbox_url:
        url, schema, name = settings.event_inbox_url, schema or "public", name or OWN_TABLE
    else:
        url, schema = settings.postgres_url, schema or own.schema
    named = Inbox(url, schema, name, removes)
    return [named] if named == own else [named, own]


def _line(error: psycopg.Error) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
