"""The answers of replays, kept in Postgres as soon as they are there: none is paid for twice.

What the endpoint does not record itself lands from here, as the event that a gateway would have
written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import orjson
import psycopg
from psycopg.sql import SQL, Composed, Identifier, Placeholder

from loreline.calls.kept import alone, keep
from loreline.settings import Settings

Json = Any

ROWS_PER_FETCH = 500


@dataclass(frozen=True)
class Call:
    """A call that was made.

    Attributes:
        call_id: what is answered once.
        attempt: which one it is, from 1.
        replay_run_id: the trajectory that it is of.
        branch_node_id: the node that it repeats.
        status: completed, or failed: then it is made again at the next replay.
        event: its record, a CloudEvent.
        cost: in the currency of `model_prices`; None where the model has no price.
        is_recorded_here: whether its event is to be landed from here.
    """

    call_id: str
    attempt: int
    replay_run_id: str
    branch_node_id: str
    model: str
    status: str
    event: Json
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: Decimal | None
    is_recorded_here: bool


class Journal:
    """The table `operations.replay_calls`.

    Args:
        connection: in autocommit.
        settings: says which schema it lives in.
    """

    def __init__(self, connection: psycopg.Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings
        self._table = Identifier(f"{settings.prefix}operations", "replay_calls")

    def alone(self) -> AbstractContextManager[None]:
        """Let no other replay run meanwhile, which could make the same calls.

        Raises:
            LorelineError: one does.
        """
        return alone(self._connection, self._settings, "replay_calls", "replay")

    def calls(self, replay_run_ids: Sequence[str]) -> dict[str, Call]:
        """The calls of some trajectories that were made, by their ids: of each the last attempt."""
        rows = self._connection.execute(
            self._sql(
                "select distinct on (call_id) {columns} from {table}"
                " where replay_run_id = any(%s) order by call_id, attempt desc"
            ),
            [list(replay_run_ids)],
        ).fetchall()
        return {row[0]: Call(*row) for row in rows}

    def statuses(self, replay_run_ids: Sequence[str]) -> dict[str, str]:
        """What became of the last attempt at each call of some trajectories."""
        rows = self._connection.execute(
            self._sql(
                "select distinct on (call_id) call_id, status from {table}"
                " where replay_run_id = any(%s) order by call_id, attempt desc"
            ),
            [list(replay_run_ids)],
        ).fetchall()
        return dict(rows)

    def save(self, call: Call) -> None:
        """Keep a call.

        Raises:
            LorelineError: the connection was lost, and with it the right to go on; the call is kept
                if a new one can be made.
        """
        row = {**vars(call), "event": orjson.dumps(call.event).decode()}
        statement = self._sql("insert into {table} ({columns}) values ({places})")
        keep(self._connection, self._settings, statement, row)

    def to_land(self) -> Iterator[tuple[int, str]]:
        """Numbers and events, as JSON, of calls that were recorded here and did not land yet."""
        with (
            self._connection.transaction(),
            self._connection.cursor(name="replay_calls_to_land") as cursor,
        ):
            cursor.execute(
                self._sql(
                    "select call_number, event::text from {table}"
                    " where is_recorded_here and landed_at is null order by call_number"
                )
            )
            while rows := cursor.fetchmany(ROWS_PER_FETCH):
                yield from rows

    def landed(self, numbers: Sequence[int]) -> None:
        """Remember that events have landed."""
        self._connection.execute(
            self._sql("update {table} set landed_at = now() where call_number = any(%s)"),
            [list(numbers)],
        )

    def _sql(self, statement: str) -> Composed:
        columns = SQL(", ").join(map(Identifier, _COLUMNS))
        places = SQL(", ").join(map(Placeholder, _COLUMNS))
        return SQL(statement).format(table=self._table, columns=columns, places=places)


_COLUMNS = [column.name for column in fields(Call)]
