-- One row per observed version of a Slack channel, its payload parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        observed_at,
        is_deleted,
        _dlt_id,
        _batch
    from {{ source("raw_slack", "channels") }}
    where {{ newer_than_watermark(source("raw_slack", "channels")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as channel_id,
    {{ json_text("payload", "$.name") }} as name,
    -- What does not say that it is public is not.
    coalesce({{ json_text("payload", "$.kind") }}, 'private') as kind,
    {{ json_text_list("payload", "$.members") }} as member_ids,
    observed_at,
    is_deleted
from source
