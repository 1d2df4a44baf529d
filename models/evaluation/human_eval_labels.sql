-- One row per judgement by a person of a trajectory or a pair, withdrawn ones included.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="label_id") }}

with arrived as (

    select
        *,
        row_number() over (
            partition by label_id
            order by observed_at desc nulls last, raw_batch desc nulls last
        ) as recency
    from {{ ref("stg_review__labels") }}
    where {{ newer_than_watermark(ref("stg_review__labels")) }}

)

select
    label_id,
    queue_item_id,
    kind,
    pair_id,
    leaf_node_ids,
    content_sha256,
    reviewer,
    origin,
    is_swapped,
    verdict,
    preferred,
    strength,
    categories,
    score,
    comment,
    labelled_at,
    is_deleted as is_withdrawn,
    case when is_deleted then observed_at end as withdrawn_at,
    raw_dlt_id
from arrived
where recency = 1
