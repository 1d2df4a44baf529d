-- One row per state of a judgement by a model, given or withdrawn, its payload parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        observed_at,
        is_deleted,
        _dlt_id,
        _batch
    from {{ source("raw_judge", "judgements") }}
    where {{ newer_than_watermark(source("raw_judge", "judgements")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as judgement_id,
    {{ json_text("payload", "$.judge") }} as judge,
    {{ json_text("payload", "$.labeller_version") }} as labeller_version,
    {{ json_text("payload", "$.model") }} as model,
    {{ json_text("payload", "$.kind") }} as kind,
    {{ json_text("payload", "$.subject_id") }} as subject_id,
    {{ json_text_list("payload", "$.leaf_node_ids") }} as leaf_node_ids,
    {{ json_text("payload", "$.content_sha256") }} as content_sha256,
    {{ json_text("payload", "$.verdicts") }} as verdicts,
    {{ json_text_list("payload", "$.verdicts[0].categories") }} as categories,
    {{ json_text_list("payload", "$.verdicts[0].confidences") }} as confidences,
    {{ json_text_list("payload", "$.verdicts[0].reasons") }} as reasons,
    {{ json_text("payload", "$.verdicts[0].preferred") }} as preferred_first,
    cast({{ json_text("payload", "$.verdicts[0].strength") }} as bigint) as strength_first,
    {{ json_text("payload", "$.verdicts[1].preferred") }} as preferred_swapped,
    cast({{ json_text("payload", "$.verdicts[1].strength") }} as bigint) as strength_swapped,
    {{ iso_to_timestamp(json_text("payload", "$.judged_at")) }} as judged_at,
    observed_at,
    is_deleted
from source
