-- One row per observed version of a Slack user, its payload parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        observed_at,
        is_deleted,
        _dlt_id,
        _batch
    from {{ source("raw_slack", "users") }}
    where {{ newer_than_watermark(source("raw_slack", "users")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as user_id,
    coalesce(
        nullif({{ json_text("payload", "$.profile.real_name") }}, ''),
        nullif({{ json_text("payload", "$.real_name") }}, ''),
        {{ json_text("payload", "$.name") }}
    ) as name,
    {{ json_text("payload", "$.name") }} as handle,
    {{ json_text("payload", "$.profile.email") }} as email,
    coalesce({{ json_text("payload", "$.is_bot") }} = 'true', false) as is_bot,
    observed_at,
    is_deleted
from source
