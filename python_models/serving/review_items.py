"""Bring the items that reviewers see to what the queue says."""

import json
from itertools import groupby
from operator import itemgetter

import pyarrow as pa

from loreline.dbt_plugin import is_empty_run, settings, table_name
from loreline.postgres import connect
from loreline.replay.contexts import chat_messages
from loreline.review.items import ITEM_SCHEMA, put_items, states

ITEMS_PER_BATCH = 50

SCHEMA = pa.schema(
    [("queue_item_id", pa.string()), ("kind", pa.string()), ("content_sha256", pa.string())]
)

# What is asked about and who had asked: the system's text and the tools that were on offer.
ITEMS = """
with subjects as (
    select trajectory_id as subject_id, tenant, system_hash, tools_hash from {units}
    union all
    select pair_id as subject_id, tenant, system_hash, tools_hash from {pairs}
)

select
    queue.queue_item_id,
    queue.kind,
    queue.stratum,
    queue.priority,
    queue.reason,
    queue.leaf_node_ids,
    queue.pair_id,
    systems.content as system,
    tools.content as tools
from {queue} as queue
inner join subjects on queue.subject_id = subjects.subject_id
left join {attributes} as systems
    on subjects.tenant = systems.tenant
    and subjects.system_hash = systems.attribute_hash
    and systems.kind = 'system'
left join {attributes} as tools
    on subjects.tenant = tools.tenant
    and subjects.tools_hash = tools.attribute_hash
    and tools.kind = 'tools'
order by queue.queue_item_id
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
        queue.queue_item_id,
        subjects.side,
        unnest(subjects.message_hashes) as message_hash,
        generate_subscripts(subjects.message_hashes, 1) as position
    from {queue} as queue
    inner join subjects on queue.subject_id = subjects.subject_id
)

select
    places.queue_item_id,
    places.side,
    messages.role,
    messages.content,
    messages.name,
    messages.tool_calls,
    messages.tool_call_id
from places
inner join {messages} as messages on places.message_hash = messages.message_hash
order by places.queue_item_id, places.side, places.position
"""


def model(dbt, session):
    """One row per item that reviewers may be shown, read back after the push."""
    dbt.config(materialized="table")
    tables = {
        "queue": table_name(dbt.ref("human_sample_queue")),
        "units": table_name(dbt.ref("trajectory_units")),
        "pairs": table_name(dbt.ref("candidate_preference_pairs")),
        "messages": table_name(dbt.ref("messages")),
        "attributes": table_name(dbt.ref("request_attributes")),
    }
    if is_empty_run():
        return SCHEMA.empty_table()
    with connect(settings(), autocommit=True) as connection:
        put_items(connection, settings(), batches(items(session, tables)))
        held = [vars(state) for state in states(connection, settings()) if not state.is_withdrawn]
    return pa.Table.from_pylist(held, schema=SCHEMA)


def items(session, tables):
    """Rows of the queue with their content."""
    said = groupby(rows(session, MESSAGES.format(**tables)), key=itemgetter("queue_item_id"))
    of_item, messages = next(said, (None, ()))
    for item in rows(session, ITEMS.format(**tables)):
        sides = {0: [], 1: [], 2: []}
        if of_item == item["queue_item_id"]:
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


def rows(session, query):
    """Rows of a query as dictionaries, some at a time, on a cursor of its own."""
    result = session.cursor().execute(query)
    names = [column[0] for column in result.description]
    while found := result.fetchmany(ITEMS_PER_BATCH):
        yield from (dict(zip(names, row, strict=True)) for row in found)


def batches(found):
    """Items as Arrow."""
    waiting = []
    for item in found:
        waiting.append(item)
        if len(waiting) == ITEMS_PER_BATCH:
            yield pa.RecordBatch.from_pylist(waiting, schema=ITEM_SCHEMA)
            waiting = []
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, schema=ITEM_SCHEMA)
