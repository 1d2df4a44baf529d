-- One row per observed version of a Linear user, its payload parsed once.
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
    from {{ source("raw_linear", "users") }}
    where {{ newer_than_watermark(source("raw_linear", "users")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as user_id,
    coalesce(
        nullif({{ json_text("payload", "$.name") }}, ''),
        {{ json_text("payload", "$.displayName") }}
    ) as name,
    {{ json_text("payload", "$.displayName") }} as handle,
    {{ json_text("payload", "$.email") }} as email,
    observed_at,
    landed_at,
    is_deleted
from source
