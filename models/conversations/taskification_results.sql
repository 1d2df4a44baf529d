-- One row per sub-prompt of a node: as its gateway told, else by the active rule.
--
-- A node is asked anew when it, its plan or a rule changes. What other rules found stays.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="taskification_id",
) }}

{%- set node_columns = ["branch_node_id", "tenant", "turn_id", "prompt_hash"] %}

with rules as (

    select
        taskify_rule_version,
        task_pattern
    from {{ ref("taskify_rules") }}
    where is_active

),

changed_rules as (

    {{ one_row_if_new(ref("taskify_rules")) }}

),

wanted as (

    select
        {{ node_columns | join(",\n        ") }}
    from {{ ref("conversation_links") }}
    where
        choice_index = 0
        and {{ newer_than_watermark(ref("conversation_links")) }}

    union

    select
        nodes.{{ node_columns | join(",\n        nodes.") }}
    from {{ ref("conversation_links") }} as nodes
    inner join {{ ref("stg_gateway__tasks") }} as tasks
        on nodes.tenant = tasks.tenant
        and nodes.turn_id = tasks.turn_id
    where
        nodes.choice_index = 0
        and {{ newer_than_watermark(ref("stg_gateway__tasks"), "tasks") }}

    union

    select
        nodes.{{ node_columns | join(",\n        nodes.") }}
    from {{ ref("conversation_links") }} as nodes
    cross join changed_rules
    where nodes.choice_index = 0

),

told as (

    select
        wanted.branch_node_id,
        tasks.task_index,
        tasks.sub_prompt,
        tasks.depends_on,
        tasks.assigned_model,
        tasks.taskify_rule_version,
        -- One number for all tasks of an event: a plan that was told again counts as a whole.
        rank() over (
            partition by wanted.branch_node_id, tasks.taskify_rule_version
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

-- Found by their hashes alone; then only the files of what was found are read for the texts.
prompts as (

    select
        wanted.branch_node_id,
        messages.message_hash,
        messages._batch
    from wanted
    inner join {{ ref("messages") }} as messages on wanted.prompt_hash = messages.message_hash
    left join told_nodes on wanted.branch_node_id = told_nodes.branch_node_id
    where told_nodes.branch_node_id is null

),

asked as (

    select
        prompts.branch_node_id,
        messages.content,
        rules.taskify_rule_version,
        regexp_extract_all(messages.content, rules.task_pattern, 1) as tasks
    from prompts
    inner join {{ ref("messages") }} as messages
        on prompts.message_hash = messages.message_hash
        and prompts._batch = messages._batch
    cross join rules
    where messages.content is not null

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

{% if is_incremental() %}

known_nodes as (

    select known.branch_node_id
    from {{ this }} as known
    inner join wanted on known.branch_node_id = wanted.branch_node_id
    group by known.branch_node_id

),

{% endif %}

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

-- What the active rules or the gateway had said, and say no longer.
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
inner join known_nodes on known.branch_node_id = known_nodes.branch_node_id
left join told_nodes on known.branch_node_id = told_nodes.branch_node_id
left join rules on known.taskify_rule_version = rules.taskify_rule_version
left join results
    on known.branch_node_id = results.branch_node_id
    and known.taskify_rule_version = results.taskify_rule_version
    and known.task_index = results.task_index
where
    results.branch_node_id is null
    and (
        known.told_by = 'gateway'
        or told_nodes.branch_node_id is not null
        or rules.taskify_rule_version is not null
    )

{% endif %}
