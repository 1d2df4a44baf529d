-- One row per turn and choice: its place in the forest, and how it differs from its siblings.
--
-- A new link touches the trees that it joins or leaves, and what is a root in the same session:
-- these trees are built anew, whole.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="branch_node_id",
) }}

{%- set link_columns = [
    "branch_node_id", "turn_key", "turn_id", "choice_index", "tenant", "session_id", "theme_id",
    "is_replay", "replay_run_id", "first_user_hash", "context_snapshot_id", "response_snapshot_id",
    "model", "parameters", "sampling_hash", "system_hash", "tools_hash", "request_hash",
    "branch_kind as declared_kind", "variant_config as declared_config", "status", "started_at",
    "ended_at", "parent_node_id", "match", "fallback_node_id", "fallback_match"
] %}
{%- set classes = ["context_snapshot_id", "system_hash", "tools_hash", "plan", "model",
                   "sampling_hash"] %}
{%- set kinds = ["root", "continuation", "retry", "tool_variant", "sampling_variant",
                 "prompt_variant", "taskify_variant"] %}
{%- set quoted_kinds = "'" ~ kinds | join("', '") ~ "'" %}

with told_plans as (

    select
        *,
        rank() over (
            partition by tenant, turn_id
            order by event_at desc nulls last, raw_dlt_id asc nulls last
        ) as recency
    from {{ ref("stg_gateway__tasks") }}

),

plans as (

    select
        tenant,
        turn_id,
        max(taskify_rule_version) as taskify_rule_version,
        {{ short_hash(ordered_string_agg(
            "coalesce(sub_prompt, '') || chr(31) || coalesce(assigned_model, '')", ",",
            "cast(1000000 + task_index as string)"
        )) }} as plan
    from told_plans
    where recency = 1
    group by tenant, turn_id

),

changed as (

    select
        branch_node_id,
        parent_node_id,
        {{ tree_group("tenant", "session_id", "first_user_hash", "context_snapshot_id") }}
            as own_group
    from {{ ref("conversation_links") }}
    where {{ newer_than_watermark(ref("conversation_links")) }}

    union all

    select
        links.branch_node_id,
        links.parent_node_id,
        {{ tree_group(
            "links.tenant", "links.session_id", "links.first_user_hash", "links.context_snapshot_id"
        ) }} as own_group
    from {{ ref("conversation_links") }} as links
    inner join {{ ref("stg_gateway__tasks") }} as tasks
        on links.tenant = tasks.tenant
        and links.turn_id = tasks.turn_id
    where {{ newer_than_watermark(ref("stg_gateway__tasks"), "tasks") }}

),

{% if is_incremental() %}

touched_groups as (

    select known.tree_group
    from {{ this }} as known
    inner join changed on known.branch_node_id = changed.branch_node_id

    union

    select known.tree_group
    from {{ this }} as known
    inner join changed on known.branch_node_id = changed.parent_node_id

    union

    select own_group as tree_group
    from changed

),

arrived as (

    select branch_node_id
    from {{ ref("conversation_links") }}
    where {{ newer_than_watermark(ref("conversation_links")) }}

),

touched as (

    select known.branch_node_id
    from {{ this }} as known
    inner join touched_groups on known.tree_group = touched_groups.tree_group

    union

    select branch_node_id
    from changed

),

-- What arrived is read from its own files; no other file is, where nothing else is touched.
others as (

    select touched.branch_node_id
    from touched
    left join arrived on touched.branch_node_id = arrived.branch_node_id
    where arrived.branch_node_id is null

),

{% endif %}

links as (

    select
        {{ link_columns | join(",\n        ") }}
    from {{ ref("conversation_links") }}
    where {{ newer_than_watermark(ref("conversation_links")) }}

    {% if is_incremental() %}
    union all

    select
        links.{{ link_columns | join(",\n        links.") }}
    from {{ ref("conversation_links") }} as links
    inner join others on links.branch_node_id = others.branch_node_id
    {% endif %}

),

nodes as (

    select
        links.*,
        plans.plan,
        plans.taskify_rule_version,
        {{ tree_group(
            "links.tenant", "links.session_id", "links.first_user_hash", "links.context_snapshot_id"
        ) }} as own_group,
        row_number() over (order by links.branch_node_id nulls last) as node
    from links
    left join plans
        on links.tenant = plans.tenant
        and links.turn_id = plans.turn_id

),

pointers as (

    select
        nodes.node,
        parents.node as up,
        case when parents.node is null then 0 else 1 end as distance,
        coalesce(parents.node, nodes.node) as top,
        least(nodes.node, coalesce(parents.node, nodes.node)) as lowest
    from nodes
    left join nodes as parents on nodes.parent_node_id = parents.branch_node_id

),

