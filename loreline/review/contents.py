"""What is judged, by people and by models: the messages of trajectories and of pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

import duckdb

from loreline.conversations.chat import chat_messages

ITEMS_PER_BATCH = 50

# What is asked about and who had asked: the system's text and the tools that were on offer.
ITEMS = """
with subjects as (
    select trajectory_id as subject_id, tenant, system_hash, tools_hash from {units}
    union all
    select pair_id as subject_id, tenant, system_hash, tools_hash from {pairs}
)

select
    wanted.*,
    systems.content as system,
    tools.content as tools
from {wanted} as wanted
inner join subjects on wanted.subject_id = subjects.subject_id
left join {attributes} as systems
    on subjects.tenant = systems.tenant
    and subjects.system_hash = systems.attribute_hash
    and systems.kind = 'system'
left join {attributes} as tools
    on subjects.tenant = tools.tenant
    and subjects.tools_hash = tools.attribute_hash
    and tools.kind = 'tools'
order by wanted.{key}
"""

# Side 0 is what both responses answer, or nothing before a trajectory.
MESSAGES = """
with subjects as (
    select trajectory_id as subject_id, 1 as side, message_hashes from {units}
    union all
    select pair_id as subject_id, 0 as side, message_hashes from {pairs}
    union all
    select pair_id as subject_id, 1 as side, [answer_a] as message_hashes from {pairs}
    union all
    select pair_id as subject_id, 2 as side, [answer_b] as message_hashes from {pairs}
),

places as (
    select
        wanted.{key},
        subjects.side,
        unnest(subjects.message_hashes) as message_hash,
        generate_subscripts(subjects.message_hashes, 1) as position
    from {wanted} as wanted
    inner join subjects on wanted.subject_id = subjects.subject_id
)

select
    places.{key},
    places.side,
    messages.role,
    messages.content,
    messages.name,
    messages.tool_calls,
    messages.tool_call_id
from places
inner join {messages} as messages on places.message_hash = messages.message_hash
order by places.{key}, places.side, places.position
"""


def with_contents(
    session: duckdb.DuckDBPyConnection, wanted: str, key: str, tables: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Rows of a table, each with the `content` of its subject.

    Args:
        session: where the tables are.
        wanted: a table of subjects with `subject_id` and `leaf_node_ids`, a before b.
        key: its column by which rows are told apart, and in whose order they come.
        tables: the names of units, pairs, messages and attributes.

    Yields:
        The row, and in `content` JSON: {"context": [messages], "sides": [{"leaf_node_id",
        "messages"}]}, with messages as OpenAI's chat API has them.
    """
    names = {**tables, "wanted": wanted, "key": key}
    said = groupby(_rows(session, MESSAGES.format(**names)), key=itemgetter(key))
    of_item, messages = next(said, (None, ()))
    for item in _rows(session, ITEMS.format(**names)):
        sides: dict[int, list[Any]] = {0: [], 1: [], 2: []}
        if of_item == item[key]:
            for message in messages:
                sides[message["side"]].append(message)
            of_item, messages = next(said, (None, ()))
        context = chat_messages(sides[0], json.loads(item.pop("system") or "[]"))
        if tools := item.pop("tools"):
            context.insert(0, {"role": "tools", "content": tools})
        answers = [
            {"leaf_node_id": leaf, "messages": chat_messages(sides[side], None)}
            for side, leaf in enumerate(item["leaf_node_ids"], start=1)
        ]
        yield {**item, "content": json.dumps({"context": context, "sides": answers})}


def _rows(session: duckdb.DuckDBPyConnection, query: str) -> Iterator[dict[str, Any]]:
    """Rows of a query as dictionaries, some at a time, on a cursor of its own."""
    result = session.cursor().execute(query)
    names = [column[0] for column in result.description]
    while found := result.fetchmany(ITEMS_PER_BATCH):
        yield from (dict(zip(names, row, strict=True)) for row in found)
