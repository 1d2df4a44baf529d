-- One row per distinct gateway event, its envelope parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        observed_at,
        _dlt_id,
        _batch
    from {{ source("raw_gateway", "events") }}
    where {{ newer_than_watermark(source("raw_gateway", "events")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as event_key,
    {{ json_text("payload", "$.id") }} as event_id,
    {{ json_text("payload", "$.source") }} as event_source,
    {{ json_text("payload", "$.type") }} as event_type,
    {{ iso_to_timestamp(json_text("payload", "$.time")) }} as event_at,
    {{ json_text("payload", "$.subject") }} as session_id,
    {{ json_text("payload", "$.data.turn_id") }} as turn_id,
    {{ json_text("payload", "$.data.tenant") }} as tenant,
    payload,
    observed_at
from source
