-- One row per pair of responses to one and the same request that are worth comparing.
--
-- A response that is empty, cut off, or says what an earlier one of its group says, is in no pair.
-- A group to which something was added is paired anew; a pair no longer wanted stays, marked.
--
-- It is of the group `conversations`, as trajectory_units is, for the histories.
{{ config(
    group="conversations",
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="pair_id",
) }}

{%- set sides = [
    "branch_node_id", "execution_id", "model", "is_original", "response_length", "branch_index",
    "raw_dlt_id", "choice_index"
] %}
{%- set columns = [
    "pair_id", "tenant", "branch_group_id", "request_hash", "system_hash", "tools_hash",
    "message_hashes", "node_a", "node_b", "execution_a", "execution_b", "answer_a", "answer_b",
    "model_a", "model_b", "length_a", "length_b", "reason"
] %}

with limits as (

    select
        max(case when setting = 'responses_per_group' then value end) as responses_per_group,
        max(case when setting = 'pairs_per_group' then value end) as pairs_per_group,
        max(case when setting = 'shortest_response' then value end) as shortest_response
    from {{ ref("preference_settings") }}

),

changed_settings as (

    {{ one_row_if_new(ref("preference_settings")) }}

),

touched as (

    select branch_group_id
    from {{ ref("response_branch_records") }}
    where {{ newer_than_watermark(ref("response_branch_records")) }}
    group by branch_group_id

    {% if is_incremental() %}
    union

    -- An answer may be recorded again, and feedback may come late.
    select groups.branch_group_id
    from {{ ref("response_branch_records") }} as groups
    inner join {{ ref("execution_run_records") }} as executions
        on groups.execution_id = executions.execution_id
    where {{ newer_than_watermark(ref("execution_run_records"), "executions") }}

    union

    select groups.branch_group_id
    from {{ ref("response_branch_records") }} as groups
    inner join {{ ref("response_feedback") }} as feedback
        on groups.branch_node_id = feedback.branch_node_id
    where {{ newer_than_watermark(ref("response_feedback"), "feedback") }}

    union

    select known.branch_group_id
    from {{ this }} as known
    cross join changed_settings
    {% endif %}

),

judged as (

    select branch_node_id
    from {{ ref("response_feedback") }}
    group by branch_node_id

),

responses as (

    select
        groups.branch_group_id,
        groups.tenant,
        groups.request_hash,
        groups.branch_node_id,
        groups.execution_id,
        groups.branch_index,
        groups.is_original,
        groups.model,
        groups.choice_index,
        executions.raw_dlt_id,
        length(coalesce(executions.response_text, '')) as response_length,
        coalesce(executions.response_text, '') || chr(31) || coalesce(executions.tool_calls, '')
            as said,
        judged.branch_node_id is not null as is_judged
    from {{ ref("response_branch_records") }} as groups
    inner join touched on groups.branch_group_id = touched.branch_group_id
    inner join {{ ref("execution_run_records") }} as executions
        on groups.execution_id = executions.execution_id
    left join judged on groups.branch_node_id = judged.branch_node_id
    cross join limits
    where
        executions.status = 'completed'
        and coalesce(executions.finish_reason, 'stop') <> 'length'
        and (
            length(trim(coalesce(executions.response_text, ''))) >= limits.shortest_response
            or executions.tool_calls is not null
        )

),

-- Of equal responses the first; of many the judged ones, then the first.
numbered as (

    select
        *,
        row_number() over (
            partition by branch_group_id, request_hash, said
            order by is_judged desc nulls last, branch_index asc nulls last
        ) as repetition
    from responses

),

ranked as (

    select
        *,
        row_number() over (
            partition by branch_group_id, request_hash
            order by is_judged desc nulls last, branch_index asc nulls last
        ) as place
    from numbered
    where repetition = 1

),

eligible as (

    select ranked.*
    from ranked
    cross join limits
    where ranked.place <= limits.responses_per_group

),

pairs as (

    select
        one.branch_group_id,
        one.tenant,
        one.request_hash,
        {% for side in sides -%}
        one.{{ side }} as {{ side }}_a,
        other.{{ side }} as {{ side }}_b,
        {% endfor -%}
        row_number() over (
            partition by one.branch_group_id, one.request_hash
            order by
                case when one.is_judged and other.is_judged then 0 else 1 end asc nulls last,
                case when one.model <> other.model then 0 else 1 end asc nulls last,
                one.branch_index asc nulls last,
                other.branch_index asc nulls last
        ) as place
    from eligible as one
    inner join eligible as other
        on one.branch_group_id = other.branch_group_id
        and one.request_hash = other.request_hash
        and one.branch_index < other.branch_index

),

kept_pairs as (

    select pairs.*
    from pairs
    cross join limits
    where pairs.place <= limits.pairs_per_group

),

kept_responses as (

    select
        raw_dlt_id_a as raw_dlt_id,
        choice_index_a as choice_index
    from kept_pairs

    union

    select
        raw_dlt_id_b as raw_dlt_id,
        choice_index_b as choice_index
    from kept_pairs

),

{{ request_messages("said", "kept_responses") }},

wanted as (

    select
        {{ short_hash(
            "pairs.execution_id_a || chr(31) || pairs.execution_id_b"
        ) }} as pair_id,
        pairs.tenant,
        pairs.branch_group_id,
        pairs.request_hash,
        nodes.system_hash,
        nodes.tools_hash,
        one.message_hashes,
        pairs.branch_node_id_a as node_a,
        pairs.branch_node_id_b as node_b,
        pairs.execution_id_a as execution_a,
        pairs.execution_id_b as execution_b,
        one.answer_hash as answer_a,
        other.answer_hash as answer_b,
        pairs.model_a,
        pairs.model_b,
        pairs.response_length_a as length_a,
        pairs.response_length_b as length_b,
        case
            when pairs.model_a <> pairs.model_b then 'other model'
            when pairs.is_original_a <> pairs.is_original_b then 'replay'
            else 'another answer'
        end as reason
    from kept_pairs as pairs
    inner join {{ ref("conversation_branch_nodes") }} as nodes
        on pairs.branch_node_id_a = nodes.branch_node_id
    inner join said as one
        on pairs.raw_dlt_id_a = one.raw_dlt_id
        and pairs.choice_index_a = one.choice_index
    inner join said as other
        on pairs.raw_dlt_id_b = other.raw_dlt_id
        and pairs.choice_index_b = other.choice_index

)

select
    {{ columns | join(",\n    ") }},
    true as is_wanted
from wanted

{% if is_incremental() %}
union all

select
    known.{{ columns | join(",\n    known.") }},
    false as is_wanted
from {{ this }} as known
inner join touched on known.branch_group_id = touched.branch_group_id
left join wanted on known.pair_id = wanted.pair_id
where wanted.pair_id is null
{% endif %}
