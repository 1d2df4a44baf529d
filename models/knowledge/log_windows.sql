-- One row per service, window, level and template: how often it was logged there. Late lines change
-- the rows of their own window only.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["service", "window_start", "level", "template_id"],
) }}

with {{ current_log_counts(["service", "window_start"], "counts.window_start is not null") }},

summed as (

    select
        service,
        window_start,
        level,
        template_id,
        min(template) as template,
        cast(sum(line_count) as bigint) as line_count,
        min(first_at) as first_at,
        max(last_at) as last_at,
        min(example) as example,
        max(observed_at) as observed_at,
        {{ arg_max(
            "raw_dlt_id", "coalesce(cast(observed_at as string), '') || ' ' || raw_dlt_id"
        ) }} as raw_dlt_id,
        false as is_deleted
    from current_counts
    group by service, window_start, level, template_id

)

select * from summed

{% if is_incremental() %}

union all

-- What was read of a line that had not come to its end, and says something else now.
select
    known.service,
    known.window_start,
    known.level,
    known.template_id,
    known.template,
    cast(0 as bigint) as line_count,
    known.first_at,
    known.last_at,
    known.example,
    known.observed_at,
    known.raw_dlt_id,
    true as is_deleted
from {{ this }} as known
inner join touched
    on known.service = touched.service
    and known.window_start = touched.window_start
left join summed
    on known.service = summed.service
    and known.window_start = summed.window_start
    and known.level = summed.level
    and known.template_id = summed.template_id
where summed.service is null and not known.is_deleted

{% endif %}
