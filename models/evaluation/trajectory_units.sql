-- One row per path from a root to a node that nobody went on from: what it took, and how it ended.
--
-- A tree in which something changed is walked anew, whole. A conversation that went on leaves the
-- row of its former end as it was, with the path that took its place. What replays add ends no
-- original: an original goes on in originals, a replay in replays.
--
-- It is of the group `conversations`: it reads histories from staging, where each request has its
-- own; in a public table they would take as much room as all that is said.
{{ config(
    group="conversations",
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="trajectory_id",
) }}

{%- set node_columns = [
    "branch_node_id", "parent_node_id", "root_node_id", "tree_group", "tenant", "session_id",
    "theme_id", "turn_id", "turn_key", "choice_index", "sibling_index", "branch_kind",
    "is_replay", "node_status", "model", "request_hash", "system_hash", "tools_hash", "started_at",
    "ended_at"
] %}
{%- set columns = [
    "trajectory_id", "tenant", "session_id", "theme_id", "tree_group", "root_node_id",
    "leaf_node_id", "node_ids", "message_hashes", "system_hash", "tools_hash", "models",
    "is_replay", "turn_count", "message_count", "tool_call_count", "tool_error_count",
    "retry_count", "recovery_count", "prompt_tokens", "completion_tokens", "total_tokens",
    "duration_ms", "model_ms", "outcome", "started_at", "ended_at"
] %}

with changed as (

    select
        branch_node_id,
        tree_group
    from {{ ref("conversation_branch_nodes") }}
    where {{ newer_than_watermark(ref("conversation_branch_nodes")) }}

    {% if is_incremental() %}
    union

    select
        nodes.branch_node_id,
        nodes.tree_group
    from {{ ref("conversation_branch_nodes") }} as nodes
    inner join {{ ref("execution_run_records") }} as executions
        on nodes.branch_node_id = executions.branch_node_id
    where {{ newer_than_watermark(ref("execution_run_records"), "executions") }}
    {% endif %}

),

{% if is_incremental() %}

-- The tree of a node now, and the one in which its path was seen before.
touched_trees as (

    select tree_group
    from changed

    union

    select known.tree_group
    from {{ this }} as known
    inner join changed on known.leaf_node_id = changed.branch_node_id

),

-- Keys first, here and below: then few rows of wide columns are read.
touched_nodes as (

    select nodes.branch_node_id
    from {{ ref("conversation_branch_nodes") }} as nodes
    inner join touched_trees on nodes.tree_group = touched_trees.tree_group
    group by nodes.branch_node_id

),

{% endif %}

nodes as (

    select
        nodes.{{ node_columns | join(",\n        nodes.") }},
        row_number() over (order by nodes.branch_node_id nulls last) as node
    from {{ ref("conversation_branch_nodes") }} as nodes
    {% if is_incremental() %}
    inner join touched_nodes on nodes.branch_node_id = touched_nodes.branch_node_id
    {% endif %}

),

steps as (

    select
        nodes.node,
        parents.node as up,
        nodes.sibling_index,
        -- As a condition of a join it would be one that DuckDB may begin with, over all pairs.
        nodes.is_replay = parents.is_replay as goes_on
    from nodes
    left join nodes as parents on nodes.parent_node_id = parents.branch_node_id

),

-- Where each node goes on: in its first continuation.
goes_on as (

    select
        up as node,
        {{ arg_min("node", "sibling_index") }} as next_node
    from steps
    where goes_on
    group by up

),

ends as (

    select nodes.node
    from nodes
    left join goes_on on nodes.node = goes_on.node
    where goes_on.node is null

),

{{ ancestors_by_doubling("ways", "ends", "steps", var("forest_doublings") | int(16)) }},

answers as (

    select
        executions.branch_node_id,
        count(*) as attempts,
        count(*) filter (where executions.status <> 'completed') as failures,
        {{ arg_min(
            "executions.execution_id",
            "cast(" ~ attempt_rank("executions.status") ~ " as string) || ' '"
            ~ " || cast(executions.started_at as string) || ' ' || executions.execution_id"
        ) }} as execution_id
    from {{ ref("execution_run_records") }} as executions
    {% if is_incremental() %}
    inner join touched_nodes on executions.branch_node_id = touched_nodes.branch_node_id
    {% endif %}
    group by executions.branch_node_id

),

-- What happened at each node.
happened as (

    select
        nodes.node,
        answers.attempts,
        nodes.branch_kind = 'retry' as is_retry,
        answers.failures > 0 and executions.status = 'completed' as got_over_failure,
        coalesce({{ list_length(json_text_list("executions.tool_calls", "$")) }}, 0) as tool_calls,
        -- Quotes within what a tool gave are escaped, so that only the trace's own match.
        {{ list_length(
            "regexp_extract_all(executions.tool_trace, '(\"status\":\"failed\")', 1)"
        ) }} as tool_errors,
        coalesce(executions.prompt_tokens, 0) as prompt_tokens,
        coalesce(executions.completion_tokens, 0) as completion_tokens,
        coalesce(executions.duration_ms, 0) as duration_ms,
        executions.finish_reason,
        executions.raw_dlt_id
    from nodes
    inner join answers on nodes.branch_node_id = answers.branch_node_id
    inner join {{ ref("execution_run_records") }} as executions
        on answers.execution_id = executions.execution_id

),

