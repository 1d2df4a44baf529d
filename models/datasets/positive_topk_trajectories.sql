-- One row per trajectory worth learning from: the best of each stratum of a tenant.
{{ config(materialized="table") }}

with ranked as (

    select
        scores.*,
        sizes.k,
        row_number() over (
            partition by scores.tenant, scores.stratum
            order by scores.score desc nulls last, scores.trajectory_id asc nulls last
        ) as rank_in_stratum
    from {{ ref("trajectory_scores") }} as scores
    inner join {{ ref("selection_sizes") }} as sizes on sizes.selection = 'positive'
    where
        scores.negative_type is null
        and scores.outcome = 'completed'
        and scores.score >= coalesce(sizes.lowest_score, scores.score)
        and scores.score <= coalesce(sizes.highest_score, scores.score)

)

select
    trajectory_id,
    tenant,
    theme_id,
    cluster_id,
    stratum,
    rank_in_stratum,
    score
from ranked
where rank_in_stratum <= k
