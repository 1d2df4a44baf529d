-- One row per example: its split, and whether it is in its dataset or why not.
{{ config(materialized="table") }}

with splits as (

    select
        split,
        sum(share) over (
            order by split asc nulls last rows between unbounded preceding and current row
        ) as up_to,
        sum(share) over () as all_shares
    from {{ ref("dataset_splits") }}
    where share > 0

),

draws as (

    select
        split_group,
        {{ hash_share("split_group") }} as draw
    from {{ ref("example_groups") }}
    group by split_group

),

-- A group goes where its draw falls: into the first split whose shares reach beyond it.
assigned as (

    select
        draws.split_group,
        min(splits.split) as split
    from draws
    inner join splits on draws.draw < {{ ratio("splits.up_to", "splits.all_shares") }}
    group by draws.split_group

),

judged as (

    select
        examples.example_id,
        examples.dataset,
        examples.tenant,
        examples.partition,
        examples.stratum,
        examples.example_rank,
        groups.split_group,
        assigned.split,
        coalesce(states.problem, groups.duplicate_kind) as exclusion,
        coalesce(states.because_of, groups.duplicate_of) as excluded_for,
        groups.similarity
    from {{ ref("dataset_examples") }} as examples
    inner join {{ ref("example_states") }} as states on examples.example_id = states.example_id
    inner join {{ ref("example_groups") }} as groups on examples.example_id = groups.example_id
    inner join assigned on groups.split_group = assigned.split_group

),

-- What is retained must not teach again what is to be forgotten.
forgotten as (

    select
        split_group,
        min(example_id) as example_id
    from judged
    where partition = 'forget'
    group by split_group

),

to_forget as (

    select
        tenant,
        split,
        count(*) as examples
    from judged
    where partition = 'forget' and exclusion is null
    group by tenant, split

),

strata_to_forget as (

    select
        tenant,
        stratum
    from judged
    where partition = 'forget' and exclusion is null
    group by tenant, stratum

),

retained_for_each as (

    select cast(value as double) as examples
    from {{ ref("dataset_settings") }}
    where setting = 'retain_per_forget'

),

-- First what is like the forgotten in theme and cluster, so that a model loses no more than that.
retained as (

    select
        judged.example_id,
        row_number() over (
            partition by judged.tenant, judged.split
            order by
                case when strata_to_forget.stratum is null then 1 else 0 end asc nulls last,
                judged.example_rank asc nulls last
        ) as place,
        to_forget.examples * retained_for_each.examples as places
    from judged
    left join forgotten on judged.split_group = forgotten.split_group
    left join to_forget
        on judged.tenant = to_forget.tenant
        and judged.split = to_forget.split
    left join strata_to_forget
        on judged.tenant = strata_to_forget.tenant
        and judged.stratum = strata_to_forget.stratum
    cross join retained_for_each
    where
        judged.partition = 'retain'
        and judged.exclusion is null
        and forgotten.split_group is null

)

select
    judged.example_id,
    judged.dataset,
    judged.split_group,
    judged.split,
    case
        when judged.exclusion is not null then judged.exclusion
        when judged.partition = 'retain' and retained.example_id is null
            then 'like what is to be forgotten'
        when judged.partition = 'retain' and retained.place > coalesce(retained.places, 0)
            then 'more than is retained'
    end as exclusion,
    case
        when judged.exclusion is not null then judged.excluded_for
        when judged.partition = 'retain' then forgotten.example_id
    end as excluded_for,
    judged.similarity
from judged
left join retained on judged.example_id = retained.example_id
left join forgotten on judged.split_group = forgotten.split_group
