-- One row per step of an orchestrated flow, as far as it got.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["tenant", "flow_id", "node_id"],
) }}

with touched as (

    select
        tenant,
        flow_id,
        node_id
    from {{ ref("stg_gateway__flow_steps") }}
    where
        flow_id is not null
        and node_id is not null
        and {{ newer_than_watermark(ref("stg_gateway__flow_steps")) }}
    group by tenant, flow_id, node_id

)

select
    steps.tenant,
    steps.flow_id,
    steps.node_id,
    max(steps.kind) as kind,
    max(steps.model) as model,
    max(steps.turn_id) as turn_id,
    -- An end outranks the beginning, and completion a failure before it.
    {{ arg_max(
        "steps.status",
        "case steps.status when 'completed' then 2 when 'failed' then 1 else 0 end"
    ) }} as status,
    min(case when steps.status = 'started' then steps.event_at end) as started_at,
    max(case when steps.status <> 'started' then steps.event_at end) as ended_at
from {{ ref("stg_gateway__flow_steps") }} as steps
inner join touched
    on steps.tenant = touched.tenant
    and steps.flow_id = touched.flow_id
    and steps.node_id = touched.node_id
group by steps.tenant, steps.flow_id, steps.node_id
