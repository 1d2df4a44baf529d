-- A row is a node from which the doubling of pointers did not get to a root (forest_doublings).
select branch_node_id
from {{ ref("conversation_branch_nodes") }}
where not is_complete and {{ written_by_this_run(ref("conversation_branch_nodes")) }}
