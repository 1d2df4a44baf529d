-- A row is a node whose parent is no node, has begun later without being named, or lies elsewhere.
select nodes.branch_node_id
from {{ ref("conversation_branch_nodes") }} as nodes
left join {{ ref("conversation_branch_nodes") }} as parents
    on nodes.parent_node_id = parents.branch_node_id
where
    nodes.parent_node_id is not null
    and {{ written_by_this_run(ref("conversation_branch_nodes"), "nodes._batch") }}
    and (
        parents.branch_node_id is null
        or parents.tenant <> nodes.tenant
        or parents.depth + 1 <> nodes.depth
        or parents.root_node_id <> nodes.root_node_id
        or (nodes.match <> 'explicit' and parents.started_at >= nodes.started_at)
    )
