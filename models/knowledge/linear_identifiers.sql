-- One row per identifier that leads to a Linear issue: its own, or one from before it was moved. A
-- row is written when it leads elsewhere than before.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="identifier") }}

with issues as (

    select
        issue_id,
        identifier,
        previous_identifiers,
        raw_batch,
        landed_at
    from {{ ref("stg_linear__issues") }}
    where {{ newer_than_watermark(ref("stg_linear__issues")) }}

),

named as (

    select
        identifier,
        issue_id,
        true as is_current,
        raw_batch,
        landed_at
    from issues

    union all

    select
        previous.element as identifier,
        issues.issue_id,
        false as is_current,
        issues.raw_batch,
        issues.landed_at
    from issues,
        {{ unnest_with_position("issues.previous_identifiers", "previous") }}

),

-- Whether an identifier is still an issue's own, its newest version tells.
newest as (

    select
        upper(identifier) as identifier,
        issue_id,
        is_current,
        raw_batch,
        landed_at,
        row_number() over (
            partition by upper(identifier), issue_id
            order by
                raw_batch desc nulls last,
                landed_at desc nulls last,
                is_current desc nulls last
        ) as recency
    from named
    where identifier is not null

),

-- The key of a team may be given to another one: who has an identifier now comes first.
ranked as (

    select
        identifier,
        issue_id,
        is_current,
        row_number() over (
            partition by identifier
            order by
                is_current desc nulls last,
                raw_batch desc nulls last,
                landed_at desc nulls last,
                issue_id asc nulls last
        ) as place
    from newest
    where recency = 1

)

select
    ranked.identifier,
    ranked.issue_id,
    ranked.is_current
from ranked
{% if is_incremental() %}
left join {{ this }} as known on ranked.identifier = known.identifier
where
    ranked.place = 1
    and (
        known.identifier is null
        or (known.issue_id = ranked.issue_id and known.is_current <> ranked.is_current)
        or (known.issue_id <> ranked.issue_id and (ranked.is_current or not known.is_current))
    )
{% else %}
where ranked.place = 1
{% endif %}
