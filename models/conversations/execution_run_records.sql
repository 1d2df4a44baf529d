-- One row per execution: an attempt at a request, and a choice that it was answered.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="execution_id") }}

{%- set columns = [
    "execution_id", "branch_node_id", "turn_key", "turn_id", "choice_index", "tenant",
    "context_anchor_turn_id", "is_replay", "replay_run_id", "model", "model_snapshot_id", "backend",
    "parameters", "response_text", "tool_calls", "finish_reason", "prompt_tokens",
    "completion_tokens", "duration_ms", "status", "error", "started_at", "event_at", "event_key",
    "raw_dlt_id"
] %}

with arrived as (

    {{ chat_choices(
        ref("stg_gateway__chat_requests"),
        newer_than_watermark(ref("stg_gateway__chat_requests"))
    ) }}

),

{% if is_incremental() %}

-- Keys first: what arrives is mostly new, and then no other column of the table is read.
touched as (

    select known.turn_key
    from {{ this }} as known
    inner join arrived on known.turn_key = arrived.turn_key

    union

    select known.turn_key
    from {{ this }} as known
    inner join {{ ref("stg_gateway__tool_calls") }} as calls
        on known.tenant = calls.tenant
        and known.turn_id = calls.turn_id
    where {{ newer_than_watermark(ref("stg_gateway__tool_calls"), "calls") }}

),

{% endif %}

recorded as (

    select
        {{ columns | join(",\n        ") }}
    from arrived

    {% if is_incremental() %}
    union all

    select
        known.{{ columns | join(",\n        known.") }}
    from {{ this }} as known
    inner join touched on known.turn_key = touched.turn_key
    {% endif %}

),

-- An attempt may be recorded again, as when its model's version was found out: the latest counts.
ranked as (

    select
        *,
        row_number() over (
            partition by execution_id
            order by
                event_at desc nulls last,
                case when model_snapshot_id is null then 1 else 0 end asc nulls last,
                event_key asc nulls last
        ) as preference
    from recorded

),

executions as (

    select
        *,
        cast(dense_rank() over (
            partition by turn_key
            order by started_at nulls last, status nulls last, model nulls last
        ) as bigint) as attempt
    from ranked
    where preference = 1

),

calls as (

    select
        executions.execution_id,
        '[' || {{ ordered_string_agg(
            "'{\"tool_call_id\":' || " ~ json_quoted("calls.tool_call_id")
            ~ " || ',\"name\":' || " ~ json_quoted("calls.name")
            ~ " || ',\"arguments\":' || " ~ json_quoted("calls.arguments")
            ~ " || ',\"result\":' || " ~ json_quoted("calls.result")
            ~ " || ',\"duration_ms\":' || coalesce(cast(calls.duration_ms as string), 'null')"
            ~ " || ',\"status\":' || " ~ json_quoted("calls.status")
            ~ " || ',\"error\":' || " ~ json_quoted("calls.error") ~ " || '}'",
            ",", "coalesce(cast(calls.event_at as string), '') || calls.raw_dlt_id"
        ) }} || ']' as tool_trace
    from executions
    inner join {{ ref("stg_gateway__tool_calls") }} as calls
        on executions.tenant = calls.tenant
        and executions.turn_id = calls.turn_id
    where
        instr(coalesce(executions.tool_calls, ''), coalesce(calls.tool_call_id, '')) > 0
        or executions.tool_calls is null and executions.choice_index = 0
    group by executions.execution_id

)

select
    executions.{{ columns | join(",\n    executions.") }},
    executions.attempt,
    coalesce(calls.tool_trace, executions.tool_calls, '[]') as tool_trace
from executions
left join calls on executions.execution_id = calls.execution_id
