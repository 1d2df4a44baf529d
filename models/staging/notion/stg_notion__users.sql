-- One row per observed version of a Notion user, its payload parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        observed_at,
        is_deleted,
        _dlt_id,
        _batch
    from {{ source("raw_notion", "users") }}
    where {{ newer_than_watermark(source("raw_notion", "users")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as user_id,
    {{ json_text("payload", "$.name") }} as name,
    {{ json_text("payload", "$.person.email") }} as email,
    {{ json_text("payload", "$.type") }} as account_type,
    observed_at,
    is_deleted
from source
