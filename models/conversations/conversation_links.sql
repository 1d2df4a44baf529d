-- One row per turn and choice, a node of the forest: what places it, and the parent it was given.
--
-- A node is looked at again when it arrives, when a node arrives that may be its parent, and when
-- its parent changes. `fallback_*` is the place it would have without the parent that its client
-- named: `conversation_branch_nodes` needs it where such links close a cycle.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key="branch_node_id",
) }}

{%- set columns = [
    "branch_node_id", "turn_key", "turn_id", "choice_index", "tenant", "session_id", "theme_id",
    "is_replay", "replay_run_id", "parent_turn_id", "context_anchor_turn_id", "branch_kind",
    "variant_config", "model", "parameters", "sampling_hash", "system_hash", "tools_hash",
    "request_hash", "context_snapshot_id", "first_user_hash", "prefix_hashes", "pair_hashes",
    "response_snapshot_id", "post_hashes", "response_pairs", "status", "started_at",
    "attempt_started_at", "ended_at", "prompt_tokens", "completion_tokens", "execution_id",
    "event_key"
] %}

with arrived as (

    {{ chat_choices(
        ref("stg_gateway__chat_requests"),
        newer_than_watermark(ref("stg_gateway__chat_requests"))
    ) }}

),

{% if is_incremental() %}

touched as (

    select branch_node_id
    from arrived
    group by branch_node_id

),

{% endif %}

attempts as (

    select
        {{ columns | join(",\n        ") }}
    from arrived

    {% if is_incremental() %}
    union all

    select
        known.{{ columns | join(",\n        known.") }}
    from {{ this }} as known
    inner join touched on known.branch_node_id = touched.branch_node_id
    {% endif %}

),

ranked as (

    select
        {{ columns | reject("equalto", "started_at") | join(",\n        ") }},
        min(started_at) over (partition by branch_node_id) as started_at,
        row_number() over (
            partition by branch_node_id
            order by
                case status when 'completed' then 0 when 'interrupted' then 1 else 2 end nulls last,
                attempt_started_at nulls last,
                event_key nulls last
        ) as preference
    from attempts

),

fresh as (

    select
        {{ columns | join(",\n        ") }}
    from ranked
    where preference = 1

),

{% if is_incremental() %}

fresh_posts as (

    select
        fresh.tenant,
        post.element as hash
    from fresh, {{ unnest_with_position("fresh.post_hashes", "post") }}
    group by fresh.tenant, post.element

),

fresh_pairs as (

    select
        fresh.tenant,
        fresh.session_id,
        pair.element as hash
    from fresh, {{ unnest_with_position("fresh.response_pairs", "pair") }}
    where fresh.session_id is not null
    group by fresh.tenant, fresh.session_id, pair.element

),

known_prefixes as (

    select
        known.branch_node_id,
        known.tenant,
        prefix.element as hash
    from {{ this }} as known, {{ unnest_with_position("known.prefix_hashes", "prefix") }}

),

known_pairs as (

    select
        known.branch_node_id,
        known.tenant,
        known.session_id,
        pair.element as hash
    from {{ this }} as known, {{ unnest_with_position("known.pair_hashes", "pair") }}

),

-- Known nodes that what arrived may give another parent.
disturbed as (

    select known_prefixes.branch_node_id
    from known_prefixes
    inner join fresh_posts
        on known_prefixes.tenant = fresh_posts.tenant
        and known_prefixes.hash = fresh_posts.hash

    union

    select known_pairs.branch_node_id
    from known_pairs
    inner join fresh_pairs
        on known_pairs.tenant = fresh_pairs.tenant
        and known_pairs.session_id = fresh_pairs.session_id
        and known_pairs.hash = fresh_pairs.hash

    union

    select known.branch_node_id
    from {{ this }} as known
    inner join fresh on known.parent_node_id = fresh.branch_node_id

    union

    select known.branch_node_id
    from {{ this }} as known
    inner join fresh on known.fallback_node_id = fresh.branch_node_id

    union

    select known.branch_node_id
    from {{ this }} as known
    inner join fresh
        on known.tenant = fresh.tenant
        and known.parent_turn_id = fresh.turn_id

),

unchanged as (

    select
        known.{{ columns | join(",\n        known.") }}
    from {{ this }} as known
    left join fresh on known.branch_node_id = fresh.branch_node_id
    where fresh.branch_node_id is null

),

nodes as (

    select * from fresh

    union all

    select * from unchanged

),

to_place as (

    select * from fresh

    union all

    select unchanged.*
    from unchanged
    inner join disturbed on unchanged.branch_node_id = disturbed.branch_node_id

),

{% else %}

nodes as (

    select * from fresh

),

to_place as (

    select * from fresh

),

{% endif %}

wanted_prefixes as (

    select
        to_place.branch_node_id,
        to_place.tenant,
        prefix.element as hash,
        prefix.position as place
    from to_place, {{ unnest_with_position("to_place.prefix_hashes", "prefix") }}

),

