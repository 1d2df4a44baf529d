"""Bring the copies that a replay reads to what the conversation tables say."""

import pyarrow as pa

from loreline.dbt_plugin import is_empty_run, is_full_refresh, settings, table_name
from loreline.lake.commits import last_batch, rewritten
from loreline.postgres import connect
from loreline.serving.lineage import COPIES, Changes, push, states

ROWS_PER_BATCH = 20_000

SCHEMA = pa.schema(
    [("table_name", pa.string()), ("pushed_batch", pa.int64()), ("row_count", pa.int64())]
)


def model(dbt, session):
    """One row per copy in Postgres, after what changed was pushed to it."""
    dbt.config(materialized="table")
    tables = {
        "messages": table_name(dbt.ref("messages")),
        "context_snapshots": table_name(dbt.ref("context_snapshots")),
        "request_attributes": table_name(dbt.ref("request_attributes")),
        "llm_chat_turns": table_name(dbt.ref("llm_chat_turns")),
        "conversation_branch_nodes": table_name(dbt.ref("conversation_branch_nodes")),
    }
    return pa.Table.from_pylist(pushed(session, tables), schema=SCHEMA)


def pushed(session, tables):
    """Push what changed, and read back how far the copies go."""
    if is_empty_run():
        return []
    with connect(settings(), autocommit=True) as connection:
        known = states(connection, settings())
        changes = {}
        # Nodes first: what another build adds meanwhile may then be a history without its node, not
        # a node without its history.
        for copy in reversed(COPIES):
            table = tables[copy.name]
            since = known[copy.name].pushed_batch if copy.name in known else -1
            found = change(session, connection, copy, table, since)
            if found:
                changes[copy.name] = found
        if changes:
            push(connection, settings(), changes)
        return [vars(state) for _, state in sorted(states(connection, settings()).items())]


def change(session, connection, copy, table, since):
    """What a table of the lake holds after a batch; all of it where rows may be gone."""
    name = table.removeprefix("lake.")
    through = last_batch(connection, settings(), name)
    is_whole = (
        since < 0 or is_full_refresh() or rewritten(connection, settings(), name, since, through)
    )
    if through <= since and not is_whole:
        return None
    columns = ", ".join(copy.columns)
    statement = f"select {columns} from {table} where _batch > $since and _batch <= $through"
    bounds = {"since": -1 if is_whole else since, "through": through}
    return Changes(rows(session, statement, bounds), through, is_whole)


def rows(session, statement, bounds):
    """Batches of a statement that runs when the first one is asked for."""
    yield from session.execute(statement, bounds).to_arrow_reader(ROWS_PER_BATCH)
