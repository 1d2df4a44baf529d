"""Deliveries in `operations.inbox`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from loreline.errors import LorelineError
from loreline.inbox.senders import Delivery
from loreline.postgres import connect, in_schema
from loreline.settings import Settings

# So many are written by one statement; more wait for the next.
DELIVERIES_PER_WRITE = 500
TOKENS_KEPT = 5


@dataclass(frozen=True)
class Stored:
    """A delivery as it is stored.

    Attributes:
        number: in the order of arrival.
        source: whose objects it is about.
        delivery_id: as the sender numbers it.
        received_at: when.
        names: of the objects.
        state: waiting, done, parked or dropped.
        attempts: how often it was begun.
        next_attempt_at: not before.
        error: why the last attempt failed.
        finished_at: when it was done, parked or dropped.
        size: of the body, in bytes; 0 of what is done.
    """

    number: int
    source: str
    delivery_id: str
    received_at: datetime
    names: list[str]
    state: str
    attempts: int
    next_attempt_at: datetime
    error: str | None
    finished_at: datetime | None
    size: int


_COLUMNS = sql.SQL(
    "number, source, delivery_id, received_at, names, state, attempts, next_attempt_at, error,"
    " finished_at, length(body) as size"
)


class Writer:
    """Stores deliveries of many requests at once, with one statement for those that wait together.

    A delivery that is known is left as it is. `put` returns when the delivery is committed.

    Args:
        settings: the stores.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._waiting: list[tuple[Delivery, bytes, asyncio.Future[None]]] = []
        # Begun and not ended calls of `put`.
        self._pending = 0
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: psycopg.AsyncConnection[Any] | None = None
        # The names cannot repeat within one statement: the first one counts.
        self._insert = in_schema(
            settings,
            "operations",
            "insert into {}.inbox (source, delivery_id, body, names, state, error, finished_at)"
            " select distinct on (source, delivery_id) source, delivery_id, body,"
            " array(select jsonb_array_elements_text(names)),"
            " case when fault = '' then 'waiting' else 'parked' end, nullif(fault, ''),"
            " case when fault <> '' then now() end"
            " from unnest(%s::text[], %s::text[], %s::bytea[], %s::jsonb[], %s::text[])"
            " as arrived (source, delivery_id, body, names, fault)"
            " on conflict (source, delivery_id) do nothing",
        )
        self._notify = sql.SQL("notify {}").format(sql.Identifier(channel(settings)))

    async def put(self, delivery: Delivery, body: bytes) -> None:
        """Store a delivery.

        Raises:
            psycopg.Error: it is not known whether it is stored; the sender should send it again.
        """
        if self._task is None:
            self._task = asyncio.create_task(self._write())
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivery, body, stored))
        self._arrived.set()
        self._pending += 1
        try:
            await stored
        finally:
            self._pending -= 1

    async def keep_token(self, source: str, token: str) -> None:
        """Keep a verification token for the operator, beside the newest others."""
        connection = await self._connected()
        table = in_schema(self._settings, "operations", "{}").as_string()
        await connection.execute(
            sql.SQL(
                "insert into {0}.verification_tokens (source, token) values (%s, %s)"
                " on conflict (source, token) do update set received_at = now()"
            ).format(sql.SQL(table)),
            (source, token),
        )
        await connection.execute(
            sql.SQL(
                "delete from {0}.verification_tokens where source = %s and token not in"
                " (select token from {0}.verification_tokens where source = %s"
                "  order by received_at desc limit %s)"
            ).format(sql.SQL(table)),
            (source, source, TOKENS_KEPT),
        )

    async def is_ready(self) -> bool:
        """Whether deliveries can be stored now."""
        try:
            connection = await self._connected()
            await connection.execute(
                in_schema(self._settings, "operations", "select from {}.inbox limit 0")
            )
        except psycopg.Error:
            return False
        return True

    async def close(self) -> None:
        """Write what waits, and end."""
        while self._pending:
            await asyncio.sleep(0.01)
        if self._task:
            self._task.cancel()
        if self._connection:
            await self._connection.close()

    async def _write(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch = self._waiting[:DELIVERIES_PER_WRITE]
                del self._waiting[: len(batch)]
                try:
                    await self._store([(delivery, body) for delivery, body, _ in batch])
                except Exception as error:
                    for *_, stored in batch:
                        if not stored.done():
                            stored.set_exception(error)
                else:
                    for *_, stored in batch:
                        if not stored.done():
                            stored.set_result(None)

    async def _store(self, batch: Sequence[tuple[Delivery, bytes]]) -> None:
        connection = await self._connected()
        columns = [
            [delivery.source for delivery, _ in batch],
            [delivery.delivery_id for delivery, _ in batch],
            [body for _, body in batch],
            [psycopg.types.json.Jsonb(list(delivery.names)) for delivery, _ in batch],
            [delivery.fault.replace("\0", "") for delivery, _ in batch],
        ]
        async with connection.transaction():
            await connection.execute(self._insert, columns)
            await connection.execute(self._notify)

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self._settings.postgres_url,
                autocommit=True,
                connect_timeout=10,
                application_name="loreline inbox",
            )
        return self._connection


