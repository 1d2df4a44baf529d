-- One row per category and two layers of labellers: how often both say the same.
--
-- Observed are trajectories that a person or a model has judged: each of them against the rules,
-- each model against each person, and each two of a kind. Cohen's kappa is (observed - expected) /
-- (1 - expected) agreement, expected being what two would have who give the category as often, but
-- at random.
{{ config(materialized="table") }}

with verdicts as (

    {{ standing_verdicts("trajectory", list_at("leaf_node_ids", 1), ["categories"]) }}

),

-- Of a model the one version of each judge that counts.
spoken as (

    select
        subject_id as trajectory_id,
        'human' as labeller,
        reviewer as speaker,
        categories
    from verdicts
    where not is_withdrawn

    union all

    select
        subject_id as trajectory_id,
        'model' as labeller,
        judge as speaker,
        categories
    from {{ ref("model_eval_labels") }}
    where kind = 'trajectory' and not is_withdrawn

),

chosen as (

    select
        spoken.trajectory_id,
        spoken.labeller,
        spoken.speaker,
        category.element as category
    from spoken, {{ unnest_with_position("spoken.categories", "category") }}
    group by spoken.trajectory_id, spoken.labeller, spoken.speaker, category.element

),

said as (

    select
        spoken.trajectory_id,
        spoken.labeller,
        spoken.speaker,
        categories.category,
        chosen.category is not null as is_given
    from spoken
    cross join {{ ref("label_categories") }} as categories
    left join chosen
        on spoken.trajectory_id = chosen.trajectory_id
        and spoken.labeller = chosen.labeller
        and spoken.speaker = chosen.speaker
        and categories.category = chosen.category

),

by_rules as (

    select
        subject_id as trajectory_id,
        category
    from {{ ref("cluster_category_labels") }}
    where labeller = 'rule' and subject_kind = 'trajectory' and not is_withdrawn

),

observed as (

    select
        said.category,
        'rule' as labeller_a,
        said.labeller as labeller_b,
        by_rules.category is not null as is_given_a,
        said.is_given as is_given_b
    from said
    left join by_rules
        on said.trajectory_id = by_rules.trajectory_id
        and said.category = by_rules.category

    union all

    select
        one.category,
        one.labeller as labeller_a,
        other.labeller as labeller_b,
        one.is_given as is_given_a,
        other.is_given as is_given_b
    from said as one
    inner join said as other
        on one.trajectory_id = other.trajectory_id
        and one.category = other.category
        and (
            (one.labeller = 'model' and other.labeller = 'human')
            or (one.labeller = other.labeller and one.speaker < other.speaker)
        )

),

counted as (

    select
        category,
        labeller_a,
        labeller_b,
        count(*) as judged_count,
        count(*) filter (where is_given_a and is_given_b) as both_count,
        count(*) filter (where is_given_a and not is_given_b) as only_a_count,
        count(*) filter (where not is_given_a and is_given_b) as only_b_count,
        count(*) filter (where not is_given_a and not is_given_b) as neither_count
    from observed
    group by category, labeller_a, labeller_b

),

shares as (

    select
        *,
        {{ ratio("both_count + neither_count", "judged_count") }} as agreement,
        {{ ratio("both_count + only_a_count", "judged_count") }} as share_a,
        {{ ratio("both_count + only_b_count", "judged_count") }} as share_b
    from counted

)

select
    category,
    labeller_a,
    labeller_b,
    judged_count,
    both_count,
    only_a_count,
    only_b_count,
    neither_count,
    agreement,
    {{ ratio(
        "agreement - share_a * share_b - (1 - share_a) * (1 - share_b)",
        "1 - share_a * share_b - (1 - share_a) * (1 - share_b)"
    ) }} as kappa
from shares
