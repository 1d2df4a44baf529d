-- What a replay needs of the conversations: copies of tables of the lake, under the same names and
-- with the columns that are needed, pushed with each build.
create schema {prefix}lineage;

-- One row per copy: through which batch of the lake's table it is complete.
create table {prefix}lineage.copies (
    table_name text primary key,
    pushed_batch bigint not null,
    row_count bigint not null
);

create table {prefix}lineage.messages (
    message_hash text primary key,
    role text,
    content text,
    name text,
    tool_calls text,
    tool_call_id text,
    token_count bigint
);

create table {prefix}lineage.context_snapshots (
    context_snapshot_id text primary key,
    parent_snapshot_id text,
    message_hash text,
    depth bigint
);

create table {prefix}lineage.request_attributes (
    tenant text,
    attribute_hash text,
    kind text,
    content text,
    primary key (tenant, attribute_hash)
);

create table {prefix}lineage.llm_chat_turns (
    turn_key text primary key,
    parameters text,
    prompt_tokens bigint,
    completion_tokens bigint
);

create table {prefix}lineage.conversation_branch_nodes (
    branch_node_id text primary key,
    session_id text,
    tenant text,
    theme_id text,
    turn_key text,
    turn_id text,
    parent_node_id text,
    is_root boolean,
    depth bigint,
    sibling_index bigint,
    is_replay boolean,
    model text,
    system_hash text,
    tools_hash text,
    context_snapshot_id text,
    response_snapshot_id text,
    started_at timestamp
);
create index nodes_by_parent on {prefix}lineage.conversation_branch_nodes (parent_node_id);
create index nodes_by_theme on {prefix}lineage.conversation_branch_nodes (theme_id);

-- The messages of a history in their order, without the system's.
create function {prefix}lineage.history(snapshot_id text) returns table (
    depth bigint,
    context_snapshot_id text,
    message_hash text,
    role text,
    content text,
    name text,
    tool_calls text,
    tool_call_id text,
    token_count bigint
)
language sql stable
as $$
with recursive held as (
    select context_snapshot_id, parent_snapshot_id, message_hash, depth
    from {prefix}lineage.context_snapshots
    where context_snapshot_id = snapshot_id
    union all
    select below.context_snapshot_id, below.parent_snapshot_id, below.message_hash, below.depth
    from {prefix}lineage.context_snapshots as below
    inner join held on below.context_snapshot_id = held.parent_snapshot_id
)

select held.depth, held.context_snapshot_id, messages.*
from held
inner join {prefix}lineage.messages as messages on held.message_hash = messages.message_hash
order by held.depth
$$;

-- Calls of replays, each attempt a row: what was answered is not asked, and paid for, again.
create table {prefix}operations.replay_calls (
    call_number bigint generated always as identity primary key,
    call_id text not null,
    attempt integer not null,
    replay_run_id text not null,
    branch_node_id text not null,
    model text not null,
    status text not null check (status in ('completed', 'failed')),
    -- The call as the event that a gateway would have written of it.
    event json not null,
    prompt_tokens bigint,
    completion_tokens bigint,
    -- In the currency of `model_prices`; null where the model has no price.
    cost numeric,
    -- Whether the event is to be landed from here: the endpoint keeps no record of its own.
    is_recorded_here boolean not null,
    called_at timestamptz not null default now(),
    landed_at timestamptz,
    unique (call_id, attempt)
);
create index replay_calls_by_run on {prefix}operations.replay_calls (replay_run_id);
create index replay_calls_to_land
on {prefix}operations.replay_calls (call_number) where is_recorded_here and landed_at is null;
