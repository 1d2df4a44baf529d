-- One row per template of log messages: its masked text, where and how often it was logged.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="template_id") }}

with touched as (

    select template_id
    from {{ ref("log_windows") }}
    where {{ newer_than_watermark(ref("log_windows")) }}
    group by template_id

),

windows as (

    select
        windows.template_id,
        windows.template,
        case when not windows.is_deleted then windows.service end as service,
        windows.line_count,
        case when not windows.is_deleted then windows.first_at end as first_at,
        case when not windows.is_deleted then windows.last_at end as last_at,
        case when not windows.is_deleted then windows.example end as example
    from {{ ref("log_windows") }} as windows
    inner join touched on windows.template_id = touched.template_id

)

select
    template_id,
    min(template) as template,
    {{ distinct_list("service") }} as services,
    cast(sum(line_count) as bigint) as line_count,
    min(first_at) as first_at,
    max(last_at) as last_at,
    min(example) as example,
    sum(line_count) = 0 as is_deleted
from windows
group by template_id
