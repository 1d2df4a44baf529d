-- One row per Google document: its newest text, with what the newest metadata of its file say.
-- Recomputed for a document of which either has changed, and for no other.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="external_id") }}

with changed as (

    select document_id
    from {{ ref("stg_google_docs__documents") }}
    where {{ newer_than_watermark(ref("stg_google_docs__documents")) }}

    union

    select file_id as document_id
    from {{ ref("stg_google_docs__files") }}
    where {{ newer_than_watermark(ref("stg_google_docs__files")) }}

),

documents as (

    select
        documents.document_id,
        documents.title,
        documents.body,
        documents.observed_at,
        documents.raw_dlt_id,
        documents.is_deleted,
        row_number() over (
            partition by documents.document_id
            order by
                documents.raw_batch desc nulls last,
                documents.observed_at desc nulls last,
                documents.landed_at desc nulls last
        ) as recency
    from {{ ref("stg_google_docs__documents") }} as documents
    inner join changed on documents.document_id = changed.document_id

),

files as (

    select
        files.file_id,
        files.name,
        files.url,
        files.author_id,
        files.parent_id,
        files.created_at,
        files.visibility,
        files.allowed_principals,
        files.source_updated_at,
        files.observed_at,
        files.is_deleted,
        row_number() over (
            partition by files.file_id
            order by
                files.raw_batch desc nulls last,
                files.observed_at desc nulls last,
                files.source_updated_at desc nulls last,
                files.landed_at desc nulls last
        ) as recency
    from {{ ref("stg_google_docs__files") }} as files
    inner join changed on files.file_id = changed.document_id

)

select
    documents.document_id as external_id,
    coalesce(nullif(documents.title, ''), files.name) as title,
    documents.body,
    coalesce(files.url, 'https://docs.google.com/document/d/' || documents.document_id) as url,
    files.author_id,
    files.parent_id,
    files.created_at,
    files.source_updated_at,
    greatest(documents.observed_at, files.observed_at) as observed_at,
    -- A document whose permissions nobody has told yet is read by nobody.
    coalesce(files.visibility, 'private') as visibility,
    coalesce(files.allowed_principals, {{ list_of([]) }}) as allowed_principals,
    documents.raw_dlt_id,
    documents.is_deleted or coalesce(files.is_deleted, false) as is_deleted
from documents
left join files
    on documents.document_id = files.file_id
    and files.recency = 1
where documents.recency = 1
