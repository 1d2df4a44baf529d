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
    "request_hash", "context_snapshot_id", "first_user_hash", "prompt_hash", "prefix_hashes",
    "pair_hashes", "response_snapshot_id", "post_hashes", "response_pairs", "status", "started_at",
    "attempt_started_at", "ended_at", "prompt_tokens", "completion_tokens", "execution_id",
    "event_at", "event_key"
] %}
{#- What is asked of a node as a possible parent. -#}
{%- set parent_columns = [
    "branch_node_id", "turn_key", "turn_id", "choice_index", "tenant", "session_id", "is_replay",
    "replay_run_id", "system_hash", "tools_hash", "post_hashes", "response_pairs", "started_at",
    "ended_at"
] %}

with arrived as (

    {{ chat_choices(
        ref("stg_gateway__chat_requests"),
        newer_than_watermark(ref("stg_gateway__chat_requests"))
    ) }}

),

{% if is_incremental() %}

-- Keys first: what arrives is mostly new, and then no other column of the table is read.
touched as (

    select known.branch_node_id
    from {{ this }} as known
    inner join arrived on known.branch_node_id = arrived.branch_node_id
    group by known.branch_node_id

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
    left join arrived
        on known.branch_node_id = arrived.branch_node_id
        and known.event_key = arrived.event_key
    where arrived.event_key is null
    {% endif %}

),

-- Which attempt tells of a node, by its first record, and when its first one began.
chosen as (

    select
        branch_node_id,
        min(started_at) as started_at,
        {{ arg_min(
            "event_key",
            "cast(" ~ attempt_rank("status") ~ " as string) || ' '"
            ~ " || cast(attempt_started_at as string) || ' '"
            ~ " || coalesce(cast(event_at as string), '~') || ' ' || event_key"
        ) }} as event_key
    from attempts
    group by branch_node_id

),

fresh as (

    select
        attempts.{{ columns | reject("equalto", "started_at") | join(",\n        attempts.") }},
        chosen.started_at
    from attempts
    inner join chosen
        on attempts.branch_node_id = chosen.branch_node_id
        and attempts.event_key = chosen.event_key

),

{% if is_incremental() %}

-- What is looked for in the whole table is made a set of keys first: a planner that expects few
-- matches reads the wide columns of the table for these alone.
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
    group by fresh.tenant, fresh.session_id, pair.element

),

fresh_sessions as (

    select
        tenant,
        session_id
    from fresh
    group by tenant, session_id

),

fresh_turns as (

    select
        tenant,
        turn_id
    from fresh
    group by tenant, turn_id

),

known_prefixes as (

    select
        known.branch_node_id,
        known.tenant,
        prefix.element as hash
    from {{ this }} as known, {{ unnest_with_position("known.prefix_hashes", "prefix") }}

),

known_sessions as (

    select
        known.branch_node_id,
        known.tenant,
        known.session_id,
        known.pair_hashes
    from {{ this }} as known
    inner join fresh_sessions
        on known.tenant = fresh_sessions.tenant
        and known.session_id = fresh_sessions.session_id

),

known_pairs as (

    select
        known_sessions.branch_node_id,
        known_sessions.tenant,
        known_sessions.session_id,
        pair.element as hash
    from known_sessions, {{ unnest_with_position("known_sessions.pair_hashes", "pair") }}

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
    inner join touched on known.parent_node_id = touched.branch_node_id

    union

    select known.branch_node_id
    from {{ this }} as known
    inner join touched on known.fallback_node_id = touched.branch_node_id

    union

    select known.branch_node_id
    from {{ this }} as known
    inner join fresh_turns
        on known.tenant = fresh_turns.tenant
        and known.parent_turn_id = fresh_turns.turn_id

),

