"""Push the manifest's changes to Postgres and read back what is there."""

from datetime import UTC

import pyarrow as pa

from loreline.dbt_plugin import is_empty_run, is_full_refresh, settings, table_name
from loreline.lake.commits import rewritten
from loreline.postgres import connect
from loreline.serving.collections import (
    Collection,
    push,
    pushed_batch,
    retire_others,
    states,
    stored_vectors,
)

ROWS_PER_BATCH = 2_000
# So many are cheaper to read from the lake in one go.
FEW_DOCUMENTS = 1_000

SCHEMA = pa.schema(
    [
        ("vector_collection", pa.string()),
        ("embedding_model", pa.string()),
        ("chunking_strategy", pa.string()),
        ("config_hash", pa.string()),
        ("status", pa.string()),
        ("is_default", pa.bool_()),
        ("built_at", pa.timestamp("us")),
        ("row_count", pa.int64()),
    ]
)

# The manifest's rows of every document that changed after the last push, from one snapshot of it.
CHANGED = """
create or replace temp table changed as
select chunk_id, doc_id, text_hash, vector_sha256, allowed_principals, is_deleted, _batch
from {manifest}
where
    vector_collection = $vector_collection
    and doc_id in (
        select doc_id
        from {manifest}
        where vector_collection = $vector_collection and _batch > $since
    )
"""

# What the manifest does not speak of: not any more since it was written anew, or never did.
FORGOTTEN = """
insert into changed
select distinct null, doc_id, null, null, null, true, null
from pg.{serving}.vector_rows
where
    vector_collection = $vector_collection
    and doc_id not in (
        select doc_id from {manifest} where vector_collection = $vector_collection
    )
"""

# The vectors of many texts come from the lake in one scan.
SCANNED_VECTORS = """
select embeddings.text_hash, any_value(embeddings.embedding) as embedding
from {embeddings} as embeddings
inner join (select distinct text_hash from changed where not is_deleted) as wanted
    on embeddings.text_hash = wanted.text_hash
where embeddings.config_hash = $embedding_config_hash and embeddings._batch > $since
group by embeddings.text_hash
"""

# Those of a few, from what the store holds of their documents, as far as it is what it should be …
HELD_VECTORS = """
create or replace temp table gathered as
select wanted.text_hash, any_value(held.embedding) as embedding
from changed as wanted
inner join held
    on wanted.text_hash = held.text_hash
    and wanted.vector_sha256 = held.vector_sha256
where not wanted.is_deleted
group by wanted.text_hash
"""

# … and the others from the lake: what was embedded since the last push, then whatever is missing.
MISSING_VECTORS = """
insert into gathered
select scanned.text_hash, scanned.embedding
from ({scanned}) as scanned
anti join gathered using (text_hash)
"""
MISSING_COUNT = """
select count(*) from changed anti join gathered using (text_hash) where not is_deleted
"""

# Every live chunk of the changed documents, and one empty row for a document that has none left.
CHUNKS = """
with live as (
    select chunk_id, doc_id, text_hash, allowed_principals from changed where not is_deleted
),

texts as (
    select
        chunks.chunk_id,
        chunks.document_version_id,
        chunks.chunk_index,
        chunks.text,
        chunks.heading_path,
        chunks.start_char,
        chunks.end_char
    from {chunks} as chunks
    inner join live on chunks.chunk_id = live.chunk_id
),

vectors as (
    {vectors}
)

select
    touched.doc_id,
    live.chunk_id,
    texts.document_version_id,
    cast(texts.chunk_index as integer) as chunk_index,
    texts.text,
    live.text_hash,
    documents.title,
    documents.url,
    texts.heading_path,
    cast(texts.start_char as integer) as start_char,
    cast(texts.end_char as integer) as end_char,
    documents.source,
    documents.container,
    documents.author_id,
    documents.created_at,
    documents.source_updated_at,
    live.allowed_principals,
    vectors.embedding
from (select distinct doc_id from changed) as touched
left join live on touched.doc_id = live.doc_id
left join texts on live.chunk_id = texts.chunk_id
left join vectors on live.text_hash = vectors.text_hash
left join {documents} as documents on touched.doc_id = documents.doc_id
order by touched.doc_id, texts.chunk_index
"""


