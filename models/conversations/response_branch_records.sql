-- One row per response to a context that others may share: comparison groups, in order.
--
-- A group that something new belongs to, or leaves, is put in order anew.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="branch_node_id",
) }}

with wanted_anchors as (

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

responses as (

    select
        links.branch_node_id,
        links.execution_id,
        links.tenant,
        links.turn_id,
        links.choice_index,
        links.request_hash,
        links.context_snapshot_id,
        links.response_snapshot_id,
        links.context_anchor_turn_id,
        links.model,
        not links.is_replay as is_original,
        links.started_at,
        {{ short_hash(
            "links.tenant || chr(31) || coalesce(anchors.request_hash, links.request_hash)"
        ) }} as branch_group_id
    from {{ ref("conversation_links") }} as links
    left join anchors
        on links.tenant = anchors.tenant
        and links.context_anchor_turn_id = anchors.turn_id
    where links.response_snapshot_id is not null

),

{% if is_incremental() %}

changed as (

    select
        branch_node_id,
        tenant,
        turn_id
    from {{ ref("conversation_links") }}
    where {{ newer_than_watermark(ref("conversation_links")) }}

),

-- Whoever names one of these as its anchor belongs to its group.
moved as (

    select responses.branch_node_id
    from responses
    inner join changed
        on responses.tenant = changed.tenant
        and responses.context_anchor_turn_id = changed.turn_id

    union

    select branch_node_id
    from changed

),

touched as (

    select responses.branch_group_id
    from responses
    inner join moved on responses.branch_node_id = moved.branch_node_id

    union

    select known.branch_group_id
    from {{ this }} as known
    inner join moved on known.branch_node_id = moved.branch_node_id

),

{% endif %}

ranked as (

    select
        responses.*,
        row_number() over (
            partition by responses.branch_group_id
            order by
                case when responses.is_original then 0 else 1 end nulls last,
                responses.started_at nulls last,
                responses.turn_id nulls last,
                responses.choice_index nulls last,
                responses.branch_node_id nulls last
        ) - 1 as branch_index
    from responses
    {% if is_incremental() %}
    inner join touched on responses.branch_group_id = touched.branch_group_id
    {% endif %}

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
    is_original
from ranked
