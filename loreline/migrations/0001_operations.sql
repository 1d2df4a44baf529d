-- Run records: what was committed where, how far each model has read, what was set aside.
create schema if not exists {prefix}operations;

-- Numbers for the `_batch` column. Taken under the lock of the table that is written, so that within
-- one table they become visible in order.
create sequence {prefix}operations.batch_numbers;

-- One row per Iceberg snapshot that Loreline made.
create table {prefix}operations.commits (
    table_name text not null,
    snapshot_id bigint not null,
    invocation_id text not null,
    model text not null,
    code_version text not null,
    operation text not null,
    batch bigint not null,
    rows bigint not null,
    seconds double precision not null,
    committed_at timestamptz not null default now(),
    primary key (table_name, snapshot_id)
);
create index commits_by_batch on {prefix}operations.commits (table_name, batch desc);

-- How far a model has read an upstream table. `variant` is a configuration hash where a model keeps
-- one slice per configuration, and empty otherwise.
create table {prefix}operations.watermarks (
    model text not null,
    upstream text not null,
    variant text not null default '',
    last_batch bigint not null,
    primary key (model, upstream, variant)
);

-- Input that could not be landed, with the reason. The fingerprint keeps one row per rejected input,
-- however often the same file is read.
create table {prefix}operations.quarantine (
    fingerprint text primary key,
    source text not null,
    resource text not null,
    external_id text,
    reason text not null,
    detail text not null,
    payload text,
    payload_uri text,
    origin text not null,
    landed_at timestamptz not null default now()
);

-- One row per raw table, updated by each load.
create table {prefix}operations.source_freshness (
    source text not null,
    resource text not null,
    last_landed_at timestamptz not null,
    last_source_update timestamptz,
    rows bigint not null default 0,
    tombstones bigint not null default 0,
    primary key (source, resource)
);
