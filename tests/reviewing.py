"""Items to review, and the page on a port of its own, for tests."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pyarrow as pa
import uvicorn
from psycopg.sql import SQL, Identifier

from loreline.postgres import connect
from loreline.review.categories import Category
from loreline.review.items import ITEM_SCHEMA, Changes, put_items
from loreline.review.reviewers import Reviewers
from loreline.settings import Settings
from loreline.web.app import create_app

Json = Any

CATEGORIES = [
    Category("tool_helped", "Tool helped", "It did.", "h"),
    Category("overlong", "Overlong", "It is.", "o"),
]


def user(text: Json) -> Json:
    return {"role": "user", "content": text}


def assistant(text: Json, **others: Json) -> Json:
    return {"role": "assistant", "content": text, **others}


def trajectory(queue_item_id: str, *messages: Json, context: Json = (), **others: Any) -> Json:
    """A trajectory to judge; its leaf is named after the item."""
    leaf = f"leaf-{queue_item_id}"
    said = messages or (user(f"question {queue_item_id}"), assistant(f"answer {queue_item_id}"))
    sides = [{"leaf_node_id": leaf, "messages": list(said)}]
    return _item(queue_item_id, "trajectory", list(context), sides, **others)


def pair(
    queue_item_id: str,
    a: Json = "the answer of a",
    b: Json = "the answer of b",
    context: Json = (),
    **others: Any,
) -> Json:
    """Two answers to compare; their leaves are named after the item."""
    sides = [
        {"leaf_node_id": f"{queue_item_id}-{side}", "messages": [assistant(text)]}
        for side, text in (("a", a), ("b", b))
    ]
    asked = list(context) or [user(f"question {queue_item_id}")]
    pair_id = f"pair-{queue_item_id}"
    return _item(queue_item_id, "pair", asked, sides, pair_id=pair_id, **others)


def _item(
    queue_item_id: str,
    kind: str,
    context: list[Json],
    sides: list[Json],
    pair_id: str | None = None,
    priority: float = 1.0,
    reason: str = "stratum",
) -> Json:
    return {
        "queue_item_id": queue_item_id,
        "kind": kind,
        "stratum": "support × 3",
        "priority": priority,
        "reason": reason,
        "leaf_node_ids": [side["leaf_node_id"] for side in sides],
        "pair_id": pair_id,
        "content": json.dumps({"context": context, "sides": sides}),
    }


def put(settings: Settings, *items: Json) -> Changes:
    """Make these the queue."""
    table = pa.Table.from_pylist(list(items), schema=ITEM_SCHEMA)
    with connect(settings, autocommit=True) as connection:
        return put_items(connection, settings, table.to_batches(max_chunksize=2))


def add_reviewers(settings: Settings, *names: str) -> list[str]:
    """Let people review; gives their tokens."""
    with connect(settings, autocommit=True) as connection:
        return [Reviewers(connection, settings).add(name) for name in names]


def rows(settings: Settings, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Ask Postgres; `{}` is the schema of the review."""
    with connect(settings, autocommit=True) as connection:
        cursor = in_review(connection, settings, statement, *parameters)
        return cursor.fetchall() if cursor.description else []


def in_review(
    connection: psycopg.Connection, settings: Settings, statement: str, *parameters: Any
) -> psycopg.Cursor:
    """Execute a statement in which `{}` is the schema of the review."""
    schema = Identifier(f"{settings.prefix}review")
    return connection.execute(SQL(statement).format(schema), parameters)


@contextmanager
def served(settings: Settings) -> Iterator[str]:
    """The application on a free port; gives its address."""
    app = create_app(settings, CATEGORIES)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
