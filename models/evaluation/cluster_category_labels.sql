-- One row per trajectory, category and labeller that gave it. Layers are never mixed.
--
-- A rule is given where all of its conditions hold, a category where one of its rules is. What is
-- given no longer stays, marked. Each version of a judge has labels of its own.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="label_id") }}

{%- set measures = trajectory_measures() %}

with conditions as (

    select
        category,
        rule,
        measure,
        at_least,
        at_most
    from {{ ref("label_rules") }}

),

versions as (

    select
        category,
        'rules ' || substr({{ short_hash(ordered_string_agg(
            "rule || chr(31) || measure || chr(31) || coalesce(cast(at_least as string), '')"
            ~ " || chr(31) || coalesce(cast(at_most as string), '')",
            ";", "rule || chr(31) || measure"
        )) }}, 1, 8) as labeller_version
    from conditions
    group by category

),

sizes as (

    select
        category,
        rule,
        count(*) as conditions
    from conditions
    group by category, rule

),

changed_rules as (

    {{ one_row_if_new(ref("label_rules")) }}

),

touched as (

    select *
    from {{ ref("trajectory_features") }}
    where {{ newer_than_watermark(ref("trajectory_features")) }}

    {% if is_incremental() %}
    union

    select features.*
    from {{ ref("trajectory_features") }} as features
    cross join changed_rules
    {% endif %}

),

measured as (

    {% for measure in measures -%}
    select
        trajectory_id,
        '{{ measure }}' as measure,
        cast({{ measure }} as double) as value
    from touched

    union all

    {% endfor -%}
    select
        trajectory_id,
        'is_completed' as measure,
        case when outcome = 'completed' then 1.0 else 0.0 end as value
    from touched

),

-- A share of nothing counts as none.
held as (

    select
        measured.trajectory_id,
        conditions.category,
        conditions.rule,
        count(*) as conditions
    from measured
    inner join conditions on measured.measure = conditions.measure
    where
        (conditions.at_least is null or coalesce(measured.value, 0) >= conditions.at_least)
        and (conditions.at_most is null or coalesce(measured.value, 0) <= conditions.at_most)
    group by measured.trajectory_id, conditions.category, conditions.rule

),

given as (

    select
        held.trajectory_id,
        held.category,
        {{ distinct_list("held.rule") }} as reasons
    from held
    inner join sizes
        on held.category = sizes.category
        and held.rule = sizes.rule
        and held.conditions = sizes.conditions
    group by held.trajectory_id, held.category

),

spoken as (

    {{ standing_verdicts("trajectory", list_at("leaf_node_ids", 1), ["categories"]) }}

),

judged as (

    select {{ list_at("leaf_node_ids", 1) }} as trajectory_id
    from {{ ref("human_eval_labels") }}
    where kind = 'trajectory' and {{ newer_than_watermark(ref("human_eval_labels")) }}
    group by {{ list_at("leaf_node_ids", 1) }}

),

people as (

    select
        spoken.subject_id as trajectory_id,
        spoken.reviewer,
        category.element as category
    from judged
    inner join spoken
        on judged.trajectory_id = spoken.subject_id
        and not spoken.is_withdrawn,
        {{ unnest_with_position("spoken.categories", "category") }}

),

judged_by_models as (

    select subject_id as trajectory_id
    from {{ ref("model_eval_labels") }}
    where kind = 'trajectory' and {{ newer_than_watermark(ref("model_eval_labels")) }}
    group by subject_id

),

models as (

    select
        judgements.subject_id as trajectory_id,
        judgements.labeller_version,
        category.element as category,
        cast({{ list_at("judgements.confidences", "category.position") }} as double) as confidence,
        {{ list_at("judgements.reasons", "category.position") }} as reason
    from judged_by_models
    inner join {{ ref("model_eval_labels") }} as judgements
        on judged_by_models.trajectory_id = judgements.subject_id
        and judgements.kind = 'trajectory'
        and not judgements.is_withdrawn,
        {{ unnest_with_position("judgements.categories", "category") }}

),

labels as (

    select
        {{ short_hash(
            "'trajectory' || chr(31) || given.trajectory_id || chr(31) || given.category"
            ~ " || chr(31) || 'rule'"
        ) }} as label_id,
        'trajectory' as subject_kind,
        given.trajectory_id as subject_id,
        given.category,
        'rule' as labeller,
        versions.labeller_version,
        cast(1 as double) as confidence,
        given.reasons,
        false as is_withdrawn
    from given
    inner join versions on given.category = versions.category

    union all

    select
        {{ short_hash(
            "'trajectory' || chr(31) || trajectory_id || chr(31) || category"
            ~ " || chr(31) || 'human' || chr(31) || reviewer"
        ) }} as label_id,
        'trajectory' as subject_kind,
        trajectory_id as subject_id,
        category,
        'human' as labeller,
        reviewer as labeller_version,
        cast(1 as double) as confidence,
        {{ list_of([]) }} as reasons,
        false as is_withdrawn
    from people

    union all

    select
        {{ short_hash(
            "'trajectory' || chr(31) || trajectory_id || chr(31) || category"
            ~ " || chr(31) || 'model' || chr(31) || labeller_version"
        ) }} as label_id,
        'trajectory' as subject_kind,
        trajectory_id as subject_id,
        category,
        'model' as labeller,
        labeller_version,
        confidence,
        {{ list_of(["reason"]) }} as reasons,
        false as is_withdrawn
    from models

)

select
    label_id,
    subject_kind,
    subject_id,
    category,
    labeller,
    labeller_version,
    confidence,
    reasons,
    is_withdrawn
from labels

{% if is_incremental() %}
union all

select
    known.label_id,
    known.subject_kind,
    known.subject_id,
    known.category,
    known.labeller,
    known.labeller_version,
    known.confidence,
    known.reasons,
    true as is_withdrawn
from {{ this }} as known
left join touched on known.subject_id = touched.trajectory_id
left join judged on known.subject_id = judged.trajectory_id
left join judged_by_models on known.subject_id = judged_by_models.trajectory_id
left join labels on known.label_id = labels.label_id
where
    labels.label_id is null
    and (
        (known.labeller = 'rule' and touched.trajectory_id is not null)
        or (known.labeller = 'human' and judged.trajectory_id is not null)
        or (known.labeller = 'model' and judged_by_models.trajectory_id is not null)
    )
{% endif %}
