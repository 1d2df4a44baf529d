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

verdicts as (

    {{ standing_verdicts("pair", "pair_id", ["preferred", "strength"]) }}

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
        verdicts.subject_id as pair_id,
        'human' as labeller,
        verdicts.reviewer as labeller_version,
        verdicts.preferred,
        cast(verdicts.strength as double) as strength,
        verdicts.is_withdrawn
    from verdicts
    inner join judged on verdicts.subject_id = judged.pair_id

    union all

    select
        subject_id as pair_id,
        'judge' as labeller,
        labeller_version,
        preferred,
        strength,
        is_withdrawn
    from {{ ref("model_eval_labels") }}
    where kind = 'pair' and {{ newer_than_watermark(ref("model_eval_labels")) }}

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