summed as (

    select
        ways.last,
        {{ ordered_list("nodes.branch_node_id", "-ways.distance") }} as node_ids,
        {{ distinct_list("nodes.model") }} as models,
        {{ arg_min(
            "nodes.theme_id", "case when nodes.theme_id is not null then -ways.distance end"
        ) }} as theme_id,
        min(nodes.started_at) as started_at,
        max(nodes.ended_at) as ended_at,
        count(*) as turn_count,
        sum(happened.tool_calls) as tool_call_count,
        sum(happened.tool_errors) as tool_error_count,
        sum(happened.attempts - 1 + case when happened.is_retry then 1 else 0 end) as retry_count,
        -- Tools failed, and it went on all the same; or an attempt failed, and another did not.
        sum(
            case when happened.tool_errors > 0 and ways.distance > 0 then 1 else 0 end
            + case when happened.got_over_failure then 1 else 0 end
        ) as recovery_count,
        sum(happened.prompt_tokens) as prompt_tokens,
        sum(happened.completion_tokens) as completion_tokens,
        sum(happened.duration_ms) as model_ms,
        max(case when ways.distance = 0 then happened.tool_calls end) as open_calls,
        max(case when ways.distance = 0 then happened.finish_reason end) as finish_reason
    from ways
    inner join nodes on ways.node = nodes.node
    left join happened on ways.node = happened.node
    group by ways.last

),

last_requests as (

    select
        ends.node,
        happened.raw_dlt_id,
        nodes.choice_index
    from ends
    inner join nodes on ends.node = nodes.node
    inner join happened on ends.node = happened.node

),

{{ request_messages("said", "last_requests") }},

current_paths as (

    select
        nodes.branch_node_id as trajectory_id,
        nodes.tenant,
        nodes.session_id,
        summed.theme_id,
        nodes.tree_group,
        nodes.root_node_id,
        nodes.branch_node_id as leaf_node_id,
        summed.node_ids,
        case
            when said.answer_hash is null then said.message_hashes
            else {{ list_append("said.message_hashes", "said.answer_hash") }}
        end as message_hashes,
        nodes.system_hash,
        nodes.tools_hash,
        summed.models,
        nodes.is_replay,
        summed.turn_count,
        summed.tool_call_count,
        summed.tool_error_count,
        summed.retry_count,
        summed.recovery_count,
        summed.prompt_tokens,
        summed.completion_tokens,
        summed.prompt_tokens + summed.completion_tokens as total_tokens,
        {{ milliseconds_between("summed.started_at", "summed.ended_at") }} as duration_ms,
        summed.model_ms,
        case
            when nodes.node_status <> 'completed' then nodes.node_status
            when summed.finish_reason in ('length', 'content_filter') then 'cut_off'
            when summed.open_calls > 0 then 'awaiting_tools'
            else 'completed'
        end as outcome,
        summed.started_at,
        summed.ended_at
    from summed
    inner join nodes on summed.last = nodes.node
    inner join last_requests on summed.last = last_requests.node
    inner join said
        on last_requests.raw_dlt_id = said.raw_dlt_id
        and last_requests.choice_index = said.choice_index

)

{% if is_incremental() %}
,

continuations as (

    select
        nodes.node,
        goes_on.next_node as up,
        case when goes_on.next_node is null then 0 else 1 end as distance,
        coalesce(goes_on.next_node, nodes.node) as top,
        nodes.node as lowest
    from nodes
    left join goes_on on nodes.node = goes_on.node

),

{{ roots_by_doubling("followed", "continuations", var("forest_doublings") | int(16)) }},

former_ends as (

    select
        nodes.branch_node_id,
        nodes.tree_group,
        ends_now.branch_node_id as superseded_by
    from {{ this }} as known
    inner join nodes on known.leaf_node_id = nodes.branch_node_id
    inner join followed on nodes.node = followed.node
    inner join nodes as ends_now on followed.top = ends_now.node
    where followed.distance > 0

)
{% endif %}

select
    trajectory_id,
    tenant,
    session_id,
    theme_id,
    tree_group,
    root_node_id,
    leaf_node_id,
    node_ids,
    message_hashes,
    system_hash,
    tools_hash,
    models,
    is_replay,
    cast(turn_count as bigint) as turn_count,
    cast({{ list_length("message_hashes") }} as bigint) as message_count,
    cast(tool_call_count as bigint) as tool_call_count,
    cast(tool_error_count as bigint) as tool_error_count,
    cast(retry_count as bigint) as retry_count,
    cast(recovery_count as bigint) as recovery_count,
    cast(prompt_tokens as bigint) as prompt_tokens,
    cast(completion_tokens as bigint) as completion_tokens,
    cast(total_tokens as bigint) as total_tokens,
    cast(duration_ms as bigint) as duration_ms,
    cast(model_ms as bigint) as model_ms,
    outcome,
    started_at,
    ended_at,
    cast(null as string) as superseded_by
from current_paths

{% if is_incremental() %}
union all

select
    {% for column in columns -%}
    {{ "former_ends" if column == "tree_group" else "known" }}.{{ column }},
    {% endfor -%}
    former_ends.superseded_by
from {{ this }} as known
inner join former_ends on known.trajectory_id = former_ends.branch_node_id
{% endif %}
