-- One row per service and window: what happened there, in Markdown. It says what was logged, not
-- how the lines came: the same lines in other files, in another order, are the same document.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="external_id") }}

with touched as (

    select service, window_start
    from {{ ref("log_windows") }}
    where {{ newer_than_watermark(ref("log_windows")) }}
    group by service, window_start

    union

    select service, window_start
    from {{ ref("log_bursts") }}
    where {{ newer_than_watermark(ref("log_bursts")) }}
    group by service, window_start

),

windows as (

    select
        windows.service,
        windows.window_start,
        windows.level,
        windows.template_id,
        windows.template,
        windows.line_count,
        windows.first_at,
        windows.last_at,
        windows.example,
        windows.observed_at,
        windows.raw_dlt_id,
        bursts.kind,
        bursts.usual_count,
        bursts.score,
        windows.level in ('error', 'critical') as is_error,
        row_number() over (
            partition by windows.service, windows.window_start
            order by
                windows.line_count desc nulls last,
                windows.level asc nulls last,
                windows.template asc nulls last
        ) as frequency_rank,
        row_number() over (
            partition by
                windows.service,
                windows.window_start,
                windows.level in ('error', 'critical')
            order by
                windows.line_count desc nulls last,
                windows.level asc nulls last,
                windows.template asc nulls last
        ) as error_rank,
        row_number() over (
            partition by windows.service, windows.window_start, bursts.kind
            order by
                bursts.score desc nulls last,
                windows.level asc nulls last,
                windows.template asc nulls last
        ) as burst_rank,
        -- Most unusual first; all differ within the window.
        row_number() over (
            partition by windows.service, windows.window_start
            order by
                bursts.score desc nulls last,
                windows.level asc nulls last,
                windows.template asc nulls last
        ) as burst_place
    from {{ ref("log_windows") }} as windows
    inner join touched
        on windows.service = touched.service
        and windows.window_start = touched.window_start
    left join {{ ref("log_bursts") }} as bursts
        on windows.service = bursts.service
        and windows.window_start = bursts.window_start
        and windows.level = bursts.level
        and windows.template_id = bursts.template_id
        and not bursts.is_deleted
    where not windows.is_deleted

),

levels as (

    select
        service,
        window_start,
        level,
        cast(sum(line_count) as bigint) as line_count,
        case level
            when 'critical' then 1
            when 'error' then 2
            when 'warning' then 3
            when 'info' then 4
            when 'debug' then 5
            else 6
        end as severity
    from windows
    group by service, window_start, level

),

level_texts as (

    select
        service,
        window_start,
        cast(sum(line_count) as bigint) as line_count,
        {{ ordered_string_agg("cast(line_count as string) || ' ' || level", ", ", "severity") }}
            as level_counts
    from levels
    group by service, window_start

),

lines as (

    select
        *,
        '- ' || cast(line_count as string) || ' × ' || level || ': ' || {{ log_code("template") }}
            as line,
        {{ log_code_block("example") }} as example_block
    from windows

),

told as (

    select
        service,
        window_start,
        {{ ordered_string_agg(
            "case when kind = 'burst' and burst_rank <= " ~ var("log_document_lines")
            ~ " then line || ', usually ' || cast(cast(usual_count as decimal(18, 1)) as string) end",
            "\n",
            "burst_place"
        ) }} as bursts,
        {{ ordered_string_agg(
            "case when kind = 'new' and burst_rank <= " ~ var("log_document_lines") ~ " then line end",
            "\n",
            "frequency_rank"
        ) }} as new_templates,
        {{ ordered_string_agg(
            "case when is_error and error_rank <= " ~ var("log_document_errors")
            ~ " then line || chr(10) || chr(10) || example_block end",
            "\n\n",
            "frequency_rank"
        ) }} as errors,
        {{ ordered_string_agg(
            "case when frequency_rank <= " ~ var("log_document_lines") ~ " then line end",
            "\n",
            "frequency_rank"
        ) }} as most_frequent,
        count(*) as templates,
        min(first_at) as first_at,
        max(last_at) as last_at,
        max(observed_at) as observed_at,
        {{ arg_max(
            "raw_dlt_id",
            "coalesce(cast(observed_at as string), '') || ' ' || level || template_id"
        ) }} as raw_dlt_id
    from lines
    group by service, window_start

),

described as (

    select
        told.service || ':' || replace({{ minute_text("told.window_start") }}, ' ', 'T')
            as external_id,
        told.service,
        told.window_start,
        'Log of ' || told.service || ', ' || {{ minute_text("told.window_start") }} || ' to '
        || substr(
            {{ minute_text(
                "told.window_start + interval '" ~ var("log_window_minutes") ~ "' minute"
            ) }},
            12,
            5
        )
        || ' UTC' as title,
        cast(level_texts.line_count as string) || ' lines (' || level_texts.level_counts || '), '
        || cast(told.templates as string) || ' templates, from '
        || substr(cast(told.first_at as string), 12, 8) || ' to '
        || substr(cast(told.last_at as string), 12, 8) || '.'
        || case
            when told.bursts = '' then ''
            else
                chr(10) || chr(10) || '## Far more often than usual'
                || chr(10) || chr(10) || told.bursts
        end
        || case
            when told.new_templates = '' then ''
            else
                chr(10) || chr(10)
                || '## Not seen in the {{ var("log_usual_windows") }} windows before'
                || chr(10) || chr(10) || told.new_templates
        end
        || case
            when told.errors = '' then ''
            else chr(10) || chr(10) || '## Errors' || chr(10) || chr(10) || told.errors
        end
        || chr(10) || chr(10) || '## Most frequent' || chr(10) || chr(10) || told.most_frequent
            as body,
        told.first_at,
        told.last_at,
        told.observed_at,
        told.raw_dlt_id,
        false as is_deleted
    from told
    inner join level_texts
        on told.service = level_texts.service
        and told.window_start = level_texts.window_start

)

select * from described

{% if is_incremental() %}

union all

select
    known.external_id,
    known.service,
    known.window_start,
    known.title,
    known.body,
    known.first_at,
    known.last_at,
    known.observed_at,
    known.raw_dlt_id,
    true as is_deleted
from {{ this }} as known
inner join touched
    on known.service = touched.service
    and known.window_start = touched.window_start
left join described on known.external_id = described.external_id
where described.external_id is null and not known.is_deleted

{% endif %}
