-- A row is an example that is in a dataset against the decision, or is not in it, or elsewhere.
with placed as (

    {{ dataset_splits_of_examples() }}

),

decided as (

    select
        example_id,
        split
    from {{ ref("example_decisions") }}
    where exclusion is null

)

select
    coalesce(decided.example_id, placed.example_id) as example_id,
    decided.split as decided_split,
    placed.split
from decided
full outer join placed on decided.example_id = placed.example_id
where
    decided.example_id is null
    or placed.example_id is null
    or decided.split <> placed.split
