-- One row per distinct canonical message, however many histories hold it.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="message_hash") }}

with requests as (

    select new_messages
    from {{ ref("stg_gateway__chat_requests") }}
    where {{ newer_than_watermark(ref("stg_gateway__chat_requests")) }}

),

said as (

    select
        message.element.message_hash,
        min(message.element.role) as role,
        min(message.element.content) as content,
        min(message.element.name) as name,
        min(message.element.tool_calls) as tool_calls,
        min(message.element.tool_call_id) as tool_call_id
    from requests, {{ unnest_with_position("requests.new_messages", "message") }}
    group by message.element.message_hash

)

select
    said.message_hash,
    said.role,
    said.content,
    said.name,
    said.tool_calls,
    said.tool_call_id,
    -- A token of English is four characters long on average; models count differently.
    cast(
        ceil(0.25 * (length(coalesce(said.content, '')) + length(coalesce(said.tool_calls, ''))))
        as bigint
    ) as token_count
from said
{% if is_incremental() %}
left join {{ this }} as known on said.message_hash = known.message_hash
where known.message_hash is null
{% endif %}
