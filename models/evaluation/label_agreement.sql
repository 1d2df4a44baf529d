-- One row per category and two layers of labellers: how often both say the same.
--
-- Observed are trajectories that a person has judged: each reviewer against the rules, and each two
-- reviewers of one trajectory. Cohen's kappa is (observed - expected) / (1 - expected) agreement,
-- expected being what two would have who give the category as often, but at random.
{{ config(materialized="table") }}

with verdicts as (

    {{ standing_verdicts("trajectory", list_at("leaf_node_ids", 1), ["categories"]) }}

),

spoken as (

    select
        subject_id as trajectory_id,
        reviewer,
        categories
    from verdicts
    where not is_withdrawn

),

chosen as (

    select
        spoken.trajectory_id,
        spoken.reviewer,
        category.element as category
    from spoken, {{ unnest_with_position("spoken.categories", "category") }}
    group by spoken.trajectory_id, spoken.reviewer, category.element

),

by_people as (

    select
        spoken.trajectory_id,
        spoken.reviewer,
        categories.category,
        chosen.category is not null as is_given
    from spoken
    cross join {{ ref("label_categories") }} as categories
    left join chosen
        on spoken.trajectory_id = chosen.trajectory_id
        and spoken.reviewer = chosen.reviewer
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
        by_people.category,
        'rule' as labeller_a,
        'human' as labeller_b,
        by_rules.category is not null as is_given_a,
        by_people.is_given as is_given_b
    from by_people
    left join by_rules
        on by_people.trajectory_id = by_rules.trajectory_id
        and by_people.category = by_rules.category

    union all

    select
        one.category,
        'human' as labeller_a,
        'human' as labeller_b,
        one.is_given as is_given_a,
        other.is_given as is_given_b
    from by_people as one
    inner join by_people as other
        on one.trajectory_id = other.trajectory_id
        and one.category = other.category
        and one.reviewer < other.reviewer

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
