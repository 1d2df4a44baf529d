{# Every choice of every attempt in `requests`; one that was answered nothing has choice 0. #}
{% macro chat_choices(requests, condition) %}
    select
        {{ short_hash(
            turn_name("requests")
            ~ " || chr(31) || cast(coalesce(choice.element.choice_index, 0) as string)"
        ) }} as branch_node_id,
        {{ short_hash(turn_name("requests")) }} as turn_key,
        {{ short_hash(
            turn_name("requests")
            ~ " || chr(31) || cast(requests.started_at as string) || chr(31) || requests.status"
            ~ " || chr(31) || coalesce(requests.model, '') || chr(31)"
            ~ " || coalesce(requests.backend, '') || chr(31)"
            ~ " || cast(coalesce(choice.element.choice_index, 0) as string) || chr(31)"
            ~ " || coalesce(choice.element.response_snapshot_id, requests.error, '')"
        ) }} as execution_id,
        requests.turn_id,
        cast(coalesce(choice.element.choice_index, 0) as bigint) as choice_index,
        requests.tenant,
        requests.session_id,
        requests.theme_id,
        requests.is_replay,
        requests.replay_run_id,
        requests.parent_turn_id,
        requests.context_anchor_turn_id,
        requests.branch_kind,
        requests.variant_config,
        requests.model,
        requests.model_snapshot_id,
        requests.backend,
        requests.parameters,
        requests.sampling_hash,
        requests.system_hash,
        requests.tools_hash,
        requests.request_hash,
        requests.context_snapshot_id,
        requests.first_user_hash,
        requests.prompt_hash,
        requests.prefix_hashes,
        requests.pair_hashes,
        choice.element.response_snapshot_id as response_snapshot_id,
        choice.element.post_hashes as post_hashes,
        choice.element.pair_hashes as response_pairs,
        choice.element.response_text as response_text,
        choice.element.tool_calls as tool_calls,
        choice.element.finish_reason as finish_reason,
        requests.status,
        requests.error,
        requests.started_at,
        requests.started_at as attempt_started_at,
        requests.ended_at,
        requests.duration_ms,
        requests.prompt_tokens,
        requests.completion_tokens,
        requests.event_at,
        requests.event_key,
        requests.raw_dlt_id
    from (select * from {{ requests }} where problem is null and {{ condition }}) as requests,
        {{ each_choice("requests") }}
{%- endmacro %}
