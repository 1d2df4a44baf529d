-- One row per observed version of a Google document, its payload parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        observed_at,
        landed_at,
        is_deleted,
        _dlt_id,
        _batch
    from {{ source("raw_google_docs", "documents") }}
    where {{ newer_than_watermark(source("raw_google_docs", "documents")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as document_id,
    {{ json_text("payload", "$.title") }} as title,
    {{ google_docs_markdown("payload") }} as body,
    observed_at,
    landed_at,
    is_deleted
from source
