-- One row per item that people are asked to judge, or have judged.
--
-- Within a stratum items come in the order of a hash, so that the sample is stable and nobody
-- picks; strata take turns. What was judged stays, and makes room for the next of its reason.
{{ config(materialized="table") }}

with sizes as (

    select
        reason,
        size,
        priority
    from {{ ref("review_queue") }}

),

judged as (

    select
        queue_item_id,
        min(kind) as kind,
        min(pair_id) as pair_id,
        min(leaf_node_ids) as leaf_node_ids
    from {{ ref("human_eval_labels") }}
    where not is_withdrawn
    group by queue_item_id

),

trajectories as (

    {{ trajectory_strata() }}

),

asked_models as (

    select subject_id as trajectory_id
    from {{ ref("model_eval_labels") }}
    where kind = 'trajectory' and not is_withdrawn
    group by subject_id

),

polarities as (

    select
        labels.subject_id as trajectory_id,
        count(distinct case when labels.labeller = 'rule' then categories.polarity end) > 1
            as is_uncertain,
        count(distinct case when labels.labeller = 'rule' then labels.category end) as by_rules,
        count(distinct case when labels.labeller = 'model' then labels.category end) as by_model,
        count(distinct case when labels.labeller in ('rule', 'model') then labels.category end)
            as by_either
    from {{ ref("cluster_category_labels") }} as labels
    inner join {{ ref("label_categories") }} as categories on labels.category = categories.category
    where labels.subject_kind = 'trajectory' and not labels.is_withdrawn
    group by labels.subject_id

),

pairs as (

    select
        pairs.pair_id,
        pairs.node_a,
        pairs.node_b,
        coalesce(nodes.theme_id, 'no theme') || ', ' || pairs.reason as stratum,
        coalesce(consensus.is_disputed, false) as is_disputed,
        -- What a model alone has said spares nobody the question.
        coalesce({{ list_length("consensus.labellers") }}, 0) > 1
        or coalesce({{ list_at("consensus.labellers", 1) }}, 'judge') <> 'judge' as is_labelled,
        case when pairs.reason = 'other model' then 0 else 1 end as rank
    from {{ ref("candidate_preference_pairs") }} as pairs
    inner join {{ ref("conversation_branch_nodes") }} as nodes
        on pairs.node_a = nodes.branch_node_id
    left join {{ ref("preference_consensus") }} as consensus on pairs.pair_id = consensus.pair_id
    where pairs.is_wanted and not {{ asked_by_a_judge("nodes.session_id") }}

),

candidates as (

    select
        'trajectory' as kind,
        trajectory_id as subject_id,
        stratum,
        'stratum' as reason,
        0 as rank
    from trajectories

    union all

    select
        'trajectory' as kind,
        trajectories.trajectory_id as subject_id,
        trajectories.stratum,
        'uncertain' as reason,
        0 as rank
    from trajectories
    inner join polarities on trajectories.trajectory_id = polarities.trajectory_id
    where polarities.is_uncertain

    union all

    -- A model that gave no category has judged all the same.
    select
        'trajectory' as kind,
        trajectories.trajectory_id as subject_id,
        trajectories.stratum,
        'disagreement' as reason,
        0 as rank
    from trajectories
    inner join asked_models on trajectories.trajectory_id = asked_models.trajectory_id
    inner join polarities on trajectories.trajectory_id = polarities.trajectory_id
    where
        polarities.by_either > polarities.by_model
        or polarities.by_either > polarities.by_rules

    union all

    select
        'pair' as kind,
        pair_id as subject_id,
        stratum,
        case when is_disputed then 'disputed' else 'comparison' end as reason,
        rank
    from pairs
    where is_disputed or not is_labelled

),

-- What was judged counts as what it was first asked for, whatever became of the reason.
named as (

    select
        {{ short_hash("candidates.kind || ' ' || candidates.subject_id") }} as queue_item_id,
        candidates.kind,
        candidates.subject_id,
        candidates.stratum,
        candidates.reason,
        candidates.rank,
        sizes.size,
        sizes.priority,
        row_number() over (
            partition by candidates.kind, candidates.subject_id
            order by sizes.priority desc nulls last
        ) as preference
    from candidates
    inner join sizes on candidates.reason = sizes.reason

),

placed as (

    select
        named.*,
        row_number() over (
            partition by named.reason, named.stratum
            order by named.rank asc nulls last, named.queue_item_id asc nulls last
        ) as place
    from named
    left join judged on named.queue_item_id = judged.queue_item_id
    where named.preference = 1 and judged.queue_item_id is null

),

ordered as (

    select
        *,
        row_number() over (
            partition by reason
            order by place asc nulls last, rank asc nulls last, queue_item_id asc nulls last
        ) as turn
    from placed

),

items as (

    select
        queue_item_id,
        kind,
        subject_id,
        stratum,
        reason,
        priority - {{ ratio("turn", "size + 1") }} as priority,
        'open' as status
    from ordered
    where turn <= size

    union all

    select
        queue_item_id,
        kind,
        coalesce(pair_id, {{ list_at("leaf_node_ids", 1) }}) as subject_id,
        'judged' as stratum,
        'judged' as reason,
        cast(0 as double) as priority,
        'judged' as status
    from judged

)

select
    items.queue_item_id,
    items.kind,
    items.subject_id,
    case when items.kind = 'pair' then items.subject_id end as pair_id,
    case
        when items.kind = 'trajectory' then {{ list_of(["items.subject_id"]) }}
        else {{ list_of(["pairs.node_a", "pairs.node_b"]) }}
    end as leaf_node_ids,
    items.stratum,
    items.priority,
    items.reason,
    items.status
from items
left join {{ ref("candidate_preference_pairs") }} as pairs
    on items.kind = 'pair'
    and items.subject_id = pairs.pair_id
