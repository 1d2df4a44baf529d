-- A row is a chunk that a collection would serve to other readers than its document has now, also
-- where an older version is still served.
with current_documents as (

    select doc_id, allowed_principals
    from {{ ref("documents_current") }}
    where not is_deleted and {{ read_by(ref("vector_manifest"), ref("documents_current")) }}

)

select
    manifest.vector_collection,
    manifest.chunk_id,
    manifest.doc_id,
    manifest.allowed_principals as served_to,
    current_documents.allowed_principals
from {{ ref("vector_manifest") }} as manifest
inner join current_documents on manifest.doc_id = current_documents.doc_id
where
    not manifest.is_deleted
    and list_sort(manifest.allowed_principals) <> list_sort(current_documents.allowed_principals)
