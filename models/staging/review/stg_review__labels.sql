-- One row per state of a label, given or withdrawn, its payload parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        observed_at,
        is_deleted,
        _dlt_id,
        _batch
    from {{ source("raw_review", "labels") }}
    where {{ newer_than_watermark(source("raw_review", "labels")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as label_id,
    {{ json_text("payload", "$.queue_item_id") }} as queue_item_id,
    {{ json_text("payload", "$.kind") }} as kind,
    {{ json_text("payload", "$.pair_id") }} as pair_id,
    {{ json_text_list("payload", "$.leaf_node_ids") }} as leaf_node_ids,
    {{ json_text("payload", "$.content_sha256") }} as content_sha256,
    {{ json_text("payload", "$.reviewer") }} as reviewer,
    {{ json_text("payload", "$.origin") }} as origin,
    cast({{ json_text("payload", "$.is_swapped") }} as boolean) as is_swapped,
    {{ json_text("payload", "$.verdict") }} as verdict,
    {{ json_text("payload", "$.verdict.preferred") }} as preferred,
    cast({{ json_text("payload", "$.verdict.strength") }} as bigint) as strength,
    {{ json_text_list("payload", "$.verdict.categories") }} as categories,
    cast({{ json_text("payload", "$.verdict.score") }} as bigint) as score,
    {{ json_text("payload", "$.comment") }} as comment,
    {{ iso_to_timestamp(json_text("payload", "$.labelled_at")) }} as labelled_at,
    observed_at,
    is_deleted
from source
