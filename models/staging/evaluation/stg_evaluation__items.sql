-- One row per observed version of an item of an evaluation set, its payload parsed once.
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
    from {{ source("raw_evaluation", "items") }}
    where {{ newer_than_watermark(source("raw_evaluation", "items")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    {{ json_text("payload", "$.evaluation_set") }} as evaluation_set,
    {{ json_text("payload", "$.item_id") }} as item_id,
    {{ json_text_list("payload", "$.texts") }} as texts,
    observed_at,
    landed_at,
    is_deleted
from source
