"""Read each chat event once: canonical messages, and the hashes that the forest is made of."""

import pyarrow as pa

from loreline.conversations.requests import SCHEMA, read_requests
from loreline.dbt_plugin import new_rows, reader

EVENTS_PER_BATCH = 10_000
# Every commit is a file that later queries have to open.
EVENTS_PER_COMMIT = 100_000


def model(dbt, session):
    """One row per event `llm.chat.*`, its hashes and what it says that no row before it said."""
    dbt.config(
        materialized="incremental",
        incremental_strategy="append",
        unique_key="raw_dlt_id",
    )
    events = new_rows(dbt.ref("stg_gateway__events")).filter("event_type like 'llm.chat.%'")
    query = events.select("raw_dlt_id, event_key, payload").sql_query()
    # A cursor of its own: what is committed meanwhile would end a query that is still being read.
    batches = session.cursor().execute(query).to_arrow_reader(EVENTS_PER_BATCH)
    return reader(SCHEMA, gathered(read_requests(batches)))


def gathered(batches):
    """Batches put together to the size of a commit."""
    waiting = []
    for batch in batches:
        waiting.append(batch)
        if sum(part.num_rows for part in waiting) >= EVENTS_PER_COMMIT:
            yield pa.concat_batches(waiting)
            waiting = []
    if waiting:
        yield pa.concat_batches(waiting)