{{ roots_by_doubling("followed", "pointers", var("forest_doublings") | int(16)) }},

-- Links that clients named may close a cycle. The one of its latest node is set aside.
on_cycle as (

    select up as node
    from followed
    where up is not null
    group by up

),

cyclic as (

    select
        on_cycle.node,
        followed.lowest,
        row_number() over (
            partition by followed.lowest
            order by nodes.started_at desc nulls last, nodes.branch_node_id desc nulls last
        ) as lateness
    from on_cycle
    inner join followed on on_cycle.node = followed.node
    inner join nodes on on_cycle.node = nodes.node
    where nodes.match = 'explicit'

),

first_repair as (

    select
        pointers.node,
        case
            when cyclic.node is not null then fallbacks.node
            else pointers.up
        end as up,
        cyclic.node is not null as is_moved
    from pointers
    inner join followed on pointers.node = followed.node and followed.up is not null
    left join cyclic on pointers.node = cyclic.node and cyclic.lateness = 1
    left join nodes on cyclic.node = nodes.node
    left join nodes as fallbacks on nodes.fallback_node_id = fallbacks.branch_node_id

),

first_pointers as (

    -- What lies outside the cycles was followed to its root already.
    select
        first_repair.node,
        inside.node as up,
        case when inside.node is null then 0 else 1 end as distance,
        coalesce(inside.node, first_repair.node) as top,
        least(first_repair.node, coalesce(inside.node, first_repair.node)) as lowest
    from first_repair
    left join first_repair as inside on first_repair.up = inside.node

),

{{ roots_by_doubling("refollowed", "first_pointers", var("forest_doublings") | int(16)) }},

-- Where the hashes lead back into a cycle, its latest named link is cut: that node is a root.
on_second_cycle as (

    select up as node
    from refollowed
    where up is not null
    group by up

),

still_cyclic as (

    select
        on_second_cycle.node,
        row_number() over (
            partition by refollowed.lowest
            order by nodes.started_at desc nulls last, nodes.branch_node_id desc nulls last
        ) as lateness
    from on_second_cycle
    inner join refollowed on on_second_cycle.node = refollowed.node
    inner join nodes on on_second_cycle.node = nodes.node
    inner join first_repair on on_second_cycle.node = first_repair.node
    where nodes.match = 'explicit' and not first_repair.is_moved

),

parents as (

    select
        pointers.node,
        case
            when cut.node is not null then null
            when first_repair.node is not null then first_repair.up
            else pointers.up
        end as up,
        case
            when cut.node is not null then 'none'
            when first_repair.is_moved then coalesce(nodes.fallback_match, 'none')
            else nodes.match
        end as match
    from pointers
    inner join nodes on pointers.node = nodes.node
    left join first_repair on pointers.node = first_repair.node
    left join still_cyclic as cut on pointers.node = cut.node and cut.lateness = 1

),

-- Only trees with a cycle in them have to be followed again.
repaired_parents as (

    select
        parents.node,
        parents.up
    from parents
    inner join first_repair on parents.node = first_repair.node

),

outside as (

    select repaired_parents.up
    from repaired_parents
    left join first_repair on repaired_parents.up = first_repair.node
    where repaired_parents.up is not null and first_repair.node is null
    group by repaired_parents.up

),

final_pointers as (

    select
        node,
        up,
        case when up is null then 0 else 1 end as distance,
        coalesce(up, node) as top,
        node as lowest
    from repaired_parents

    union all

    select
        followed.node,
        cast(null as bigint) as up,
        followed.distance,
        followed.top,
        followed.lowest
    from followed
    inner join outside on followed.node = outside.up

),

{{ roots_by_doubling("settled", "final_pointers", var("forest_doublings") | int(16)) }},

-- Places are worked out without what a node says: sorting carries every column along.
placed as (

    select
        nodes.node,
        nodes.is_replay,
        nodes.started_at,
        nodes.turn_id,
        nodes.choice_index,
        nodes.own_group,
        parents.up,
        parents.match,
        case
            when first_repair.node is not null then settled.distance
            else followed.distance
        end as depth,
        case
            when first_repair.node is not null then settled.top
            else followed.top
        end as top,
        case
            when first_repair.node is not null then settled.up
            else followed.up
        end as unfinished
    from nodes
    inner join parents on nodes.node = parents.node
    inner join followed on nodes.node = followed.node
    left join first_repair on nodes.node = first_repair.node
    left join settled on nodes.node = settled.node

),

