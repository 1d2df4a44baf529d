"""How fresh what is landed is: when each source was looked at last, and what that showed."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from loreline.errors import LorelineError
from loreline.settings import PROJECT_ROOT, Settings

# Read where it is edited: it must hold also where nothing was ever built.
THRESHOLDS = PROJECT_ROOT / "seeds" / "source_freshness.csv"


class State(StrEnum):
    """Whether a source was looked at in time."""

    fresh = "fresh"
    due = "due"
    late = "late"
    unlimited = "no limit"


@dataclass(frozen=True)
class Freshness:
    """One raw table, or a source of which nothing was landed.

    Attributes:
        source: notion, slack, …
        resource: its table; None where it has none yet.
        loaded_at: when the source was last read to its end, whether or not anything was new; None
            where it never was.
        lag_seconds: how long ago that is, or the first attempt where none has come to its end.
        state: whether that is in time.
        error: why the last attempt failed; None where it did not.
        last_landed_at: when something was new last.
        last_source_update: the newest change that the source has told of.
        rows: rows of the table.
        tombstones: those that record a deletion.
    """

    source: str
    resource: str | None
    loaded_at: datetime | None
    lag_seconds: float
    state: State
    error: str | None
    last_landed_at: datetime | None
    last_source_update: datetime | None
    rows: int
    tombstones: int


_QUERY = """
with limits as (
    select
        source,
        nullif(warn_after, '')::interval as warn,
        nullif(error_after, '')::interval as error
    from unnest(%(sources)s::text[], %(warn)s::text[], %(error)s::text[])
        as given (source, warn_after, error_after)
),

looked as (
    select
        loads.*,
        now() - coalesce(loads.loaded_at, loads.attempted_at) as lag
    from {loads} as loads
)

select
    looked.source,
    tables.resource,
    looked.loaded_at,
    extract(epoch from looked.lag)::double precision as lag_seconds,
    case
        when looked.lag > limits.error then 'late'
        when looked.lag > limits.warn then 'due'
        when coalesce(limits.warn, limits.error) is null then 'no limit'
        else 'fresh'
    end as state,
    looked.error,
    tables.last_landed_at,
    tables.last_source_update,
    coalesce(tables.rows, 0) as rows,
    coalesce(tables.tombstones, 0) as tombstones
from looked
left join {tables} as tables on looked.source = tables.source
left join limits on looked.source = limits.source
order by looked.source, tables.resource
"""


def read(
    connection: psycopg.Connection[Any], settings: Settings, thresholds: Path = THRESHOLDS
) -> list[Freshness]:
    """All sources that somebody has tried to land, and their tables.

    Raises:
        LorelineError: the thresholds cannot be read.
    """
    schema = f"{settings.prefix}operations"
    query = SQL(_QUERY).format(
        loads=Identifier(schema, "source_loads"), tables=Identifier(schema, "source_freshness")
    )
    limits = _limits(thresholds)
    columns = {
        "sources": [row["source"] for row in limits],
        "warn": [row["warn_after"] for row in limits],
        "error": [row["error_after"] for row in limits],
    }
    try:
        with connection.cursor(row_factory=class_row(Freshness)) as cursor:
            return cursor.execute(query, columns).fetchall()
    except (psycopg.errors.InvalidDatetimeFormat, psycopg.errors.DatetimeFieldOverflow) as error:
        raise LorelineError(
            f"{thresholds.name} holds what is no interval ({error.diag.message_primary})",
            "write such as `6 hours` or `1 day`",
        ) from error


def _limits(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))
