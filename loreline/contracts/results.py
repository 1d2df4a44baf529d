"""What is remembered of contracts: the last result of each table, and how much came in loads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from loreline.contracts.odcs import Contract
from loreline.settings import Settings


@dataclass(frozen=True)
class Result:
    """What was said last of the rows of a table.

    Attributes:
        name: of the contract, as `raw_slack.messages`.
        rows: how many were judged.
        validated_at: when.
        result: Great Expectations' result as it writes it.
    """

    name: str
    rows: int
    validated_at: datetime
    result: dict[str, Any]


def keep(
    settings: Settings,
    connection: psycopg.Connection,
    contract: Contract,
    rows: int,
    result: dict[str, Any],
) -> None:
    """Replace what was said of a table."""
    # What values look like is the source's business: Postgres stores no U+0000 in JSON.
    text = json.dumps(result, default=str).replace("\\u0000", "\\ufffd")
    connection.execute(
        SQL(
            "insert into {} (source, resource, contract_version, rows, success, result)"
            " values (%s, %s, %s, %s, %s, %s) on conflict (source, resource) do update set"
            " contract_version = excluded.contract_version, rows = excluded.rows,"
            " success = excluded.success, result = excluded.result,"
            " validated_at = excluded.validated_at"
        ).format(_table(settings, "contract_results")),
        (
            contract.source,
            contract.resource,
            contract.version,
            rows,
            result["success"],
            Jsonb(json.loads(text)),
        ),
    )


def kept(settings: Settings, connection: psycopg.Connection) -> list[Result]:
    """What was said last of every table."""
    rows = connection.execute(
        SQL(
            "select 'raw_' || source || '.' || resource, rows, validated_at, result"
            " from {} order by 1"
        ).format(_table(settings, "contract_results"))
    )
    return [Result(*row) for row in rows]


def recent_volume(
    settings: Settings, connection: psycopg.Connection, contract: Contract, loads: int
) -> float | None:
    """The median of the rows observed in the last complete loads; None where there were none."""
    row = connection.execute(
        SQL(
            "select percentile_cont(0.5) within group (order by observed)"
            " from (select observed from {} where source = %s and resource = %s"
            " order by landed_at desc limit %s) as recent"
        ).format(_table(settings, "load_volumes")),
        (contract.source, contract.resource, loads),
    ).fetchone()
    return row[0] if row else None


def remember_volume(
    settings: Settings,
    connection: psycopg.Connection,
    source: str,
    resource: str,
    fingerprint: str,
    observed: int,
) -> None:
    """Note how many rows a complete input showed."""
    connection.execute(
        SQL(
            "insert into {} (source, resource, fingerprint, observed) values (%s, %s, %s, %s)"
            " on conflict (source, resource, fingerprint) do update set"
            " observed = excluded.observed"
        ).format(_table(settings, "load_volumes")),
        (source, resource, fingerprint, observed),
    )


def _table(settings: Settings, name: str) -> Identifier:
    return Identifier(f"{settings.prefix}operations", name)