grouped as (

    select
        placed.node,
        placed.is_replay,
        placed.started_at,
        placed.turn_id,
        placed.choice_index,
        placed.up,
        placed.match,
        placed.depth,
        placed.unfinished,
        roots.own_group as tree_group,
        roots.branch_node_id as root_node_id,
        above.branch_node_id as parent_node_id,
        coalesce(above.branch_node_id, placed.own_group) as sibling_group
    from placed
    inner join nodes as roots on placed.top = roots.node
    left join nodes as above on placed.up = above.node

),

indexed as (

    select
        *,
        row_number() over (
            partition by sibling_group
            order by
                is_replay nulls last,
                started_at nulls last,
                turn_id nulls last,
                choice_index nulls last,
                node nulls last
        ) - 1 as sibling_index,
        count(*) over (partition by sibling_group) as sibling_count
    from grouped

),

-- Among roots: the first of its kind in what is said and in system and tools is another root.
roots as (

    select
        indexed.node,
        row_number() over (
            partition by indexed.sibling_group, nodes.context_snapshot_id
            order by indexed.sibling_index nulls last
        ) = 1
        and row_number() over (
            partition by indexed.sibling_group, nodes.system_hash, nodes.tools_hash
            order by indexed.sibling_index nulls last
        ) = 1 as is_another
    from indexed
    inner join nodes on indexed.node = nodes.node
    where indexed.up is null and indexed.sibling_count > 1

),

siblings as (

    select
        indexed.node,
        indexed.sibling_group,
        indexed.sibling_index,
        indexed.is_replay,
        row_number() over (
            partition by indexed.sibling_group
            order by
                indexed.started_at nulls last,
                indexed.turn_id nulls last,
                indexed.choice_index nulls last,
                indexed.node nulls last
        ) as time_index,
        nodes.{{ classes | join(",\n        nodes.") }}
    from indexed
    inner join nodes on indexed.node = nodes.node
    where indexed.sibling_count > 1

),

-- Few pairs differ in several classes: sets of them are only tried where smaller ones did not do.
equal as (

    {{ nearest_siblings("siblings", classes, [0]) }}

),

unlike_groups as (

    select siblings.sibling_group
    from siblings
    inner join equal on siblings.node = equal.node
    where equal.nearest_index is null and siblings.sibling_index > 0
    group by siblings.sibling_group

),

unlike as (

    select siblings.*
    from siblings
    inner join unlike_groups on siblings.sibling_group = unlike_groups.sibling_group

),

alike as (

    {{ nearest_siblings("unlike", classes, [1, 2]) }}

),

alike_found as (

    select
        node,
        max(nearest_index) as nearest_index
    from alike
    group by node

),

different_groups as (

    select unlike.sibling_group
    from unlike
    inner join alike_found on unlike.node = alike_found.node
    where alike_found.nearest_index is null and unlike.sibling_index > 0
    group by unlike.sibling_group

),

different as (

    select unlike.*
    from unlike
    inner join different_groups on unlike.sibling_group = different_groups.sibling_group

),

distant as (

    {{ nearest_siblings("different", classes, [3, 4, 5, 6]) }}

),

found as (

    select * from equal
    union all
    select * from alike
    union all
    select * from distant
    union all
    -- A replay that seems older than every original is compared with the first of them.
    select
        siblings.node,
        {{ (classes | length) + 1 }} as differences,
        firsts.time_index as nearest_index
    from siblings
    inner join siblings as firsts
        on siblings.sibling_group = firsts.sibling_group
        and firsts.sibling_index = 0
    where siblings.sibling_index > 0

),

ranked as (

    select
        node,
        nearest_index,
        row_number() over (
            partition by node
            order by differences asc nulls last, nearest_index desc nulls last
        ) as preference
    from found
    where nearest_index is not null

),

compared as (

    select
        siblings.node,
        nearest.node as nearest_node
    from ranked
    inner join siblings on ranked.node = siblings.node
    inner join siblings as nearest
        on siblings.sibling_group = nearest.sibling_group
        and ranked.nearest_index = nearest.time_index
    where ranked.preference = 1 and siblings.sibling_index > 0

),

