"""Records of dbt's runs: when they began and ended, and what failed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from loreline.postgres import connect
from loreline.settings import Settings

MESSAGE_CHARACTERS = 2_000
# dbt's words for a node that is not as it should be.
FAILED = ("error", "fail", "runtime error", "partial success")


@dataclass(frozen=True)
class Build:
    """One run of dbt.

    Attributes:
        invocation_id: dbt's id of it.
        command: build, run, seed or test.
        selection: what was selected; empty for all.
        started_at: when its work began, after dbt had read the project.
        ended_at: None of one that is still running, or was killed.
        failures: `{"node", "status", "message"}` of what failed; None while it has no end.
        tables: how many tables of the lake it changed.
    """

    invocation_id: str
    command: str
    selection: str
    started_at: datetime
    ended_at: datetime | None
    failures: list[dict[str, str]] | None
    tables: int

    @property
    def seconds(self) -> float | None:
        """How long it took."""
        return (self.ended_at - self.started_at).total_seconds() if self.ended_at else None


def begun(settings: Settings, invocation_id: str, command: str, selection: str) -> None:
    """Record that a run begins."""
    with connect(settings) as connection:
        connection.execute(
            SQL(
                "insert into {} (invocation_id, command, selection) values (%s, %s, %s)"
                " on conflict (invocation_id) do nothing"
            ).format(_table(settings)),
            [invocation_id, command, selection],
        )


def ended(settings: Settings, invocation_id: str, results: Sequence[Mapping[str, str]]) -> None:
    """Record how a run ended.

    Args:
        settings: the stores.
        invocation_id: of a run that was recorded when it began; of any other, nothing is.
        results: `{"node", "status", "message"}` of each node.
    """
    failures = [
        {**result, "message": str(result["message"] or "")[:MESSAGE_CHARACTERS].replace("\0", "")}
        for result in results
        if result["status"] in FAILED
    ]
    with connect(settings) as connection:
        connection.execute(
            SQL(
                "update {} set ended_at = now(), nodes = %s, failures = %s"
                " where invocation_id = %s and ended_at is null"
            ).format(_table(settings)),
            [len(results), Jsonb(failures), invocation_id],
        )


def named(settings: Settings, invocation_id: str, selection: str) -> None:
    """Say in words what a run has selected."""
    with connect(settings) as connection:
        statement = SQL("update {} set selection = %s where invocation_id = %s")
        connection.execute(statement.format(_table(settings)), [selection, invocation_id])


def last(connection: psycopg.Connection[Any], settings: Settings) -> list[Build]:
    """The run that began last, and the last one of everything, where that is another one.

    Runs of tests alone are left out.
    """
    query = SQL(
        "with ranked as ("
        " select *, row_number() over (order by started_at desc) as recency,"
        " row_number() over (partition by selection = '' order by started_at desc) as of_its_kind"
        " from {builds} where command <> 'test')"
        " select invocation_id, command, selection, started_at, ended_at, failures, ("
        "  select count(distinct table_name) from {commits} as commits"
        "  where commits.invocation_id = ranked.invocation_id"
        " ) as tables"
        " from ranked where recency = 1 or (selection = '' and of_its_kind = 1)"
        " order by started_at desc"
    ).format(builds=_table(settings), commits=Identifier(f"{settings.prefix}operations", "commits"))
    with connection.cursor(row_factory=class_row(Build)) as cursor:
        return cursor.execute(query).fetchall()


def _table(settings: Settings) -> Identifier:
    return Identifier(f"{settings.prefix}operations", "builds")
