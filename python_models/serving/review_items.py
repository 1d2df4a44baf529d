"""Bring the items that reviewers see to what the queue says."""

import pyarrow as pa

from loreline.dbt_plugin import is_empty_run, settings, table_name
from loreline.postgres import connect
from loreline.review.contents import with_contents
from loreline.review.items import ITEM_SCHEMA, put_items, states

ITEMS_PER_BATCH = 50

SCHEMA = pa.schema(
    [("queue_item_id", pa.string()), ("kind", pa.string()), ("content_sha256", pa.string())]
)


def model(dbt, session):
    """One row per item that reviewers may be shown, read back after the push."""
    dbt.config(materialized="table")
    queue = table_name(dbt.ref("human_sample_queue"))
    tables = {
        "units": table_name(dbt.ref("trajectory_units")),
        "pairs": table_name(dbt.ref("candidate_preference_pairs")),
        "messages": table_name(dbt.ref("messages")),
        "attributes": table_name(dbt.ref("request_attributes")),
    }
    if is_empty_run():
        return SCHEMA.empty_table()
    items = with_contents(session, queue, "queue_item_id", tables)
    with connect(settings(), autocommit=True) as connection:
        put_items(connection, settings(), batches(items))
        held = [vars(state) for state in states(connection, settings()) if not state.is_withdrawn]
    return pa.Table.from_pylist(held, schema=SCHEMA)


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
