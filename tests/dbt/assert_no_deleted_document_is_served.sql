-- A row is a chunk that a collection would serve although its document is deleted.
with deleted as (

    select doc_id
    from {{ ref("documents_current") }}
    where is_deleted and {{ read_by(ref("vector_manifest"), ref("documents_current")) }}

)

select
    manifest.vector_collection,
    manifest.chunk_id,
    manifest.doc_id
from {{ ref("vector_manifest") }} as manifest
inner join deleted on manifest.doc_id = deleted.doc_id
where not manifest.is_deleted
