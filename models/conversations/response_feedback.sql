-- One row per response and labeller outside: how it was ranked or scored last.
--
-- Feedback may be recorded before the response that it is about.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="feedback_id") }}

with touched as (

    select
        nodes.branch_node_id,
        nodes.tenant,
        nodes.turn_id,
        nodes.choice_index
    from {{ ref("conversation_links") }} as nodes
    inner join {{ ref("stg_gateway__feedback") }} as feedback
        on nodes.tenant = feedback.tenant
        and nodes.turn_id = feedback.turn_id
        and nodes.choice_index = feedback.choice_index
    where {{ newer_than_watermark(ref("stg_gateway__feedback"), "feedback") }}

    union

    select
        branch_node_id,
        tenant,
        turn_id,
        choice_index
    from {{ ref("conversation_links") }}
    where {{ newer_than_watermark(ref("conversation_links")) }}

),

ranked as (

    select
        touched.branch_node_id,
        feedback.kind,
        feedback.labeller,
        feedback.score,
        feedback.event_at,
        feedback.raw_dlt_id,
        row_number() over (
            partition by touched.branch_node_id, feedback.kind, feedback.labeller
            order by feedback.event_at desc nulls last, feedback.raw_dlt_id asc nulls last
        ) as recency
    from touched
    inner join {{ ref("stg_gateway__feedback") }} as feedback
        on touched.tenant = feedback.tenant
        and touched.turn_id = feedback.turn_id
        and touched.choice_index = feedback.choice_index
    where feedback.score is not null

)

select
    {{ short_hash(
        "branch_node_id || chr(31) || kind || chr(31) || labeller"
    ) }} as feedback_id,
    branch_node_id,
    kind,
    labeller,
    score,
    event_at,
    raw_dlt_id
from ranked
where recency = 1
