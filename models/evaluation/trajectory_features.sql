-- One row per trajectory: measures of what was said in it, beside those of what it took.
--
-- A claim is a number or a ticket's id of two characters or more in the last answer; it is grounded
-- where a message before that answer holds it. Claims are only looked at where tools gave results.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="trajectory_id",
) }}

with units as (

    select *
    from {{ ref("trajectory_units") }}
    where {{ newer_than_watermark(ref("trajectory_units")) }}

),

places as (

    select
        units.trajectory_id,
        units.message_count,
        message.element as message_hash,
        message.position
    from units, {{ unnest_with_position("units.message_hashes", "message") }}

),

said as (

    select
        places.trajectory_id,
        places.position,
        places.position = places.message_count and messages.role = 'assistant' as is_answer,
        messages.role,
        coalesce(messages.content, '') as content,
        messages.tool_calls
    from places
    inner join {{ ref("messages") }} as messages on places.message_hash = messages.message_hash

),

summed as (

    select
        trajectory_id,
        count(*) filter (where role = 'user') as user_message_count,
        count(*) filter (where role = 'tool') as tool_result_count,
        {{ arg_max("length(content)", "case when role = 'user' then position end") }}
            as prompt_length,
        max(case when is_answer then length(content) end) as answer_length,
        count(tool_calls) - count(distinct tool_calls) as repeated_call_count
    from said
    group by trajectory_id

),

answers as (

    select
        said.trajectory_id,
        regexp_extract_all(
            said.content, '((?:[A-Z]+-)?[0-9]+(?:[.,:/-][0-9]+)*)', 1
        ) as claims
    from said
    inner join summed on said.trajectory_id = summed.trajectory_id
    where said.is_answer and summed.tool_result_count > 0

),

claims as (

    select
        answers.trajectory_id,
        claim.element as claim
    from answers, {{ unnest_with_position("answers.claims", "claim") }}
    where length(claim.element) > 1
    group by answers.trajectory_id, claim.element

),

checked as (

    select
        claims.trajectory_id,
        claims.claim,
        max(case when instr(said.content, claims.claim) > 0 then 1 else 0 end) as is_grounded
    from claims
    inner join said
        on claims.trajectory_id = said.trajectory_id
        and not said.is_answer
    group by claims.trajectory_id, claims.claim

),

grounded as (

    select
        trajectory_id,
        count(*) as claim_count,
        sum(1 - is_grounded) as ungrounded_count
    from checked
    group by trajectory_id

)

select
    units.trajectory_id,
    units.tenant,
    units.theme_id,
    units.leaf_node_id,
    units.is_replay,
    units.turn_count,
    units.message_count,
    coalesce(summed.user_message_count, 0) as user_message_count,
    units.tool_call_count,
    coalesce(summed.tool_result_count, 0) as tool_result_count,
    units.tool_error_count,
    {{ ratio("units.tool_error_count", "units.tool_call_count") }} as tool_error_share,
    coalesce(summed.repeated_call_count, 0) as repeated_call_count,
    units.retry_count,
    units.recovery_count,
    units.total_tokens,
    units.completion_tokens,
    units.duration_ms,
    cast(summed.prompt_length as bigint) as prompt_length,
    cast(coalesce(summed.answer_length, 0) as bigint) as answer_length,
    coalesce(grounded.claim_count, 0) as claim_count,
    cast(coalesce(grounded.ungrounded_count, 0) as bigint) as ungrounded_count,
    {{ ratio("grounded.ungrounded_count", "grounded.claim_count") }} as ungrounded_share,
    units.outcome,
    units.superseded_by
from units
left join summed on units.trajectory_id = summed.trajectory_id
left join grounded on units.trajectory_id = grounded.trajectory_id
