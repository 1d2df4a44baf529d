-- What a row that is set aside needs to be landed later; unknown of input that could not be read.
alter table {prefix}operations.quarantine add column if not exists observed_at timestamptz;
alter table {prefix}operations.quarantine add column if not exists source_updated_at timestamptz;

-- How many objects complete inputs showed: what a sudden change of volume is measured by. The same
-- input, landed again, counts once.
create table {prefix}operations.load_volumes (
    source text not null,
    resource text not null,
    fingerprint text not null,
    observed bigint not null,
    landed_at timestamptz not null default now(),
    primary key (source, resource, fingerprint)
);

-- What Great Expectations said last of the rows of a raw table, as it writes results.
create table {prefix}operations.contract_results (
    source text not null,
    resource text not null,
    contract_version text not null,
    rows bigint not null,
    success boolean not null,
    result jsonb not null,
    validated_at timestamptz not null default now(),
    primary key (source, resource)
);
