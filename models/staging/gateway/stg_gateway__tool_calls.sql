-- One row per event `llm.tool.*`: what a tool was asked, and what it answered.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

select
    raw_dlt_id,
    raw_batch,
    event_at,
    coalesce(tenant, '') as tenant,
    turn_id,
    {{ json_text("payload", "$.data.tool_call_id") }} as tool_call_id,
    {{ json_text("payload", "$.data.name") }} as name,
    {{ json_text("payload", "$.data.arguments") }} as arguments,
    {{ json_text("payload", "$.data.result") }} as result,
    cast({{ json_text("payload", "$.data.duration_ms") }} as bigint) as duration_ms,
    case event_type when 'llm.tool.failed' then 'failed' else 'completed' end as status,
    {{ json_text("payload", "$.data.error") }} as error
from {{ ref("stg_gateway__events") }}
where
    event_type in ('llm.tool.completed', 'llm.tool.failed')
    and {{ newer_than_watermark(ref("stg_gateway__events")) }}
