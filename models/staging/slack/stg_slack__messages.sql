-- One row per observed version of a Slack message, its payload parsed once.
-- `anchor_day` is the UTC day of the thread's root, or of the message where it is in no thread: the
-- unit in which conversations are put together.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        source_updated_at,
        observed_at,
        landed_at,
        is_deleted,
        _dlt_id,
        _batch
    from {{ source("raw_slack", "messages") }}
    where {{ newer_than_watermark(source("raw_slack", "messages")) }}

),

clean_columns as (

    select
        _dlt_id as raw_dlt_id,
        _batch as raw_batch,
        external_id as message_id,
        substr(external_id, 1, instr(external_id, ':') - 1) as channel_id,
        substr(external_id, instr(external_id, ':') + 1) as ts,
        {{ json_text("payload", "$.thread_ts") }} as thread_ts,
        coalesce(
            {{ json_text("payload", "$.user") }},
            {{ json_text("payload", "$.bot_id") }}
        ) as author_id,
        {{ json_text("payload", "$.username") }} as author_name,
        {{ json_text("payload", "$.subtype") }} as subtype,
        payload as message,
        source_updated_at,
        observed_at,
        landed_at,
        is_deleted
    from source

)

select
    raw_dlt_id,
    raw_batch,
    message_id,
    channel_id,
    ts,
    thread_ts,
    {{ epoch_text_to_timestamp("ts") }} as sent_at,
    {{ day_text(epoch_text_to_timestamp("coalesce(thread_ts, ts)")) }} as anchor_day,
    author_id,
    author_name,
    subtype,
    message,
    regexp_extract_all(message, '(?:<@|"user_id": ?")([A-Z0-9]+)', 1) as mentioned_ids,
    source_updated_at,
    observed_at,
    landed_at,
    is_deleted
from clean_columns