offered_posts as (

    select
        nodes.branch_node_id,
        nodes.tenant,
        post.element as hash
    from nodes, {{ unnest_with_position("nodes.post_hashes", "post") }}

),

exact as (

    select
        wanted_prefixes.branch_node_id,
        offered_posts.branch_node_id as candidate_id,
        min(wanted_prefixes.place) as place
    from wanted_prefixes
    inner join offered_posts
        on wanted_prefixes.tenant = offered_posts.tenant
        and wanted_prefixes.hash = offered_posts.hash
    group by wanted_prefixes.branch_node_id, offered_posts.branch_node_id

),

wanted_pairs as (

    select
        to_place.branch_node_id,
        to_place.tenant,
        to_place.session_id,
        pair.element as hash,
        pair.position as place
    from to_place, {{ unnest_with_position("to_place.pair_hashes", "pair") }}
    where to_place.session_id is not null

),

offered_pairs as (

    select
        nodes.branch_node_id,
        nodes.tenant,
        nodes.session_id,
        pair.element as hash
    from nodes, {{ unnest_with_position("nodes.response_pairs", "pair") }}
    where nodes.session_id is not null

),

truncated as (

    select
        wanted_pairs.branch_node_id,
        offered_pairs.branch_node_id as candidate_id,
        min(wanted_pairs.place) as place
    from wanted_pairs
    inner join offered_pairs
        on wanted_pairs.tenant = offered_pairs.tenant
        and wanted_pairs.session_id = offered_pairs.session_id
        and wanted_pairs.hash = offered_pairs.hash
    group by wanted_pairs.branch_node_id, offered_pairs.branch_node_id

),

named as (

    select
        to_place.branch_node_id,
        nodes.branch_node_id as candidate_id,
        min(case when exact.candidate_id is null then 1 else 0 end) as place
    from to_place
    inner join nodes
        on to_place.tenant = nodes.tenant
        and to_place.parent_turn_id = nodes.turn_id
        and to_place.turn_key <> nodes.turn_key
    left join exact
        on to_place.branch_node_id = exact.branch_node_id
        and nodes.branch_node_id = exact.candidate_id
    where exact.candidate_id is not null or nodes.choice_index = 0
    group by to_place.branch_node_id, nodes.branch_node_id

),

candidates as (

    select
        branch_node_id,
        candidate_id,
        'explicit' as match,
        0 as strength,
        place
    from named

    union all

    select
        branch_node_id,
        candidate_id,
        'exact' as match,
        1 as strength,
        place
    from exact

    union all

    select
        branch_node_id,
        candidate_id,
        'truncated' as match,
        2 as strength,
        place
    from truncated

),

ordered as (

    select
        candidates.branch_node_id,
        candidates.candidate_id,
        candidates.match,
        candidates.strength,
        row_number() over (
            partition by candidates.branch_node_id, candidates.strength = 0
            order by
                candidates.strength asc nulls last,
                candidates.place asc nulls last,
                case
                    when not child.is_replay then case when parent.is_replay then 1 else 0 end
                    when parent.is_replay and parent.replay_run_id = child.replay_run_id then 0
                    when parent.is_replay then 2
                    else 1
                end asc nulls last,
                case when parent.session_id = child.session_id then 0 else 1 end asc nulls last,
                case
                    when
                        parent.system_hash = child.system_hash
                        and parent.tools_hash = child.tools_hash
                        then 0
                    else 1
                end asc nulls last,
                case when parent.ended_at <= child.started_at then 0 else 1 end asc nulls last,
                parent.ended_at desc nulls last,
                parent.turn_id asc nulls last,
                parent.choice_index asc nulls last,
                parent.branch_node_id asc nulls last
        ) as preference
    from candidates
    inner join to_place as child on candidates.branch_node_id = child.branch_node_id
    inner join nodes as parent on candidates.candidate_id = parent.branch_node_id
    where
        candidates.strength = 0
        or parent.started_at < child.started_at and parent.turn_key <> child.turn_key

),

by_name as (

    select
        branch_node_id,
        candidate_id
    from ordered
    where preference = 1 and strength = 0

),

by_hash as (

    select
        branch_node_id,
        candidate_id,
        match
    from ordered
    where preference = 1 and strength > 0

)

select
    to_place.{{ columns | join(",\n    to_place.") }},
    coalesce(by_name.candidate_id, by_hash.candidate_id) as parent_node_id,
    case
        when by_name.candidate_id is not null then 'explicit'
        else coalesce(by_hash.match, 'none')
    end as match,
    case when by_name.candidate_id is not null then by_hash.candidate_id end as fallback_node_id,
    case
        when by_name.candidate_id is not null then coalesce(by_hash.match, 'none')
    end as fallback_match
from to_place
left join by_name on to_place.branch_node_id = by_name.branch_node_id
left join by_hash on to_place.branch_node_id = by_hash.branch_node_id
