"""Copies of conversation tables in Postgres, where a replay finds what it needs in milliseconds.

The tables of the lake say what the copies should hold. A push changes all of them in one
transaction, so that a reader meets no node before its history.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import psycopg
import pyarrow as pa
from psycopg.sql import SQL, Composed, Identifier
from pyarrow import csv

from loreline.postgres import in_schema
from loreline.settings import Settings


@dataclass(frozen=True)
class Copy:
    """A table of the schema `lineage`, and of the lake's `conversations`.

    Attributes:
        name: in both.
        key: the columns that identify a row.
        others: the other columns that are copied.
    """

    name: str
    key: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """Every copied column."""
        return self.key + self.others


COPIES = (
    Copy(
        "messages",
        ("message_hash",),
        ("role", "content", "name", "tool_calls", "tool_call_id", "token_count"),
    ),
    Copy(
        "context_snapshots",
        ("context_snapshot_id",),
        ("parent_snapshot_id", "message_hash", "depth"),
    ),
    Copy("request_attributes", ("tenant", "attribute_hash"), ("kind", "content")),
    Copy("llm_chat_turns", ("turn_key",), ("parameters", "prompt_tokens", "completion_tokens")),
    Copy(
        "conversation_branch_nodes",
        ("branch_node_id",),
        (
            *("session_id", "tenant", "theme_id", "turn_key", "turn_id", "parent_node_id"),
            *("is_root", "depth", "sibling_index", "is_replay", "model", "system_hash"),
            *("tools_hash", "context_snapshot_id", "response_snapshot_id", "started_at"),
        ),
    ),
)


@dataclass(frozen=True)
class CopyState:
    """How far a copy goes: through which batch of the lake's table, and how many rows it has."""

    table_name: str
    pushed_batch: int
    row_count: int


@dataclass(frozen=True)
class Changes:
    """What a copy has to take over.

    Attributes:
        rows: the changed rows, or all of them; the columns of the copy, read once.
        through_batch: the last batch that they hold.
        is_whole: whether they are all rows of the table, so that others go.
    """

    rows: Iterable[pa.RecordBatch]
    through_batch: int
    is_whole: bool


def states(connection: psycopg.Connection, settings: Settings) -> dict[str, CopyState]:
    """How far the copies go, by the name of the table; nothing of one that was never pushed."""
    statement = in_schema(
        settings, "lineage", "select table_name, pushed_batch, row_count from {}.copies"
    )
    rows = connection.execute(statement).fetchall()
    return {row[0]: CopyState(*row) for row in rows}


def push(
    connection: psycopg.Connection, settings: Settings, changes: Mapping[str, Changes]
) -> None:
    """Bring the copies to the state that their changes make of them, all at once.

    Two pushes take turns; killed, none of it is there.

    Args:
        connection: without an open transaction.
        settings: says which schema the copies live in.
        changes: by the name of the table.
    """
    with connection.transaction():
        connection.execute(in_schema(settings, "lineage", "lock table {}.copies in exclusive mode"))
        known = states(connection, settings)
        for copy in COPIES:
            change, state = changes.get(copy.name), known.get(copy.name)
            # Another push may have gone further meanwhile.
            if change and (state is None or _is_newer(change, state)):
                _apply(connection, settings, copy, change, state.row_count if state else 0)


def fingerprint_in_lake(copy: Copy) -> str:
    """DuckDB's SQL for the SHA-256 of what a row holds.

    Over each value as its length in bytes, a colon and its text, joined by commas; null is `~`.
    """
    return f"sha256({_joined(copy, 'strlen({0}::varchar)')})"


def fingerprint_in_postgres(copy: Copy) -> str:
    """Postgres' SQL for the same."""
    return (
        f"encode(sha256(convert_to({_joined(copy, 'octet_length({0}::varchar)')}, 'UTF8')), 'hex')"
    )


def _is_newer(change: Changes, state: CopyState) -> bool:
    return change.is_whole or change.through_batch > state.pushed_batch


def _joined(copy: Copy, length: str) -> str:
    return " || ',' || ".join(
        f"coalesce({length.format(column)} || ':' || {column}::varchar, '~')"
        for column in copy.columns
    )


def _apply(
    connection: psycopg.Connection, settings: Settings, copy: Copy, change: Changes, known: int
) -> None:
    """Bring one copy up to date; `known` is how many rows it has, as far as is known."""
    names = {
        "target": Identifier(f"{settings.prefix}lineage", copy.name),
        "staged": Identifier(f"staged_{copy.name}"),
        "columns": _listed(copy.columns),
        "key": _listed(copy.key),
        "held_key": SQL(", ").join(Identifier("held", column) for column in copy.key),
        "staged_key": SQL(", ").join(Identifier("staged", column) for column in copy.key),
        "updates": SQL(", ").join(
            SQL("{0} = excluded.{0}").format(Identifier(column)) for column in copy.others
        ),
        "held": SQL(", ").join(Identifier("held", column) for column in copy.others),
        "given": SQL(", ").join(Identifier("excluded", column) for column in copy.others),
    }
    connection.execute(
        SQL(
            "create temp table {staged} on commit drop as select {columns} from {target} limit 0"
        ).format(**names)
    )
    with connection.cursor().copy(
        SQL("copy {staged} ({columns}) from stdin (format csv)").format(**names)
    ) as stream:
        for batch in change.rows:
            stream.write(_csv(batch, copy))
    if change.is_whole:
        connection.execute(
            SQL(
                "delete from {target} as held where not exists"
                " (select from {staged} as staged where ({held_key}) = ({staged_key}))"
            ).format(**names)
        )
    added = _count(
        connection,
        SQL(
            "with written as ("
            " insert into {target} as held ({columns}) select {columns} from {staged}"
            " on conflict ({key}) do update set {updates}"
            " where ({held}) is distinct from ({given})"
            # A row that was there before was changed by this transaction, not made by it.
            " returning held.xmax = 0 as is_new"
            ") select count(*) from written where is_new"
        ).format(**names),
    )
    if change.is_whole:
        # Somebody may have added or removed rows by hand.
        row_count = _count(connection, SQL("select count(*) from {target}").format(**names))
    else:
        row_count = known + added
    connection.execute(
        in_schema(
            settings,
            "lineage",
            "insert into {}.copies (table_name, pushed_batch, row_count) values (%s, %s, %s)"
            " on conflict (table_name) do update set"
            " pushed_batch = excluded.pushed_batch, row_count = excluded.row_count",
        ),
        [copy.name, change.through_batch, row_count],
    )


def _count(connection: psycopg.Connection, statement: Composed) -> int:
    row = connection.execute(statement).fetchone()
    assert row is not None
    return row[0]


def _csv(batch: pa.RecordBatch, copy: Copy) -> bytes:
    """Rows as the CSV that Postgres reads: a null is nothing, an empty text is quoted."""
    buffer = io.BytesIO()
    options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
    csv.write_csv(batch.select(list(copy.columns)), buffer, options)
    return buffer.getvalue()


def _listed(columns: Iterable[str]) -> Composed:
    return SQL(", ").join(map(Identifier, columns))
