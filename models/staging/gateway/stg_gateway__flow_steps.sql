-- One row per event `flow.node.*`: a step of an orchestrated flow began or ended.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

select
    raw_dlt_id,
    event_at,
    coalesce(tenant, '') as tenant,
    {{ json_text("payload", "$.data.flow_id") }} as flow_id,
    {{ json_text("payload", "$.data.node_id") }} as node_id,
    {{ json_text_list("payload", "$.data.parent_node_ids") }} as parent_node_ids,
    {{ json_text("payload", "$.data.kind") }} as kind,
    {{ json_text("payload", "$.data.model") }} as model,
    turn_id,
    case event_type
        when 'flow.node.completed' then 'completed'
        when 'flow.node.failed' then 'failed'
        else 'started'
    end as status
from {{ ref("stg_gateway__events") }}
where
    event_type in ('flow.node.started', 'flow.node.completed', 'flow.node.failed')
    and {{ newer_than_watermark(ref("stg_gateway__events")) }}
