-- A row is a current Slack document that everybody could read although its channel is not public,
-- or is not known.
{{ config(group="knowledge") }}

with channels as (

    select
        channel_id,
        kind,
        row_number() over (
            partition by channel_id order by raw_batch desc nulls last, observed_at desc nulls last
        ) as recency
    from {{ ref("stg_slack__channels") }}
    where {{ read_by(ref("slack_conversations"), ref("stg_slack__channels")) }}

)

select
    documents.doc_id,
    channels.kind,
    documents.allowed_principals
from {{ ref("documents_current") }} as documents
left join channels
    on split_part(documents.external_id, ':', 1) = channels.channel_id
    and channels.recency = 1
where
    documents.source = 'slack'
    and not documents.is_deleted
    and coalesce(channels.kind, 'unknown') <> 'public'
    and list_contains(documents.allowed_principals, 'public')
