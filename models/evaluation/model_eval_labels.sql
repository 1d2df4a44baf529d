-- One row per judgement by a model of a trajectory or a pair, withdrawn ones included.
--
-- A pair was judged in both orders. Where they contradict each other, what decided was the place of
-- a response and not the response: that is a tie.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="judgement_id") }}

with arrived as (

    select
        *,
        row_number() over (
            partition by judgement_id
            order by observed_at desc nulls last, raw_batch desc nulls last
        ) as recency
    from {{ ref("stg_judge__judgements") }}
    where {{ newer_than_watermark(ref("stg_judge__judgements")) }}

)

select
    judgement_id,
    judge,
    labeller_version,
    model,
    kind,
    subject_id,
    leaf_node_ids,
    content_sha256,
    verdicts,
    case
        when preferred_first = preferred_swapped then preferred_first
        when kind = 'pair' then 'tie'
    end as preferred,
    case
        when preferred_first = preferred_swapped
            then (strength_first + strength_swapped) * cast(0.5 as double)
    end as strength,
    case when kind = 'pair' then preferred_first <> preferred_swapped end as is_contradictory,
    categories,
    confidences,
    reasons,
    judged_at,
    is_deleted as is_withdrawn,
    case when is_deleted then observed_at end as withdrawn_at,
    raw_dlt_id
from arrived
where recency = 1
