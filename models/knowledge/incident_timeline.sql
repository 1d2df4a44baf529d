-- One row per entry of an incident's timeline: an item of the list, or a row of the table, that
-- begins with a time, under the heading Timeline.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["incident_id", "position"],
) }}

{% set time = "[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?" %}
{% set day = "[0-9]{4}-[0-9]{2}-[0-9]{2}" %}
{% set zone = "Z|UTC|GMT|BST|CES?T|EES?T|IST|JST|[ECMP][SD]?T|[+-][0-9]{2}:?[0-9]{2}" %}
{% set begin = "^[ \\t]*(?:[-*+]|[0-9]+[.)]|\\|)[ \\t]*[*`_~]*" %}
{% set moment = begin ~ "(?:" ~ day ~ "[T ]+)?" ~ time ~ "[ ]?(?:(?:" ~ zone ~ ")\\b)?[*`_]*" %}

with reports as (

    select
        incident_id,
        body,
        started_at,
        is_deleted,
        raw_dlt_id,
        row_number() over (
            partition by incident_id
            order by
                raw_batch desc nulls last,
                observed_at desc nulls last,
                source_updated_at desc nulls last,
                landed_at desc nulls last
        ) as recency
    from {{ ref("stg_incident_reports__reports") }}
    where {{ newer_than_watermark(ref("stg_incident_reports__reports")) }}

),

sections as (

    select
        incident_id,
        started_at,
        raw_dlt_id,
        -- Up to the next heading of a section, or the end.
        regexp_extract(
            chr(10) || body || chr(10) || '# ',
            {{ regex("(?is)\\n#{1,6}[ \\t]*timeline[^\\n]*\\n(.*?)\\n#{1,2}[ \\t]") }},
            1
        ) as section
    from reports
    where recency = 1 and not is_deleted

),

items as (

    select
        sections.incident_id,
        sections.started_at,
        sections.raw_dlt_id,
        item.position,
        item.element as item
    from sections,
        {{ unnest_with_position(
            "regexp_extract_all(sections.section, " ~ regex("(?m)" ~ moment ~ "[^\\n]*$") ~ ", 0)",
            "item"
        ) }}

),

parsed as (

    select
        incident_id,
        started_at,
        raw_dlt_id,
        position,
        nullif(regexp_extract(item, {{ regex(begin ~ "(" ~ day ~ ")") }}, 1), '') as day,
        regexp_extract(item, {{ regex(begin ~ "(?:" ~ day ~ "[T ]+)?(" ~ time ~ ")") }}, 1) as time,
        regexp_extract(
            item,
            {{ regex(begin ~ "(?:" ~ day ~ "[T ]+)?" ~ time ~ "[ ]?((?:" ~ zone ~ ")\\b)?") }},
            1
        ) as zone,
        trim(regexp_extract(
            item, {{ regex(moment ~ "[ \\t]*(?:[-–—:|]+)?[ \\t]*(.*?)[ \\t|]*$") }}, 1
        )) as what
    from items

),

timed as (

    select
        *,
        -- Five characters before the seconds: 09:05.
        case when instr(time, ':') = 2 then '0' || time else time end as clock
    from parsed

),

-- A clock that goes back has passed midnight.
turned as (

    select
        *,
        case
            when
                day is null
                and clock < lag(clock) over (partition by incident_id order by position nulls last)
                then 1
            else 0
        end as midnights
    from timed

),

dated as (

    select
        incident_id,
        position,
        clock,
        zone,
        what,
        raw_dlt_id,
        day is null as is_day_told_before,
        coalesce(day, {{ day_text("started_at") }}) as day,
        sum(midnights) over (
            partition by incident_id order by position nulls last
        ) as midnights
    from turned

),

entries as (

    select
        incident_id,
        cast(position as bigint) as position,
        clock || case when zone = '' then '' else ' ' || zone end as told_time,
        -- Of other zones than these the name does not tell the offset.
        case
            when zone in ('', 'Z', 'UTC', 'GMT') or substr(zone, 1, 1) in ('+', '-')
                then
                    {{ iso_to_timestamp(
                        "day || 'T' || clock || case when length(clock) = 5 then ':00' else '' end"
                        ~ " || case when substr(zone, 1, 1) in ('+', '-')"
                        ~ " then zone else 'Z' end"
                    ) }}
                    + interval '1' day * case when is_day_told_before then midnights else 0 end
        end as happened_at,
        what,
        raw_dlt_id,
        false as is_deleted
    from dated

)

select * from entries

{% if is_incremental() %}

union all

-- Entries that the newest report no longer has.
select
    known.incident_id,
    known.position,
    known.told_time,
    known.happened_at,
    known.what,
    known.raw_dlt_id,
    true as is_deleted
from {{ this }} as known
inner join reports
    on known.incident_id = reports.incident_id
    and reports.recency = 1
left join entries
    on known.incident_id = entries.incident_id
    and known.position = entries.position
where entries.incident_id is null and not known.is_deleted

{% endif %}
