-- One row per document: its newest version, with what one searches or filters by.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="doc_id") }}

with versions as (

    select
        doc_id,
        document_version_id,
        version_number,
        source,
        external_id,
        title,
        url,
        author_id,
        container,
        parent_doc_id,
        created_at,
        source_updated_at,
        valid_from,
        is_deleted,
        visibility,
        allowed_principals,
        content_hash,
        trim(body) = '' as is_blank,
        row_number() over (
            partition by doc_id order by version_number desc nulls last
        ) as recency
    from {{ ref("documents") }}
    where {{ newer_than_watermark(ref("documents")) }}

)

select
    doc_id,
    document_version_id,
    version_number,
    source,
    external_id,
    title,
    url,
    author_id,
    container,
    parent_doc_id,
    created_at,
    source_updated_at,
    valid_from,
    is_deleted,
    visibility,
    allowed_principals,
    content_hash,
    is_blank
from versions
where recency = 1
