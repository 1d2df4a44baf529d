-- A row is a cluster that a trajectory is said to be in, and that no clustering has found.
with found as (

    select distinct
        runs.config_hash,
        cluster.element.cluster_id
    from {{ ref("clustering_runs") }} as runs,
        {{ unnest_with_position("runs.clusters", "cluster") }}

)

select
    clusters.config_hash,
    clusters.cluster_id
from {{ ref("trajectory_clusters") }} as clusters
left join found
    on clusters.config_hash = found.config_hash
    and clusters.cluster_id = found.cluster_id
where
    {{ written_by_this_run(ref("trajectory_clusters"), "clusters._batch") }}
    and clusters.cluster_id is not null
    and found.cluster_id is null
