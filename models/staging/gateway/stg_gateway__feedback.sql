-- One row per event `feedback.*`: how somebody or something outside ranked or scored a response.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

select
    raw_dlt_id,
    raw_batch,
    event_at,
    coalesce(tenant, '') as tenant,
    turn_id,
    coalesce(cast({{ json_text("payload", "$.data.choice_index") }} as bigint), 0) as choice_index,
    case event_type when 'feedback.ranked' then 'rank' else 'reward' end as kind,
    coalesce({{ json_text("payload", "$.data.labeller") }}, '') as labeller,
    case event_type
        when 'feedback.ranked' then -cast({{ json_text("payload", "$.data.rank") }} as double)
        else cast({{ json_text("payload", "$.data.score") }} as double)
    end as score
from {{ ref("stg_gateway__events") }}
where
    event_type in ('feedback.ranked', 'feedback.scored')
    and {{ newer_than_watermark(ref("stg_gateway__events")) }}
