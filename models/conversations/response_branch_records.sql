-- One row per response to a context that others may share: comparison groups, in order.
--
-- A group that something new belongs to, or leaves, is put in order anew.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="branch_node_id",
) }}

{%- set columns = [
    "branch_node_id", "execution_id", "tenant", "turn_id", "choice_index", "request_hash",
    "context_snapshot_id", "response_snapshot_id", "context_anchor_turn_id", "model", "is_replay",
    "started_at"
] %}
{%- set response_columns = [
    "branch_node_id", "branch_group_id", "execution_id", "tenant", "turn_id", "choice_index",
    "request_hash", "context_snapshot_id", "response_snapshot_id", "model", "started_at",
    "is_original"
] %}

with moved as (

    select
        {{ columns | join(",\n        ") }}
    from {{ ref("conversation_links") }}
    where {{ newer_than_watermark(ref("conversation_links")) }}

    {% if is_incremental() %}
    union

    -- Whoever names one of these as its anchor belongs to its group.
    select
        links.{{ columns | join(",\n        links.") }}
    from {{ ref("conversation_links") }} as links
    inner join {{ ref("conversation_links") }} as anchors
        on links.tenant = anchors.tenant
        and links.context_anchor_turn_id = anchors.turn_id
    where {{ newer_than_watermark(ref("conversation_links"), "anchors") }}
    {% endif %}

),

wanted_anchors as (

    select
        tenant,
        context_anchor_turn_id as turn_id
    from {{ ref("conversation_links") }}
    where context_anchor_turn_id is not null
    group by tenant, context_anchor_turn_id

),

anchors as (

    select
        links.tenant,
        links.turn_id,
        min(links.request_hash) as request_hash
    from {{ ref("conversation_links") }} as links
    inner join wanted_anchors
        on links.tenant = wanted_anchors.tenant
        and links.turn_id = wanted_anchors.turn_id
    group by links.tenant, links.turn_id

),

placed as (

    select
        moved.*,
        not moved.is_replay as is_original,
        {{ short_hash(
            "moved.tenant || chr(31) || coalesce(anchors.request_hash, moved.request_hash)"
        ) }} as branch_group_id
    from moved
    left join anchors
        on moved.tenant = anchors.tenant
        and moved.context_anchor_turn_id = anchors.turn_id

),

{% if is_incremental() %}

touched as (

    select branch_group_id
    from placed

    union

    select known.branch_group_id
    from {{ this }} as known
    inner join placed on known.branch_node_id = placed.branch_node_id

),

-- Keys first: a planner that expects many matches would read every column for few of them.
others as (

    select known.branch_node_id
    from {{ this }} as known
    inner join touched on known.branch_group_id = touched.branch_group_id
    left join placed on known.branch_node_id = placed.branch_node_id
    where placed.branch_node_id is null
    group by known.branch_node_id

),

{% endif %}

responses as (

    select
        {{ response_columns | join(",\n        ") }}
    from placed
    where response_snapshot_id is not null

    {% if is_incremental() %}
    union all

    select
        known.{{ response_columns | join(",\n        known.") }}
    from {{ this }} as known
    inner join others on known.branch_node_id = others.branch_node_id
    {% endif %}

),

ranked as (

    select
        *,
        row_number() over (
            partition by branch_group_id
            order by
                is_original desc nulls last,
                started_at asc nulls last,
                turn_id asc nulls last,
                choice_index asc nulls last,
                branch_node_id asc nulls last
        ) - 1 as branch_index
    from responses

)

select
    branch_node_id,
    branch_group_id,
    branch_index,
    request_hash,
    execution_id,
    tenant,
    turn_id,
    choice_index,
    context_snapshot_id,
    response_snapshot_id,
    model,
    started_at,
    is_original
from ranked
