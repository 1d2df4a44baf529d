-- What each node of the dbt project was when it was last built, or passed: its code, and the commits
-- that it read. `loreline build --changed` leaves out what is still the same.
create table {prefix}operations.built_nodes (
    node text primary key,
    state text not null,
    built_at timestamptz not null default now()
);
