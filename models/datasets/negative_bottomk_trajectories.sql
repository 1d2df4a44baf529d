-- One row per trajectory not to be learned from: the worst of each type, stratum and tenant.
{{ config(materialized="table") }}

with ranked as (

    select
        scores.*,
        sizes.k,
        row_number() over (
            partition by scores.tenant, scores.negative_type, scores.stratum
            order by scores.score asc nulls last, scores.trajectory_id asc nulls last
        ) as rank_in_stratum
    from {{ ref("trajectory_scores") }} as scores
    inner join {{ ref("selection_sizes") }} as sizes on scores.negative_type = sizes.selection
    where
        scores.score >= coalesce(sizes.lowest_score, scores.score)
        and scores.score <= coalesce(sizes.highest_score, scores.score)

)

select
    trajectory_id,
    tenant,
    theme_id,
    cluster_id,
    stratum,
    negative_type,
    reasons,
    rank_in_stratum,
    score
from ranked
where rank_in_stratum <= k
