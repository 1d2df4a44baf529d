-- One row per labelled pair: what its labellers together say, each with its weight.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="pair_id") }}

with rule as (

    select
        max(case when setting = 'consensus_share' then value end) as share,
        max(case when setting = 'consensus_labels' then value end) as labels
    from {{ ref("preference_settings") }}

),

changed_rules as (

    {{ one_row_if_new(ref("preference_settings")) }}

    union all

    {{ one_row_if_new(ref("preference_labellers")) }}

),

touched as (

    select pair_id
    from {{ ref("preference_labels") }}
    where {{ newer_than_watermark(ref("preference_labels")) }}
    group by pair_id

    {% if is_incremental() %}
    union

    select known.pair_id
    from {{ this }} as known
    cross join changed_rules
    {% endif %}

),

heard as (

    select
        labels.pair_id,
        labels.labeller,
        labels.preferred,
        labellers.weight
    from {{ ref("preference_labels") }} as labels
    inner join {{ ref("preference_labellers") }} as labellers
        on labels.labeller = labellers.labeller
        and labellers.weight > 0
    where not labels.is_withdrawn

),

-- A pair stays where every label of it was withdrawn.
summed as (

    select
        touched.pair_id,
        count(heard.pair_id) as label_count,
        {{ distinct_list("heard.labeller") }} as labellers,
        coalesce(sum(heard.weight), 0) as weight,
        coalesce(sum(case when heard.preferred = 'a' then heard.weight end), 0) as weight_a,
        coalesce(sum(case when heard.preferred = 'b' then heard.weight end), 0) as weight_b,
        count(distinct heard.preferred) > 1 as is_disputed
    from touched
    left join heard on touched.pair_id = heard.pair_id
    group by touched.pair_id

)

select
    summed.pair_id,
    case
        when summed.label_count < rule.labels then 'undecided'
        when summed.weight_a > rule.share * summed.weight then 'a'
        when summed.weight_b > rule.share * summed.weight then 'b'
        else 'undecided'
    end as preferred,
    coalesce({{ ratio("abs(summed.weight_a - summed.weight_b)", "summed.weight") }}, 0) as margin,
    summed.label_count,
    summed.labellers,
    summed.is_disputed
from summed
cross join rule
