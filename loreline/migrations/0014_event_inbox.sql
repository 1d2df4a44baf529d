-- Where a gateway may insert its events, in any shape that Loreline knows: one, or a list, a row.
-- Transactions end out of order: rows are marked, and no row counts as read because a later one was.
create table {prefix}operations.pipeline_event_inbox (
    id bigint generated always as identity primary key,
    payload jsonb not null,
    created_at timestamptz not null default now(),
    -- When its events were committed to the lake; null while it waits.
    consumed_at timestamptz
);
create index pipeline_event_inbox_waiting
on {prefix}operations.pipeline_event_inbox (id)
where consumed_at is null;
