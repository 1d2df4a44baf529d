-- What operating a lakehouse asks for: whether sources are alive, how builds went, how tables are,
-- and what became of input that was set aside.

-- One row per source: when it was last read to its end, whether or not anything of it was new.
create table {prefix}operations.source_loads (
    source text primary key,
    -- Null while no load has come to its end.
    loaded_at timestamptz,
    attempted_at timestamptz not null,
    -- Why the last attempt failed; null where it did not.
    error text
);

-- What is landed already was loaded, if nobody knows when.
insert into {prefix}operations.source_loads (source, loaded_at, attempted_at)
select source, max(last_landed_at), max(last_landed_at)
from {prefix}operations.source_freshness
group by source;

-- The last attempt to land it again, and what came of it.
alter table {prefix}operations.quarantine add column if not exists retried_at timestamptz;
alter table {prefix}operations.quarantine add column if not exists retry_result text;

-- What has left the quarantine, as it was there, and why.
create table {prefix}operations.quarantine_log (
    log_number bigint generated always as identity primary key,
    fingerprint text not null,
    source text not null,
    resource text not null,
    external_id text,
    reason text not null,
    detail text not null,
    payload text,
    payload_uri text,
    origin text not null,
    landed_at timestamptz not null,
    observed_at timestamptz,
    source_updated_at timestamptz,
    -- Landed by a retry; known, where a retry found that it says nothing new; or dropped.
    outcome text not null check (outcome in ('landed', 'known', 'dropped')),
    -- Why it was dropped.
    note text,
    decided_by text not null,
    decided_at timestamptz not null default now(),
    check ((outcome = 'dropped') = (note is not null))
);
create index quarantine_log_by_fingerprint on {prefix}operations.quarantine_log (fingerprint);

-- One row per run of dbt that may write. One without an end is still running, or was killed.
create table {prefix}operations.builds (
    invocation_id text primary key,
    -- build, run, seed or test.
    command text not null,
    -- What was selected, as dbt was told; empty for all.
    selection text not null,
    started_at timestamptz not null default now(),
    ended_at timestamptz,
    nodes bigint,
    -- [{"node", "status", "message"}] of what failed; an empty list where nothing did.
    failures jsonb
);
create index builds_by_start on {prefix}operations.builds (started_at desc);

-- One row per table of the lake, as its metadata last said.
create table {prefix}operations.table_health (
    table_name text primary key,
    measured_at timestamptz not null,
    rows bigint not null,
    data_files bigint not null,
    -- Of which so small that a compaction would join them.
    small_files bigint not null,
    delete_files bigint not null,
    bytes bigint not null,
    snapshots bigint not null,
    -- Of which past their time, so that maintenance would let them go.
    expirable_snapshots bigint not null,
    oldest_snapshot_at timestamptz,
    last_commit_at timestamptz,
    -- Whether maintenance would rewrite files.
    needs_compaction boolean not null
);
