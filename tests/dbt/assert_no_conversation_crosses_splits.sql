-- A row is a tree, a group of near-copies, or a history, of which examples are in several splits.
with placed as (

    {{ dataset_splits_of_examples() }}

),

hanging_together as (

    select
        examples.example_id,
        'tree ' || tree.element as what
    from {{ ref("dataset_examples") }} as examples,
        {{ unnest_with_position("examples.tree_groups", "tree") }}

    union all

    select
        example_id,
        'group ' || split_group as what
    from {{ ref("example_groups") }}

    union all

    select
        example_id,
        'history ' || {{ joined_list("prompt_hashes", " ") }} as what
    from {{ ref("dataset_examples") }}

)

select
    hanging_together.what,
    count(distinct placed.split) as splits
from placed
inner join hanging_together on placed.example_id = hanging_together.example_id
group by hanging_together.what
having count(distinct placed.split) > 1
