-- One row per distinct history of messages: the history before its last message, and that message.
{{ config(
    materialized="incremental",
    incremental_strategy="append",
    unique_key="context_snapshot_id",
) }}

with requests as (

    select new_snapshots
    from {{ ref("stg_gateway__chat_requests") }}
    where {{ newer_than_watermark(ref("stg_gateway__chat_requests")) }}

),

seen as (

    select
        snapshot.element.context_snapshot_id,
        min(snapshot.element.parent_snapshot_id) as parent_snapshot_id,
        min(snapshot.element.message_hash) as message_hash,
        min(snapshot.element.depth) as depth
    from requests, {{ unnest_with_position("requests.new_snapshots", "snapshot") }}
    group by snapshot.element.context_snapshot_id

)

select
    seen.context_snapshot_id,
    seen.parent_snapshot_id,
    seen.message_hash,
    seen.depth
from seen
{% if is_incremental() %}
left join {{ this }} as known on seen.context_snapshot_id = known.context_snapshot_id
where known.context_snapshot_id is null
{% endif %}
