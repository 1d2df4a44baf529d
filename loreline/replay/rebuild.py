"""What the next build makes anew, and why: where it starts, and what hangs from that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from psycopg.sql import SQL, Identifier

from loreline.settings import PROJECT_ROOT, Settings

# dbt's manifest, as far as it is read here: unique ids of what hangs from each node, by its id.
Graph = Mapping[str, list[str]]

# What the events say that were landed and not built. An attempt is known by its turn and when it
# began: then what is new of it is which version of the model it was.
_EVENTS = """
with unread as (
    select
        payload ->> '$.type' as kind,
        coalesce(payload ->> '$.data.tenant', '') as tenant,
        payload ->> '$.data.turn_id' as turn_id,
        try_cast(payload ->> '$.data.started_at' as timestamptz)::timestamp as started_at
    from lake.{prefix}raw_gateway.events
    where _batch > $since
)

select
    case
        when kind is null then 'large events'
        when kind not like 'llm.chat.%' then kind
        when attempts.turn_id is null then 'attempts at turns'
        else 'known attempts, as under another model_snapshot_id'
    end as what,
    count(*) as events
from unread
left join (
    select turn_id, tenant, started_at
    from lake.{prefix}conversations.execution_run_records
    group by turn_id, tenant, started_at
) as attempts
    on unread.turn_id = attempts.turn_id
    and unread.tenant = attempts.tenant
    and unread.started_at = attempts.started_at
group by what
order by what
"""

# The first model in which each kind of event may change a row, by how it begins; else the requests.
_STARTS = {
    "known attempts": "execution_run_records",
    "llm.tool.": "execution_run_records",
    "taskification.": "stg_gateway__tasks",
    "flow.": "flow_nodes",
}


@dataclass(frozen=True)
class Rebuild:
    """Models that have something new to read.

    Attributes:
        start: the first of them.
        reason: what is new.
        models: it and all that hang from it, in their order.
    """

    start: str
    reason: str
    models: list[str]


def rebuilds(
    lake: duckdb.DuckDBPyConnection,
    connection: psycopg.Connection,
    settings: Settings,
    graph: Graph,
) -> list[Rebuild]:
    """What the next build of the conversations will do.

    Args:
        lake: with the lake attached.
        connection: to Postgres.
        settings: the stores.
        graph: what hangs from each node of the project.
    """
    found = []
    for seed, reason in _changed_seeds(lake, settings):
        models = _after(graph, f"seed.loreline.{seed}")
        if models:
            found.append(Rebuild(models[0], reason, models))
    for start, reason in _unread_events(lake, connection, settings):
        found.append(Rebuild(start, reason, [start, *_after(graph, f"model.loreline.{start}")]))
    return found


def _after(graph: Graph, unique_id: str) -> list[str]:
    """Names of the models that hang from a node, each after those that it hangs from."""
    order: list[str] = []
    seen: set[str] = set()

    def visit(node: str) -> None:
        if node in seen:
            return
        seen.add(node)
        for child in sorted(graph.get(node, [])):
            visit(child)
        order.append(node)

    visit(unique_id)
    return [n.split(".")[2] for n in reversed(order) if n.startswith("model.") and n != unique_id]


def _changed_seeds(
    lake: duckdb.DuckDBPyConnection, settings: Settings
) -> Iterator[tuple[str, str]]:
    """Seeds whose file differs from the table, and how."""
    for path in sorted((PROJECT_ROOT / "seeds").glob("*.csv")):
        table = f"lake.{settings.prefix}seeds.{path.stem}"
        try:
            described = lake.execute(f"describe {table}").fetchall()
        except duckdb.CatalogException:
            yield path.stem, f"seeds/{path.name} is new"
            continue
        columns = {name: kind for name, kind, *_ in described if not name.startswith("_")}
        try:
            gone = _rows_without(lake, table, _read_csv(path, columns), columns)
            new = _rows_without(lake, _read_csv(path, columns), table, columns)
        except duckdb.Error:
            yield path.stem, f"seeds/{path.name} has other columns"
            continue
        if gone or new:
            yield path.stem, f"seeds/{path.name} has changed: {_told(gone, new)}"


def _told(gone: list[str], new: list[str]) -> str:
    both = [name for name in gone if name in new]
    parts = {
        "changed": both,
        "gone": [name for name in gone if name not in both],
        "new": [name for name in new if name not in both],
    }
    return "; ".join(f"{', '.join(names)} {what}" for what, names in parts.items() if names)


def _rows_without(
    lake: duckdb.DuckDBPyConnection, rows: str, others: str, columns: Mapping[str, str]
) -> list[str]:
    """The first column of rows that others lack."""
    names = ", ".join(columns)
    statement = f"select {names} from {rows} except select {names} from {others} order by 1"
    return [str(row[0]) for row in lake.execute(statement).fetchall()]


def _read_csv(path: Path, columns: Mapping[str, str]) -> str:
    types = ", ".join(f"'{name}': '{kind}'" for name, kind in columns.items())
    return f"read_csv('{path}', header = true, types = {{{types}}})"


def _unread_events(
    lake: duckdb.DuckDBPyConnection, connection: psycopg.Connection, settings: Settings
) -> Iterator[tuple[str, str]]:
    row = connection.execute(
        SQL("select last_batch from {}.watermarks where model = %s").format(
            Identifier(f"{settings.prefix}operations")
        ),
        [f"{settings.prefix}staging.stg_gateway__events"],
    ).fetchone()
    try:
        rows: list[Any] = lake.execute(
            _EVENTS.format(prefix=settings.prefix), {"since": row[0] if row else -1}
        ).fetchall()
    except duckdb.CatalogException:
        return
    for what, events in rows:
        starts = (start for begins, start in _STARTS.items() if what.startswith(begins))
        start = next(starts, "stg_gateway__chat_requests")
        yield start, f"{events:,} events have landed: {what}"
