-- One row per request: of several attempts under one turn id, the one that got furthest.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="turn_key") }}

{%- set columns = [
    "turn_key", "turn_id", "session_id", "tenant", "theme_id", "model", "backend",
    "context_snapshot_id", "prefix_hash", "request_hash", "system_hash", "tools_hash",
    "parameters", "prompt_tokens", "completion_tokens", "duration_ms", "status", "error",
    "is_replay", "replay_run_id", "parent_turn_id", "context_anchor_turn_id", "started_at",
    "message_count", "event_at", "event_key", "raw_dlt_id"
] %}

with arrived as (

    select
        {{ short_hash(turn_name()) }} as turn_key,
        turn_id,
        session_id,
        tenant,
        theme_id,
        model,
        backend,
        context_snapshot_id,
        {{ list_at("prefix_hashes", 1) }} as prefix_hash,
        request_hash,
        system_hash,
        tools_hash,
        parameters,
        prompt_tokens,
        completion_tokens,
        duration_ms,
        status,
        error,
        is_replay,
        replay_run_id,
        parent_turn_id,
        context_anchor_turn_id,
        started_at,
        message_count,
        event_at,
        event_key,
        raw_dlt_id
    from {{ ref("stg_gateway__chat_requests") }}
    where problem is null and {{ newer_than_watermark(ref("stg_gateway__chat_requests")) }}

),

{% if is_incremental() %}

-- Keys first: what arrives is mostly new, and then no other column of the table is read.
touched as (

    select known.turn_key
    from {{ this }} as known
    inner join arrived on known.turn_key = arrived.turn_key
    group by known.turn_key

),

{% endif %}

attempts as (

    select * from arrived

    {% if is_incremental() %}
    union all

    select
        known.{{ columns | join(",\n        known.") }}
    from {{ this }} as known
    inner join touched on known.turn_key = touched.turn_key
    {% endif %}

),

ranked as (

    select
        *,
        row_number() over (
            partition by turn_key
            order by
                {{ attempt_rank("status") }} nulls last,
                started_at nulls last,
                event_at nulls last,
                event_key nulls last
        ) as preference
    from attempts

)

select
    {{ columns | join(",\n    ") }}
from ranked
where preference = 1
