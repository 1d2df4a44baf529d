-- One row per sub-prompt of a node: as its gateway told, else by the active rule.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="taskification_id",
) }}

with rules as (

    select
        taskify_rule_version,
        task_pattern
    from {{ ref("taskify_rules") }}
    where is_active

),

{% if is_incremental() %}

-- Another rule is asked about every node.
answered_rules as (

    select count(*) as answers
    from {{ this }} as known
    inner join rules on known.taskify_rule_version = rules.taskify_rule_version

),

{% endif %}

wanted as (

    select
        nodes.branch_node_id,
        nodes.tenant,
        nodes.turn_id,
        nodes.context_snapshot_id
    from {{ ref("conversation_branch_nodes") }} as nodes
    {% if is_incremental() %}
    cross join answered_rules
    {% endif %}
    where
        nodes.choice_index = 0
        and (
            {{ newer_than_watermark(ref("conversation_branch_nodes"), "nodes") }}
            {% if is_incremental() %}
            or answered_rules.answers = 0
            {% endif %}
        )

),

told as (

    select
        wanted.branch_node_id,
        tasks.task_index,
        tasks.sub_prompt,
        tasks.depends_on,
        tasks.assigned_model,
        tasks.taskify_rule_version,
        row_number() over (
            partition by wanted.branch_node_id, tasks.taskify_rule_version, tasks.task_index
            order by tasks.event_at desc nulls last, tasks.raw_dlt_id asc nulls last
        ) as recency
    from wanted
    inner join {{ ref("stg_gateway__tasks") }} as tasks
        on wanted.tenant = tasks.tenant
        and wanted.turn_id = tasks.turn_id

),

told_nodes as (

    select branch_node_id
    from told
    group by branch_node_id

),

asked as (

    select
        wanted.branch_node_id,
        messages.content,
        rules.taskify_rule_version,
        regexp_extract_all(messages.content, rules.task_pattern, 1) as tasks
    from wanted
    inner join {{ ref("context_snapshots") }} as snapshots
        on wanted.context_snapshot_id = snapshots.context_snapshot_id
    inner join {{ ref("messages") }} as messages on snapshots.message_hash = messages.message_hash
    cross join rules
    left join told_nodes on wanted.branch_node_id = told_nodes.branch_node_id
    where
        told_nodes.branch_node_id is null
        and messages.role = 'user'
        and messages.content is not null

),

derived as (

    select
        asked.branch_node_id,
        asked.taskify_rule_version,
        task.element as sub_prompt,
        task.position - 1 as task_index
    from asked, {{ unnest_with_position(
        "case when " ~ list_length("asked.tasks") ~ " > 1 then asked.tasks else "
        ~ list_of(["asked.content"]) ~ " end", "task"
    ) }}

),

results as (

    select
        branch_node_id,
        task_index,
        sub_prompt,
        depends_on,
        assigned_model,
        taskify_rule_version,
        'gateway' as told_by
    from told
    where recency = 1

    union all

    select
        branch_node_id,
        task_index,
        trim(sub_prompt) as sub_prompt,
        {{ list_of([]) }} as depends_on,
        cast(null as string) as assigned_model,
        taskify_rule_version,
        'rule' as told_by
    from derived

)

select
    {{ short_hash(
        "branch_node_id || chr(31) || taskify_rule_version || chr(31)"
        ~ " || cast(task_index as string)"
    ) }} as taskification_id,
    branch_node_id,
    cast(task_index as bigint) as task_index,
    sub_prompt,
    depends_on,
    assigned_model,
    taskify_rule_version,
    told_by,
    false as is_superseded
from results

{% if is_incremental() %}

union all

-- What the rule had found before the gateway told.
select
    known.taskification_id,
    known.branch_node_id,
    known.task_index,
    known.sub_prompt,
    known.depends_on,
    known.assigned_model,
    known.taskify_rule_version,
    known.told_by,
    true as is_superseded
from {{ this }} as known
inner join told_nodes on known.branch_node_id = told_nodes.branch_node_id
where known.told_by = 'rule'

{% endif %}
