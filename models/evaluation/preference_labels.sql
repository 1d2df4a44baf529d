-- One row per pair and labeller: which response it prefers. Ties and contradictions are kept.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="preference_label_id",
) }}

with touched as (

    select pair_id
    from {{ ref("candidate_preference_pairs") }}
    where {{ newer_than_watermark(ref("candidate_preference_pairs")) }}

    {% if is_incremental() %}
    {%- for side in ["node_a", "node_b"] %}
    union

    select pairs.pair_id
    from {{ ref("candidate_preference_pairs") }} as pairs
    inner join {{ ref("response_feedback") }} as feedback
        on pairs.{{ side }} = feedback.branch_node_id
    where {{ newer_than_watermark(ref("response_feedback"), "feedback") }}
    {%- endfor %}
    {% endif %}

),

judged as (

    select pair_id
    from {{ ref("human_eval_labels") }}
    where kind = 'pair' and {{ newer_than_watermark(ref("human_eval_labels")) }}
    group by pair_id

),

-- Of what somebody said of a pair the latest that stands counts.
people as (

    select
        labels.pair_id,
        labels.reviewer,
        labels.preferred,
        labels.strength,
        labels.is_withdrawn,
        row_number() over (
            partition by labels.pair_id, labels.reviewer
            order by
                case when labels.is_withdrawn then 1 else 0 end asc nulls last,
                labels.labelled_at desc nulls last,
                labels.label_id asc nulls last
        ) as recency
    from {{ ref("human_eval_labels") }} as labels
    inner join judged on labels.pair_id = judged.pair_id
    where labels.kind = 'pair'

),

compared as (

    select
        pairs.pair_id,
        one.kind as labeller,
        one.labeller as labeller_version,
        case
            when one.score > other.score then 'a'
            when one.score < other.score then 'b'
            else 'tie'
        end as preferred,
        abs(one.score - other.score) as strength,
        false as is_withdrawn
    from {{ ref("candidate_preference_pairs") }} as pairs
    inner join touched on pairs.pair_id = touched.pair_id
    inner join {{ ref("response_feedback") }} as one on pairs.node_a = one.branch_node_id
    inner join {{ ref("response_feedback") }} as other
        on pairs.node_b = other.branch_node_id
        and one.kind = other.kind
        and one.labeller = other.labeller

    union all

    select
        pair_id,
        'human' as labeller,
        reviewer as labeller_version,
        preferred,
        cast(strength as double) as strength,
        is_withdrawn
    from people
    where recency = 1

)

select
    {{ short_hash(
        "pair_id || chr(31) || labeller || chr(31) || labeller_version"
    ) }} as preference_label_id,
    pair_id,
    labeller,
    labeller_version,
    preferred,
    strength,
    is_withdrawn
from compared
