-- A row is a chunk of a document's current version, embedded, that a collection would not serve.
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
        {{ read_by(ref("vector_manifest"), ref("chunks"), "chunks._batch") }}
        and {{ read_by(ref("vector_manifest"), ref("text_embeddings"), "embeddings._batch") }}

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
where manifest.chunk_id is null
