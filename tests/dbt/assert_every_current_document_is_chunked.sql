-- A row is a document with text of which a chunking configuration has no chunk: no search finds it.
with wanted as (

    select
        current_documents.doc_id,
        current_documents.document_version_id,
        configurations.config_hash
    from {{ ref("documents_current") }} as current_documents
    inner join {{ ref("documents") }} as versions
        on current_documents.document_version_id = versions.document_version_id
    cross join {{ ref("chunking_configurations") }} as configurations
    where
        not current_documents.is_deleted
        and not current_documents.is_blank
        and {{ read_by(
            ref("chunks"), ref("documents"), "versions._batch", "configurations.config_hash"
        ) }}

)

select
    wanted.doc_id,
    wanted.document_version_id,
    wanted.config_hash
from wanted
left join {{ ref("chunks") }} as chunks
    on wanted.document_version_id = chunks.document_version_id
    and wanted.config_hash = chunks.config_hash
where chunks.chunk_id is null
