-- One row per message that is, or was, in a Slack document: the document that it is in. A row is
-- written when a message is in another one than before: a run begins earlier, or is a thread now.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="message_id") }}

with placed as (

    select
        conversations.channel_id || ':' || message.element as message_id,
        conversations.external_id,
        row_number() over (
            partition by conversations.channel_id || ':' || message.element
            order by conversations._batch desc nulls last, conversations.external_id desc nulls last
        ) as recency
    from {{ ref("slack_conversations") }} as conversations,
        {{ unnest_with_position("conversations.message_ts", "message") }}
    where
        {{ newer_than_watermark(ref("slack_conversations"), "conversations") }}
        and not conversations.is_deleted

)

select
    placed.message_id,
    placed.external_id
from placed
{% if is_incremental() %}
left join {{ this }} as known on placed.message_id = known.message_id
where
    placed.recency = 1
    and (known.message_id is null or known.external_id <> placed.external_id)
{% else %}
where placed.recency = 1
{% endif %}
