-- One row per trajectory that may be chosen: its stratum, its score, and what is wrong with it.
--
-- What is known of a trajectory are signals: measures, categories by who gave them, the score that
-- people gave, and whether its last answer was preferred. A score is their weighted sum. A rule for
-- a negative type holds where all of its conditions do; a category that nobody gave counts as 0.
{{ config(materialized="table") }}

{%- set measures = trajectory_measures() %}

with strata as (

    {{ trajectory_strata() }}

),

weights as (

    select
        signal,
        given_by,
        weight
    from {{ ref("selection_weights") }}

),

conditions as (

    select
        negative_type,
        rule,
        signal,
        given_by,
        at_least,
        at_most,
        case
            when
                given_by <> 'measure'
                and coalesce(at_least, 0) <= 0
                and coalesce(at_most, 0) >= 0
                then 1
            else 0
        end as holds_of_nothing
    from {{ ref("selection_rules") }}

),

-- The others are not even read.
measures as (

    select signal
    from weights
    where given_by = 'measure'

    union

    select signal
    from conditions
    where given_by = 'measure'

),

verdicts as (

    {{ standing_verdicts("trajectory", list_at("leaf_node_ids", 1), ["score"]) }}

),

opinions as (

    select
        subject_id as trajectory_id,
        count(*) as reviewers,
        avg(score) as score
    from verdicts
    where not is_withdrawn
    group by subject_id

),

labels as (

    select
        labels.subject_id as trajectory_id,
        labels.category as signal,
        labels.labeller as given_by,
        case
            when labels.labeller = 'human' then {{ ratio("count(*)", "max(opinions.reviewers)") }}
            else max(labels.confidence)
        end as value
    from {{ ref("cluster_category_labels") }} as labels
    left join opinions on labels.subject_id = opinions.trajectory_id
    where labels.subject_kind = 'trajectory' and not labels.is_withdrawn
    group by labels.subject_id, labels.category, labels.labeller

),

compared as (

    {% for side, other in [("a", "b"), ("b", "a")] -%}
    select
        pairs.node_{{ side }} as trajectory_id,
        case when consensus.preferred = '{{ side }}' then 1.0 else -1.0 end as value
    from {{ ref("preference_consensus") }} as consensus
    inner join {{ ref("candidate_preference_pairs") }} as pairs
        on consensus.pair_id = pairs.pair_id
    where consensus.preferred in ('a', 'b') and pairs.is_wanted
    {%- if not loop.last %}

    union all

    {% endif %}
    {%- endfor %}

),

signals as (

    select
        trajectory_id,
        signal,
        given_by,
        value
    from labels

    union all

    select
        trajectory_id,
        'score' as signal,
        'human' as given_by,
        0.5 * (score - 3) as value
    from opinions

    union all

    select
        trajectory_id,
        'preferred' as signal,
        'consensus' as given_by,
        avg(value) as value
    from compared
    group by trajectory_id
    {% for measure in measures %}
    union all

    select
        features.trajectory_id,
        measures.signal,
        'measure' as given_by,
        coalesce(cast(features.{{ measure }} as double), 0) as value
    from {{ ref("trajectory_features") }} as features
    inner join measures on measures.signal = '{{ measure }}'
    {% endfor %}
    union all

    select
        features.trajectory_id,
        measures.signal,
        'measure' as given_by,
        case when features.outcome = 'completed' then 1.0 else 0.0 end as value
    from {{ ref("trajectory_features") }} as features
    inner join measures on measures.signal = 'is_completed'

),

scored as (

    select
        signals.trajectory_id,
        sum(signals.value * weights.weight) as score
    from signals
    inner join weights on signals.signal = weights.signal and signals.given_by = weights.given_by
    group by signals.trajectory_id

),

rules as (

    select
        negative_type,
        rule,
        sum(1 - holds_of_nothing) as points
    from conditions
    group by negative_type, rule

),

checked as (

    select
        signals.trajectory_id,
        conditions.negative_type,
        conditions.rule,
        sum(
            case
                when
                    signals.value >= coalesce(conditions.at_least, signals.value)
                    and signals.value <= coalesce(conditions.at_most, signals.value)
                    then 1 - conditions.holds_of_nothing
                else -conditions.holds_of_nothing
            end
        ) as points
    from signals
    inner join conditions
        on signals.signal = conditions.signal
        and signals.given_by = conditions.given_by
    group by signals.trajectory_id, conditions.negative_type, conditions.rule

),

held as (

    select
        checked.trajectory_id,
        checked.negative_type,
        checked.rule,
        sizes.priority,
        max(sizes.priority) over (partition by checked.trajectory_id) as first_priority
    from checked
    inner join rules
        on checked.negative_type = rules.negative_type
        and checked.rule = rules.rule
        and checked.points = rules.points
    inner join {{ ref("selection_sizes") }} as sizes
        on checked.negative_type = sizes.selection

),

wrong as (

    select
        trajectory_id,
        min(negative_type) as negative_type,
        {{ distinct_list("rule") }} as reasons
    from held
    where priority = first_priority
    group by trajectory_id

)

select
    units.trajectory_id,
    units.tenant,
    units.session_id,
    units.theme_id,
    units.tree_group,
    strata.cluster_id,
    strata.stratum,
    units.outcome,
    -- Sums of doubles depend on their order beyond that.
    cast(cast(coalesce(scored.score, 0) as decimal(18, 6)) as double) as score,
    wrong.negative_type,
    wrong.reasons
from {{ ref("trajectory_units") }} as units
inner join strata on units.trajectory_id = strata.trajectory_id
left join scored on units.trajectory_id = scored.trajectory_id
left join wrong on units.trajectory_id = wrong.trajectory_id
