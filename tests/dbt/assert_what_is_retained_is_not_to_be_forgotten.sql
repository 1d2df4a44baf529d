-- A row is a group of near-copies of which one is to be forgotten and another one retained.
select decisions.split_group
from {{ ref("unlearning_dataset") }} as unlearning
inner join {{ ref("example_decisions") }} as decisions
    on unlearning.example_id = decisions.example_id
group by decisions.split_group
having count(distinct unlearning.partition) > 1
