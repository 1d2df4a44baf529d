-- One row per tenant and session: what it held, and how it stands.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["tenant", "session_id"],
) }}

with touched as (

    select
        tenant,
        session_id
    from {{ ref("conversation_branch_nodes") }}
    where {{ newer_than_watermark(ref("conversation_branch_nodes")) }}
    group by tenant, session_id

    {% if is_incremental() %}
    union

    -- A session that no client named is called after its first node: an earlier one renames it.
    select
        known.tenant,
        known.session_id
    from {{ this }} as known
    where known.session_id like 'unnamed:%' and known.status <> 'renamed'
    {% endif %}

),

nodes as (

    select nodes.*
    from {{ ref("conversation_branch_nodes") }} as nodes
    inner join touched
        on nodes.tenant = touched.tenant
        and nodes.session_id = touched.session_id

),

summed as (

    select
        tenant,
        session_id,
        {{ arg_min("theme_id", "case when theme_id is not null then started_at end") }} as theme_id,
        min(started_at) as started_at,
        max(ended_at) as last_turn_at,
        count(distinct turn_key) as turn_count,
        count(*) filter (where branch_kind not in ('root', 'continuation')) as branch_count,
        {{ distinct_list("case when is_root then branch_node_id end") }} as root_node_ids,
        {{ distinct_list("model") }} as models,
        {{ arg_max("node_status", "cast(started_at as string) || branch_node_id") }} as status
    from nodes
    group by tenant, session_id

)

select
    touched.session_id,
    touched.tenant,
    summed.theme_id,
    summed.started_at,
    summed.last_turn_at,
    coalesce(summed.turn_count, 0) as turn_count,
    coalesce(summed.branch_count, 0) as branch_count,
    coalesce(summed.root_node_ids, {{ list_of([]) }}) as root_node_ids,
    coalesce(summed.models, {{ list_of([]) }}) as models,
    coalesce(summed.status, 'renamed') as status
from touched
left join summed
    on touched.tenant = summed.tenant
    and touched.session_id = summed.session_id
