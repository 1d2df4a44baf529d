-- One row per observed version of a Linear label, its payload parsed once.
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
    from {{ source("raw_linear", "labels") }}
    where {{ newer_than_watermark(source("raw_linear", "labels")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as label_id,
    {{ json_text("payload", "$.name") }} as name,
    observed_at,
    landed_at,
    is_deleted
from source
