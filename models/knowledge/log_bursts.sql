-- One row per template that stands out in a window: logged far more often than in the windows
-- before (burst), or not at all in these (new).
--
-- A count is compared with its mean in the service's windows before by Anscombe's transform, under
-- which a Poisson count has a variance of about one: 2 √(x + 3/8) (F. J. Anscombe, The
-- transformation of Poisson, binomial and negative-binomial data, Biometrika 35, 1948).
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["service", "window_start", "level", "template_id"],
) }}

{% set minutes = (var("log_window_minutes") | int) * (var("log_usual_windows") | int) %}
{% set usual = "interval '" ~ minutes ~ "' minute" %}

with changed as (

    select
        service,
        min(window_start) as first_changed,
        max(window_start) + {{ usual }} as last_affected
    from {{ ref("log_windows") }}
    where {{ newer_than_watermark(ref("log_windows")) }}
    group by service

),

-- The affected windows, and those with which they are compared.
counts as (

    select
        windows.service,
        windows.window_start,
        windows.level,
        windows.template_id,
        windows.template,
        windows.line_count,
        windows.example,
        changed.first_changed
    from {{ ref("log_windows") }} as windows
    inner join changed
        on windows.service = changed.service
        and windows.window_start >= changed.first_changed - {{ usual }}
        and windows.window_start <= changed.last_affected
    where not windows.is_deleted

),

service_windows as (

    select
        service,
        window_start,
        count(*) over (
            partition by service
            order by window_start nulls last
            range between {{ usual }} preceding and interval '1' second preceding
        ) as windows_before
    from counts
    group by service, window_start

),

compared as (

    select
        counts.service,
        counts.window_start,
        counts.level,
        counts.template_id,
        counts.template,
        counts.line_count,
        counts.example,
        counts.first_changed,
        service_windows.windows_before,
        coalesce(
            sum(counts.line_count) over (
                partition by counts.service, counts.level, counts.template_id
                order by counts.window_start nulls last
                range between {{ usual }} preceding and interval '1' second preceding
            ),
            0
        ) as lines_before
    from counts
    inner join service_windows
        on counts.service = service_windows.service
        and counts.window_start = service_windows.window_start

),

scored as (

    select
        service,
        window_start,
        level,
        template_id,
        template,
        line_count,
        example,
        lines_before,
        {{ ratio("lines_before", "windows_before") }} as usual_count,
        2 * sqrt(line_count + 0.375)
        - 2 * sqrt({{ ratio("lines_before", "windows_before") }} + 0.375) as score
    from compared
    where
        window_start >= first_changed
        and windows_before >= {{ var("log_least_windows") }}

),

found as (

    select
        service,
        window_start,
        level,
        template_id,
        case when lines_before = 0 then 'new' else 'burst' end as kind,
        template,
        line_count,
        usual_count,
        score,
        example,
        false as is_deleted
    from scored
    where
        lines_before = 0
        or (
            score >= {{ var("log_burst_score") }}
            and line_count >= {{ var("log_burst_least_lines") }}
        )

)

select * from found

{% if is_incremental() %}

union all

-- What no longer stands out.
select
    known.service,
    known.window_start,
    known.level,
    known.template_id,
    known.kind,
    known.template,
    known.line_count,
    known.usual_count,
    known.score,
    known.example,
    true as is_deleted
from {{ this }} as known
inner join changed
    on known.service = changed.service
    and known.window_start >= changed.first_changed
    and known.window_start <= changed.last_affected
left join found
    on known.service = found.service
    and known.window_start = found.window_start
    and known.level = found.level
    and known.template_id = found.template_id
where found.service is null and not known.is_deleted

{% endif %}
