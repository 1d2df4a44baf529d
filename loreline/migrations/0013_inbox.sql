-- What was delivered to the webhooks, as it was received. A delivery is stored before it is answered,
-- and worked on after that: state waiting, then done, or parked when it failed too often.
create table {prefix}operations.inbox (
    number bigint generated always as identity primary key,
    source text not null,
    -- As the sender numbers it, so that what is delivered again is known.
    delivery_id text not null,
    received_at timestamptz not null default now(),
    body bytea not null,
    -- The objects that it is about, as the source's `fetch_named` takes them.
    names text[] not null,
    state text not null default 'waiting'
        check (state in ('waiting', 'done', 'parked', 'dropped')),
    attempts integer not null default 0,
    next_attempt_at timestamptz not null default now(),
    -- Why the last attempt failed.
    error text,
    finished_at timestamptz,
    unique (source, delivery_id)
);
create index inbox_open on {prefix}operations.inbox (source, state, next_attempt_at)
where state in ('waiting', 'parked');
create index inbox_finished on {prefix}operations.inbox (finished_at)
where state in ('done', 'dropped');

-- What Notion sends first to a new webhook, for the operator to give back to it.
create table {prefix}operations.verification_tokens (
    source text not null,
    token text not null,
    received_at timestamptz not null default now(),
    primary key (source, token)
);
