-- One row per hand-over between two steps of a flow.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["tenant", "flow_id", "from_node_id", "to_node_id"],
) }}

select
    steps.tenant,
    steps.flow_id,
    parent.element as from_node_id,
    steps.node_id as to_node_id,
    case max(steps.kind)
        when 'tool' then 'tool_call'
        when 'worker' then 'delegation'
        else 'hand_over'
    end as kind
from {{ ref("stg_gateway__flow_steps") }} as steps,
    {{ unnest_with_position("steps.parent_node_ids", "parent") }}
where
    steps.flow_id is not null
    and steps.node_id is not null
    and parent.element is not null
    and {{ newer_than_watermark(ref("stg_gateway__flow_steps"), "steps") }}
group by steps.tenant, steps.flow_id, parent.element, steps.node_id
