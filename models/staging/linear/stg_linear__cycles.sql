-- One row per observed version of a Linear cycle, its payload parsed once.
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
    from {{ source("raw_linear", "cycles") }}
    where {{ newer_than_watermark(source("raw_linear", "cycles")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as cycle_id,
    coalesce(
        nullif({{ json_text("payload", "$.name") }}, ''),
        {{ json_text("payload", "$.number") }}
    ) as name,
    -- Linear archives the cycles that are over.
    {{ json_text("payload", "$.archivedAt") }} is not null as is_archived,
    observed_at,
    landed_at,
    is_deleted
from source
