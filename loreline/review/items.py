"""What is to be judged: a projection of the queue, reconciled at each push."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow as pa

from loreline.errors import LorelineError
from loreline.postgres import in_schema
from loreline.settings import Settings

# The columns of a row of the queue. `content` is JSON:
# {"context": [messages], "sides": [{"leaf_node_id": …, "messages": [messages]}]}, with messages as
# OpenAI's chat API has them, and the sides in the order of `leaf_node_ids`: a before b.
ITEM_SCHEMA = pa.schema(
    {
        "queue_item_id": pa.string(),
        "kind": pa.string(),
        "stratum": pa.string(),
        "priority": pa.float64(),
        "reason": pa.string(),
        "leaf_node_ids": pa.list_(pa.string()),
        "pair_id": pa.string(),
        "content": pa.string(),
    }
)
SIDES = {"trajectory": 1, "pair": 2}

_TYPES = ("text", "text", "text", "float8", "text", "text[]", "text", "text", "text")


@dataclass(frozen=True)
class Changes:
    """What a push did, in items."""

    added: int
    changed: int
    unchanged: int
    withdrawn: int


@dataclass(frozen=True)
class ItemState:
    """What is held of an item.

    Attributes:
        content_sha256: of its content's text.
        is_withdrawn: whether it is gone from the queue.
        labels: how many labels of it stand.
    """

    queue_item_id: str
    kind: str
    content_sha256: str
    is_withdrawn: bool
    labels: int


def put_items(
    connection: psycopg.Connection, settings: Settings, batches: Iterable[pa.RecordBatch]
) -> Changes:
    """Bring the items to what the queue says, all at once.

    Rows that are as they were are not touched. An item that is gone from the queue is withdrawn;
    its labels stay, and so does it. One that comes back is open again.

    Args:
        connection: without an open transaction.
        settings: says which schema the items live in.
        batches: every row of the queue, with the columns of ITEM_SCHEMA.

    Raises:
        LorelineError: a row is not an item; nothing was changed.
    """
    with connection.transaction():
        connection.execute(
            "create temp table arriving (queue_item_id text primary key, kind text, stratum text,"
            " priority float8, reason text, leaf_node_ids text[], pair_id text, content text,"
            " content_sha256 text) on commit drop"
        )
        arrived = _stage(connection, batches)
        # Pushes take turns; reviewers go on.
        connection.execute(
            in_schema(settings, "review", "lock table {}.items in share row exclusive mode")
        )
        written = connection.execute(
            in_schema(
                settings,
                "review",
                "insert into {0}.items as held (queue_item_id, kind, stratum, priority, reason,"
                " leaf_node_ids, pair_id, content, content_sha256)"
                " select queue_item_id, kind, stratum, priority, reason, leaf_node_ids, pair_id,"
                " content::json, content_sha256 from arriving"
                # Left out here, because `on conflict` would lock also what it does not change.
                " where not exists (select from {0}.items as held"
                " where held.queue_item_id = arriving.queue_item_id and withdrawn_at is null"
                " and (held.kind, held.stratum, held.priority, held.reason, held.leaf_node_ids,"
                " held.pair_id, held.content_sha256) is not distinct from"
                " (arriving.kind, arriving.stratum, arriving.priority, arriving.reason,"
                " arriving.leaf_node_ids, arriving.pair_id, arriving.content_sha256))"
                " on conflict (queue_item_id) do update set kind = excluded.kind,"
                " stratum = excluded.stratum, priority = excluded.priority,"
                " reason = excluded.reason, leaf_node_ids = excluded.leaf_node_ids,"
                " pair_id = excluded.pair_id, content = excluded.content,"
                " content_sha256 = excluded.content_sha256, pushed_at = now(), withdrawn_at = null"
                # A row that was there before was changed by this transaction, not made by it.
                " returning held.xmax = 0",
            )
        ).fetchall()
        withdrawn = connection.execute(
            in_schema(
                settings,
                "review",
                "update {}.items as held set withdrawn_at = now() where withdrawn_at is null"
                " and not exists (select from arriving"
                " where arriving.queue_item_id = held.queue_item_id)",
            )
        ).rowcount
    added = sum(is_new for (is_new,) in written)
    return Changes(added, len(written) - added, arrived - len(written), withdrawn)


def states(connection: psycopg.Connection, settings: Settings) -> list[ItemState]:
    """What is held, by the items' ids."""
    rows = connection.execute(
        in_schema(
            settings,
            "review",
            "select queue_item_id, kind, content_sha256, withdrawn_at is not null,"
            " {0}.label_count(queue_item_id) from {0}.items order by queue_item_id",
        )
    ).fetchall()
    return [ItemState(*row) for row in rows]


def _stage(connection: psycopg.Connection, batches: Iterable[pa.RecordBatch]) -> int:
    count = 0
    try:
        with connection.cursor().copy("copy arriving from stdin (format binary)") as copy:
            copy.set_types(_TYPES)
            for batch in batches:
                for row in _as_items(batch):
                    digest = hashlib.sha256(row["content"].encode()).hexdigest()
                    copy.write_row((*row.values(), digest))
                    count += 1
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise LorelineError(
            f"Postgres refused an item to review ({error.diag.message_primary or error})",
            "push each queue_item_id once, with texts that hold no null character",
        ) from error
    return count


def _as_items(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    try:
        rows = pa.Table.from_batches([batch]).select(ITEM_SCHEMA.names).cast(ITEM_SCHEMA)
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LorelineError(
            f"the rows to push are not items to review ({error})",
            f"send the columns {', '.join(ITEM_SCHEMA.names)}",
        ) from error
    items = rows.to_pylist()
    for item in items:
        if problem := _problem(item):
            raise LorelineError(
                f"item {item['queue_item_id']} cannot be reviewed: {problem}", "mend the queue"
            )
    return items


def _problem(item: Mapping[str, Any]) -> str | None:
    if missing := [
        name for name, value in item.items() if value is None and name not in ("pair_id",)
    ]:
        return f"it has no {missing[0]}"
    if item["kind"] not in SIDES:
        return f"its kind is {item['kind']}, not {' or '.join(SIDES)}"
    if (item["kind"] == "pair") != (item["pair_id"] is not None):
        return "a pair has a pair_id, and nothing else does"
    try:
        content = json.loads(item["content"])
        sides = [side["leaf_node_id"] for side in content["sides"]]
        messages = [
            *content["context"],
            *(m for side in content["sides"] for m in side["messages"]),
        ]
    except (ValueError, KeyError, TypeError) as error:
        return f"its content is not what it should be ({error!r})"
    if len(sides) != SIDES[item["kind"]] or sides != item["leaf_node_ids"]:
        return f"it is of {item['leaf_node_ids']}, its sides are {sides}"
    return None if all(isinstance(m, dict) for m in messages) else "a message is no object"
