-- One row per task of an event `taskification.completed`.
{{ config(
    materialized="incremental",
    incremental_strategy="append",
    unique_key=["raw_dlt_id", "task_index"],
) }}

with events as (

    select
        raw_dlt_id,
        event_at,
        coalesce(tenant, '') as tenant,
        turn_id,
        coalesce({{ json_text("payload", "$.data.taskify_rule_version") }}, '')
            as taskify_rule_version,
        {{ json_text_list("payload", "$.data.tasks") }} as tasks
    from {{ ref("stg_gateway__events") }}
    where
        event_type = 'taskification.completed'
        and {{ newer_than_watermark(ref("stg_gateway__events")) }}

)

select
    events.raw_dlt_id,
    events.event_at,
    events.tenant,
    events.turn_id,
    events.taskify_rule_version,
    task.position - 1 as task_index,
    {{ json_text("task.element", "$.sub_prompt") }} as sub_prompt,
    {{ json_text_list("task.element", "$.depends_on") }} as depends_on,
    {{ json_text("task.element", "$.assigned_model") }} as assigned_model
from events, {{ unnest_with_position("events.tasks", "task") }}