described as (

    select
        nodes.*,
        indexed.up,
        indexed.depth,
        indexed.unfinished,
        indexed.match as final_match,
        indexed.tree_group,
        indexed.root_node_id,
        indexed.parent_node_id as final_parent_id,
        indexed.sibling_index,
        nearest.branch_node_id as variant_of_node_id,
        nearest.turn_key = nodes.turn_key as is_same_turn,
        coalesce(roots.is_another, false) and indexed.sibling_index > 0 as is_another_root,
        {{ differs("nodes.context_snapshot_id", "nearest.context_snapshot_id") }} as other_user,
        {{ differs("nodes.system_hash", "nearest.system_hash") }} as other_system,
        {{ differs("nodes.tools_hash", "nearest.tools_hash") }} as other_tools,
        {{ differs("nodes.plan", "nearest.plan") }} as other_plan,
        {{ differs("nodes.model", "nearest.model") }} as other_model,
        {{ differs("nodes.sampling_hash", "nearest.sampling_hash") }} as other_sampling,
        {{ differs("nodes.parameters", "nearest.parameters") }} as other_parameters,
        nearest.context_snapshot_id as nearest_user,
        nearest.system_hash as nearest_system,
        nearest.tools_hash as nearest_tools,
        nearest.plan as nearest_plan,
        nearest.model as nearest_model,
        nearest.parameters as nearest_parameters
    from nodes
    inner join indexed on nodes.node = indexed.node
    left join compared on nodes.node = compared.node
    left join nodes as nearest on compared.nearest_node = nearest.node
    left join roots on nodes.node = roots.node

),

named as (

    select
        *,
        case
            when declared_kind in ({{ quoted_kinds }}) then declared_kind
            when sibling_index = 0 then case when up is null then 'root' else 'continuation' end
            when is_another_root then 'root'
            when other_user or other_system then 'prompt_variant'
            when other_tools then 'tool_variant'
            when other_plan then 'taskify_variant'
            when other_model or other_sampling then 'sampling_variant'
            else 'retry'
        end as branch_kind,
        substr(
            case when other_user then ', messages' else '' end
            || case when other_system then ', system' else '' end
            || case when other_tools then ', tools' else '' end
            || case when other_plan then ', plan' else '' end
            || case when other_model then ', model' else '' end
            || case when other_sampling then ', sampling' else '' end,
            3
        ) as differing,
        substr(
            {{ difference("other_user", "messages", json_quoted("nearest_user"),
                          json_quoted("context_snapshot_id")) }}
            || {{ difference("other_system", "system", json_quoted("nearest_system"),
                             json_quoted("system_hash")) }}
            || {{ difference("other_tools", "tools", json_quoted("nearest_tools"),
                             json_quoted("tools_hash")) }}
            || {{ difference("other_plan", "plan", json_quoted("nearest_plan"),
                             json_quoted("plan")) }}
            || {{ difference("other_model", "model", json_quoted("nearest_model"),
                             json_quoted("model")) }}
            || {{ difference("other_parameters", "parameters", "nearest_parameters",
                             "parameters") }},
            2
        ) as differences
    from described

),

-- A session that no client named is called after the first of its roots.
group_names as (

    select
        indexed.tree_group,
        coalesce(
            {{ arg_min("nodes.session_id", "case when nodes.session_id is not null then " ~
                "cast(nodes.started_at as string) || ' ' || nodes.branch_node_id end") }},
            'unnamed:' || {{ arg_min(
                "nodes.branch_node_id",
                "case when indexed.up is null and indexed.sibling_index = 0 then 1 end"
            ) }}
        ) as session_id
    from indexed
    inner join nodes on indexed.node = nodes.node
    group by indexed.tree_group

),

titled as (

    select
        named.*,
        group_names.session_id as group_session_id
    from named
    inner join group_names on named.tree_group = group_names.tree_group

)

select
    branch_node_id,
    coalesce(session_id, group_session_id) as session_id,
    tenant,
    theme_id,
    turn_key,
    turn_id,
    cast(choice_index as bigint) as choice_index,
    final_parent_id as parent_node_id,
    root_node_id,
    tree_group,
    up is null as is_root,
    cast(depth as bigint) as depth,
    cast(sibling_index as bigint) as sibling_index,
    branch_kind,
    case when branch_kind <> 'root' or not is_another_root then variant_of_node_id end
        as variant_of_node_id,
    case
        when declared_kind = branch_kind then 'named by the client'
        when sibling_index = 0 and up is null then 'no earlier answer is in its history'
        when sibling_index = 0 then 'the first to go on from its parent'
        when is_another_root then 'another conversation under the same session'
        when differing <> '' then 'differs in ' || differing
        when is_same_turn then 'another choice of the same turn'
        else 'the same request again'
    end as branch_reason,
    case
        when variant_of_node_id is null and declared_config is null then '{}'
        else
            '{' || substr(
                case
                    when variant_of_node_id is not null and differences <> ''
                        then ',' || differences
                    else ''
                end
                || coalesce(',"declared":' || declared_config, ''), 2
            ) || '}'
    end as variant_config,
    final_match as match,
    status as node_status,
    is_replay,
    replay_run_id,
    model,
    system_hash,
    tools_hash,
    request_hash,
    context_snapshot_id,
    response_snapshot_id,
    taskify_rule_version || ':' || plan as taskification_replay_point,
    started_at,
    ended_at,
    unfinished is null as is_complete
from titled
