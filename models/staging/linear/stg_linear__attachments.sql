-- One row per observed version of a link attached to a Linear issue, its payload parsed once.
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
    from {{ source("raw_linear", "attachments") }}
    where {{ newer_than_watermark(source("raw_linear", "attachments")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as attachment_id,
    {{ json_text("payload", "$.issue.id") }} as issue_id,
    {{ json_text("payload", "$.title") }} as title,
    {{ json_text("payload", "$.url") }} as url,
    observed_at,
    landed_at,
    is_deleted
from source