def model(dbt, session):
    """One row per collection in Postgres, read back after what changed was pushed to it."""
    dbt.config(materialized="table")
    tables = {
        "chunks": table_name(dbt.ref("chunks")),
        "documents": table_name(dbt.ref("documents_current")),
        "embeddings": table_name(dbt.ref("text_embeddings")),
        "manifest": table_name(dbt.ref("vector_manifest")),
        "serving": f"{settings().prefix}serving",
    }
    wanted = dbt.ref("served_collections").order("vector_collection").to_arrow_table().to_pylist()
    return pa.Table.from_pylist(pushed(session, wanted, tables), schema=SCHEMA)


def pushed(session, wanted, tables):
    """Bring every collection to what the manifest says, and read back what there is."""
    if is_empty_run():
        return []
    with connect(settings(), autocommit=True) as connection:
        for row in wanted:
            push_collection(session, connection, row, tables)
        retire_others(connection, settings(), [row["vector_collection"] for row in wanted])
        return [state_row(state) for state in states(connection, settings())]


def push_collection(session, connection, row, tables):
    """Push what the manifest changed after the collection's last push.

    With `--full-refresh` every document is pushed: what somebody else changed in Postgres is
    compared, too, and mended.
    """
    collection = Collection(
        vector_collection=row["vector_collection"],
        embedding_model=row["embedding_model"],
        chunking_strategy=row["chunking_strategy"],
        config_hash=row["config_hash"],
        dimensions=row["dimensions"],
        is_default=row["is_default"],
        storage=row["storage"],
        embedding_config_hash=row["embedding_config_hash"],
        chunking_config_hash=row["chunking_config_hash"],
        question_embedding=row["question_embedding"],
    )
    since = pushed_batch(connection, settings(), collection)
    named = {"vector_collection": collection.vector_collection}
    known = -1 if since is None or is_full_refresh() else since
    session.execute(CHANGED.format(**tables), {**named, "since": known})
    highest = session.execute("select max(_batch) from changed").fetchone()[0]
    through = highest if highest is not None else since or 0
    manifest = tables["manifest"].removeprefix("lake.")
    if since is not None and (
        is_full_refresh() or rewritten(connection, settings(), manifest, since, through)
    ):
        session.execute(FORGOTTEN.format(**tables), named)
    config_hash = {"embedding_config_hash": row["embedding_config_hash"]}
    doc_ids = session.execute(
        "select distinct doc_id from changed limit $n", {"n": FEW_DOCUMENTS}
    ).fetchall()
    if known >= 0 and len(doc_ids) < FEW_DOCUMENTS:
        held = stored_vectors(connection, settings(), collection, [d for (d,) in doc_ids])
        gather_vectors(session, held, tables, {**config_hash, "since": known})
        rows = session.execute(CHUNKS.format(**tables, vectors="from gathered"))
    else:
        scanned = SCANNED_VECTORS.format(**tables)
        rows = session.execute(
            CHUNKS.format(**tables, vectors=scanned), {**config_hash, "since": -1}
        )
    push(
        connection,
        settings(),
        collection,
        rows.to_arrow_reader(ROWS_PER_BATCH),
        through_batch=through,
        since=since,
        recount=is_full_refresh(),
    )


def gather_vectors(session, held, tables, parameters):
    """Bring the vectors of the changed documents together without reading the whole table."""
    session.register("held", held)
    session.execute(HELD_VECTORS)
    session.unregister("held")
    scanned = SCANNED_VECTORS.format(**tables)
    for since in (parameters["since"], -1):
        if not session.execute(MISSING_COUNT).fetchone()[0]:
            break
        session.execute(MISSING_VECTORS.format(scanned=scanned), {**parameters, "since": since})


def state_row(state):
    """One row of the table."""
    built_at = state.built_at and state.built_at.astimezone(UTC).replace(tzinfo=None)
    return {field: getattr(state, field) for field in SCHEMA.names} | {"built_at": built_at}
