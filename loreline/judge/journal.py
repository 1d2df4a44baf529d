"""The answers of judges, kept in Postgres as soon as they are there: none is paid for twice."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

import orjson
import psycopg
from psycopg.sql import SQL, Composed, Identifier, Placeholder

from loreline.calls.kept import alone, keep
from loreline.judge.configurations import Judge
from loreline.settings import Settings

Json = Any


@dataclass(frozen=True)
class Call:
    """A row of `operations.judge_calls`; its migration says what the columns are."""

    call_id: str
    attempt: int
    judgement_id: str
    judge: str
    labeller_version: str
    kind: str
    subject_id: str
    leaf_node_ids: list[str]
    content_sha256: str
    is_swapped: bool
    model: str
    status: str
    verdict: Json
    problem: str | None
    response: Json
    prompt_tokens: int | None
    completion_tokens: int | None
    cost: Decimal | None


@dataclass(frozen=True)
class Attempts:
    """What was tried of a call.

    Attributes:
        subject_id: what it is about.
        number: of attempts.
        invalid: of them, answers that are not what was asked for.
        is_completed: whether one is.
    """

    subject_id: str
    number: int
    invalid: int
    is_completed: bool


class Journal:
    """The tables `operations.judge_calls` and `operations.judge_versions`.

    Args:
        connection: in autocommit.
        settings: say which schema they live in.
    """

    def __init__(self, connection: psycopg.Connection, settings: Settings) -> None:
        self._connection = connection
        self._settings = settings

    def alone(self) -> AbstractContextManager[None]:
        """Let nobody else judge meanwhile, who could make the same calls.

        Raises:
            LorelineError: somebody does.
        """
        return alone(self._connection, self._settings, "judge_calls", "judge")

    def attempts(self, judge: Judge) -> dict[str, Attempts]:
        """What was tried by this version of a judge, by the calls' ids."""
        rows = self._connection.execute(
            self._sql(
                "select call_id, min(subject_id), max(attempt),"
                " count(*) filter (where status = 'invalid'), bool_or(status = 'completed')"
                " from {calls} where labeller_version = %s group by call_id"
            ),
            [judge.version],
        ).fetchall()
        return {call_id: Attempts(*tried) for call_id, *tried in rows}

    def adopt(self, judge: Judge) -> None:
        """Let this version of a judge be the one that counts."""
        self._connection.execute(
            self._sql(
                "insert into {versions} (judge, labeller_version, configuration)"
                " select %(judge)s, %(version)s, %(configuration)s"
                " where %(version)s is distinct from (select labeller_version from {versions}"
                " where judge = %(judge)s order by adoption_number desc limit 1)"
            ),
            {
                "judge": judge.name,
                "version": judge.version,
                "configuration": orjson.dumps(judge.configuration).decode(),
            },
        )

    def save(self, call: Call) -> None:
        """Keep an answer.

        Raises:
            LorelineError: the connection was lost, and with it the right to go on.
        """
        verdict = None if call.verdict is None else orjson.dumps(call.verdict).decode()
        response = orjson.dumps(call.response).decode()
        statement = self._sql("insert into {calls} ({columns}) values ({places})")
        row = {**vars(call), "verdict": verdict, "response": response}
        keep(self._connection, self._settings, statement, row)

    def _sql(self, statement: str) -> Composed:
        schema = f"{self._settings.prefix}operations"
        return SQL(statement).format(
            calls=Identifier(schema, "judge_calls"),
            versions=Identifier(schema, "judge_versions"),
            columns=SQL(", ").join(map(Identifier, _COLUMNS)),
            places=SQL(", ").join(map(Placeholder, _COLUMNS)),
        )


_COLUMNS = [column.name for column in fields(Call)]
