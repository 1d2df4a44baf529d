-- Inputs that were landed to their end: the same bytes, observed at the same time, are not read
-- again. What the load said of them is kept, to be said again.
create table {prefix}operations.landed_inputs (
    source text not null,
    fingerprint text not null,
    objects bigint not null,
    quarantined jsonb not null,
    landed_at timestamptz not null default now(),
    primary key (source, fingerprint)
);
