-- How far each source was read through its API: what is newer is asked for next time. A cursor is
-- written after the rows that it speaks of are committed.
create table {prefix}operations.source_cursors (
    source text not null,
    name text not null,
    value jsonb not null,
    saved_at timestamptz not null default now(),
    primary key (source, name)
);
