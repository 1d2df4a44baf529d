-- A row is a current Linear document that everybody could read although its team is not public, or
-- is not known.
{{ config(group="knowledge") }}

with issues as (

    select
        issue_id,
        team_id,
        row_number() over (
            partition by issue_id order by raw_batch desc nulls last, landed_at desc nulls last
        ) as recency
    from {{ ref("stg_linear__issues") }}
    where {{ read_by(ref("linear_issues"), ref("stg_linear__issues")) }}

),

teams as (

    select
        team_id,
        is_private,
        row_number() over (
            partition by team_id order by raw_batch desc nulls last, landed_at desc nulls last
        ) as recency
    from {{ ref("stg_linear__teams") }}
    where {{ read_by(ref("linear_issues"), ref("stg_linear__teams")) }}

)

select
    documents.doc_id,
    issues.team_id,
    documents.allowed_principals
from {{ ref("documents_current") }} as documents
left join issues
    on documents.external_id = issues.issue_id
    and issues.recency = 1
left join teams
    on issues.team_id = teams.team_id
    and teams.recency = 1
where
    documents.source = 'linear'
    and not documents.is_deleted
    and coalesce(teams.is_private, true)
    and list_contains(documents.allowed_principals, 'public')