def channel(settings: Settings) -> str:
    """On which Postgres tells that something has arrived."""
    return f"{settings.prefix}inbox"


def counts(connection: psycopg.Connection[Any], settings: Settings) -> list[tuple[str, str, int]]:
    """Deliveries by source and state."""
    query = "select source, state, count(*) from {}.inbox group by 1, 2 order by 1, 2"
    return connection.execute(in_schema(settings, "operations", query)).fetchall()


def listed(settings: Settings, state: str | None, source: str | None, most: int) -> list[Stored]:
    """Deliveries, the newest first."""
    query = in_schema(
        settings,
        "operations",
        "select {columns} from {}.inbox where (%(state)s::text is null or state = %(state)s)"
        " and (%(source)s::text is null or source = %(source)s)"
        " order by number desc limit %(most)s".replace("{columns}", _COLUMNS.as_string()),
    )
    with (
        connect(settings) as connection,
        connection.cursor(row_factory=class_row(Stored)) as cursor,
    ):
        given = {"state": state, "source": source, "most": most}
        return cursor.execute(query, given).fetchall()


def find(settings: Settings, number: int) -> tuple[Stored, bytes]:
    """A delivery, and its body.

    Raises:
        LorelineError: there is none.
    """
    query = in_schema(
        settings,
        "operations",
        "select {columns} from {}.inbox where number = %s".replace(
            "{columns}", _COLUMNS.as_string()
        ),
    )
    body = in_schema(settings, "operations", "select body from {}.inbox where number = %s")
    with (
        connect(settings) as connection,
        connection.cursor(row_factory=class_row(Stored)) as cursor,
    ):
        found = cursor.execute(query, [number]).fetchone()
        if found is None:
            raise LorelineError(f"no delivery has the number {number}", "see `loreline inbox list`")
        content = connection.execute(body, [number]).fetchone()
    assert content is not None
    return found, bytes(content[0])


def change(settings: Settings, state: str, numbers: Sequence[int] | None) -> int:
    """Put parked deliveries (all of them without numbers) to waiting, or to dropped; how many."""
    query = in_schema(
        settings,
        "operations",
        "update {}.inbox set state = %(state)s, attempts = 0, next_attempt_at = now(),"
        " finished_at = case when %(state)s = 'dropped' then now() end"
        " where state = 'parked' and (%(numbers)s::bigint[] is null or number = any(%(numbers)s))",
    )
    notify = sql.SQL("notify {}").format(sql.Identifier(channel(settings)))
    with connect(settings) as connection:
        given = {"state": state, "numbers": None if numbers is None else list(numbers)}
        changed = connection.execute(query, given).rowcount
        connection.execute(notify)
        return changed


def tokens(settings: Settings) -> list[tuple[str, str, datetime]]:
    """Verification tokens that were received, the newest first."""
    query = "select source, token, received_at from {}.verification_tokens order by 3 desc"
    with connect(settings) as connection:
        return connection.execute(in_schema(settings, "operations", query)).fetchall()
