-- A row is a chunk of a document's current version, embedded, that a collection would not serve,
-- although no text of the document was refused.
{{ config(group="serving") }}

with current_documents as (

    select doc_id, document_version_id
    from {{ ref("documents_current") }}
    where not is_deleted and {{ read_by(ref("vector_manifest"), ref("documents_current")) }}

),

embedded as (

    select
        collections.vector_collection,
        current_documents.doc_id,
        chunks.chunk_id
    from current_documents
    inner join {{ ref("chunks") }} as chunks
        on current_documents.document_version_id = chunks.document_version_id
    inner join {{ ref("served_collections") }} as collections
        on chunks.config_hash = collections.chunking_config_hash
    inner join {{ ref("text_embeddings") }} as embeddings
        on chunks.text_hash = embeddings.text_hash
        and collections.embedding_config_hash = embeddings.config_hash
    where
        -- Of a vector that a halfvec cannot hold there is nothing to serve.
        (collections.storage = 'vector' or embeddings.halfvec_sha256 is not null)
        and {{ read_by(ref("vector_manifest"), ref("chunks"), "chunks._batch") }}
        and {{ read_by(ref("vector_manifest"), ref("text_embeddings"), "embeddings._batch") }}

),

refused as (

    select
        collections.vector_collection,
        chunks.doc_id
    from {{ postgres_table("operations", "quarantine") }} as set_aside
    inner join {{ ref("served_collections") }} as collections
        on set_aside.origin = collections.embedding_config_hash
    inner join {{ ref("chunks") }} as chunks
        on collections.chunking_config_hash = chunks.config_hash
        and set_aside.external_id = chunks.text_hash
    inner join current_documents
        on chunks.document_version_id = current_documents.document_version_id
    where set_aside.source = 'embedding'

)

select
    embedded.vector_collection,
    embedded.doc_id,
    embedded.chunk_id
from embedded
left join {{ ref("vector_manifest") }} as manifest
    on embedded.vector_collection = manifest.vector_collection
    and embedded.chunk_id = manifest.chunk_id
    and not manifest.is_deleted
left join refused
    on embedded.vector_collection = refused.vector_collection
    and embedded.doc_id = refused.doc_id
where manifest.chunk_id is null and refused.doc_id is null
