-- One row per observed version of a Linear project, its payload parsed once.
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
    from {{ source("raw_linear", "projects") }}
    where {{ newer_than_watermark(source("raw_linear", "projects")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as project_id,
    {{ json_text("payload", "$.name") }} as name,
    -- Archived is over, and still what its issues were a part of.
    coalesce({{ json_text("payload", "$.trashed") }}, 'false') <> 'true'
    and {{ json_text("payload", "$.archivedAt") }} is not null as is_archived,
    observed_at,
    landed_at,
    is_deleted
from source
