-- A row is a document whose current version is not the newest one, or is not there.
with newest as (

    select
        doc_id,
        max(version_number) as version_number
    from {{ ref("documents") }}
    where {{ read_by(ref("documents_current"), ref("documents")) }}
    group by doc_id

)

select
    newest.doc_id,
    newest.version_number as newest_version_number,
    current_documents.version_number as current_version_number
from newest
left join {{ ref("documents_current") }} as current_documents
    on newest.doc_id = current_documents.doc_id
where coalesce(current_documents.version_number, 0) < newest.version_number
