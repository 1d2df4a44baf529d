-- A row is a document version that says the same as the version before it: nothing had changed.
with versions as (

    select
        document_version_id,
        doc_id,
        version_number,
        content_hash || metadata_hash || cast(is_deleted as varchar) as state,
        lag(content_hash || metadata_hash || cast(is_deleted as varchar)) over (
            partition by doc_id order by version_number asc nulls last
        ) as state_before
    from {{ ref("documents") }}

)

select
    document_version_id,
    doc_id,
    version_number
from versions
where state = state_before
