-- One row per service and template of log lines whose time could not be told, because no format
-- fits: they are in no window. `seeds/log_formats.csv` is where a format is added.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["service", "template_id"],
) }}

with {{ current_log_counts(["service", "template_id"], "counts.window_start is null") }},

summed as (

    select
        service,
        template_id,
        min(template) as template,
        cast(sum(line_count) as bigint) as line_count,
        min(example) as example,
        max(observed_at) as observed_at,
        false as is_deleted
    from current_counts
    group by service, template_id

)

select * from summed

{% if is_incremental() %}

union all

select
    known.service,
    known.template_id,
    known.template,
    cast(0 as bigint) as line_count,
    known.example,
    known.observed_at,
    true as is_deleted
from {{ this }} as known
inner join touched
    on known.service = touched.service
    and known.template_id = touched.template_id
left join summed
    on known.service = summed.service
    and known.template_id = summed.template_id
where summed.service is null and not known.is_deleted

{% endif %}
