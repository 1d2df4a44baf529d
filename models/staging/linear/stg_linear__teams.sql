-- One row per observed version of a Linear team, its payload parsed once.
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
    from {{ source("raw_linear", "teams") }}
    where {{ newer_than_watermark(source("raw_linear", "teams")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as team_id,
    {{ json_text("payload", "$.key") }} as team_key,
    -- What does not say that it is public is not.
    coalesce(
        {{ json_text("payload", "$.visibility") }} <> 'public',
        {{ json_text("payload", "$.private") }} <> 'false',
        true
    ) as is_private,
    {{ json_field_list("payload", "$.members.nodes", "$.id") }} as member_ids,
    observed_at,
    landed_at,
    is_deleted
from source
