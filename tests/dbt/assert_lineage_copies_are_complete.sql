-- A row is a table of which Postgres holds another number of rows than the lake.
-- (`loreline contents` compares them row by row, by fingerprints that Postgres computes.)
{{ config(meta={"runs_always": true}) }}
{% set names = [
    "messages", "context_snapshots", "request_attributes", "llm_chat_turns",
    "conversation_branch_nodes",
] %}

with there as (

    {% for name in names %}
    select
        copies.table_name,
        copies.row_count,
        -- What another build adds or changes after this one's push is not there yet.
        count(case when held._batch <= copies.pushed_batch then 1 end) as at_least,
        count(held._batch) as at_most
    from {{ ref("lineage_copies") }} as copies
    left join {{ ref(name) }} as held on copies.table_name = '{{ name }}'
    where copies.table_name = '{{ name }}'
    group by copies.table_name, copies.row_count
    {% if not loop.last %}union all{% endif %}
    {% endfor %}

)

select
    table_name,
    row_count,
    at_least,
    at_most
from there
where row_count not between at_least and at_most