to_place as (

    select
        {{ columns | join(",\n        ") }}
    from fresh

    union all

    select
        known.{{ columns | join(",\n        known.") }}
    from {{ this }} as known
    inner join disturbed on known.branch_node_id = disturbed.branch_node_id
    left join fresh on known.branch_node_id = fresh.branch_node_id
    where fresh.branch_node_id is null

),

{% else %}

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

{% if is_incremental() %}

wanted_hashes as (

    select
        tenant,
        hash
    from wanted_prefixes
    group by tenant, hash

),

wanted_turns as (

    select
        tenant,
        parent_turn_id as turn_id
    from to_place
    group by tenant, parent_turn_id

),

placed_sessions as (

    select
        tenant,
        session_id
    from to_place
    group by tenant, session_id

),

known_posts as (

    select
        known.branch_node_id,
        known.tenant,
        post.element as hash
    from {{ this }} as known, {{ unnest_with_position("known.post_hashes", "post") }}

),

-- Known nodes that may be the parent of one of these.
offered as (

    select known_posts.branch_node_id
    from known_posts
    inner join wanted_hashes
        on known_posts.tenant = wanted_hashes.tenant
        and known_posts.hash = wanted_hashes.hash

    union

    select known.branch_node_id
    from {{ this }} as known
    inner join placed_sessions
        on known.tenant = placed_sessions.tenant
        and known.session_id = placed_sessions.session_id

    union

    select known.branch_node_id
    from {{ this }} as known
    inner join wanted_turns
        on known.tenant = wanted_turns.tenant
        and known.turn_id = wanted_turns.turn_id

),

{% endif %}

nodes as (

    select
        {{ parent_columns | join(",\n        ") }}
    from fresh

    {% if is_incremental() %}
    union all

    select
        known.{{ parent_columns | join(",\n        known.") }}
    from {{ this }} as known
    inner join offered on known.branch_node_id = offered.branch_node_id
    left join fresh on known.branch_node_id = fresh.branch_node_id
    where fresh.branch_node_id is null
    {% endif %}

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

by_hash as (

    {{ best_parents("exact", "child.started_at > parent.started_at") }}

),

unplaced as (

    select
        to_place.branch_node_id,
        to_place.tenant,
        to_place.session_id,
        to_place.pair_hashes
    from to_place
    left join by_hash on to_place.branch_node_id = by_hash.branch_node_id
    where to_place.session_id is not null and by_hash.branch_node_id is null

),

wanted_pairs as (

    select
        unplaced.branch_node_id,
        unplaced.tenant,
        unplaced.session_id,
        pair.element as hash,
        pair.position as place
    from unplaced, {{ unnest_with_position("unplaced.pair_hashes", "pair") }}

),

offered_pairs as (

    select
        nodes.branch_node_id,
        nodes.tenant,
        nodes.session_id,
        pair.element as hash
    from nodes, {{ unnest_with_position("nodes.response_pairs", "pair") }}

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

by_pair as (

    {{ best_parents("truncated", "child.started_at > parent.started_at") }}

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

by_name as (

    {{ best_parents("named", "true") }}

)

select
    to_place.{{ columns | join(",\n    to_place.") }},
    coalesce(by_name.parent_id, by_hash.parent_id, by_pair.parent_id) as parent_node_id,
    case
        when by_name.parent_id is not null then 'explicit'
        when by_hash.parent_id is not null then 'exact'
        when by_pair.parent_id is not null then 'truncated'
        else 'none'
    end as match,
    case
        when by_name.parent_id is not null then coalesce(by_hash.parent_id, by_pair.parent_id)
    end as fallback_node_id,
    case
        when by_name.parent_id is null then null
        when by_hash.parent_id is not null then 'exact'
        when by_pair.parent_id is not null then 'truncated'
        else 'none'
    end as fallback_match
from to_place
left join by_name on to_place.branch_node_id = by_name.branch_node_id
left join by_hash on to_place.branch_node_id = by_hash.branch_node_id
left join by_pair on to_place.branch_node_id = by_pair.branch_node_id
