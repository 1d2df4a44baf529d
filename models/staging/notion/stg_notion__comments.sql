-- One row per observed version of a Notion comment, its payload parsed once.
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
    from {{ source("raw_notion", "comments") }}
    where {{ newer_than_watermark(source("raw_notion", "comments")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as comment_id,
    coalesce(
        {{ json_text("payload", "$.page_id") }},
        {{ json_text("payload", "$.parent.page_id") }}
    ) as page_id,
    {{ json_text("payload", "$.parent.block_id") }} as block_id,
    coalesce({{ json_text("payload", "$.discussion_id") }}, external_id) as discussion_id,
    -- Its rich text is where a paragraph has it.
    {{ notion_markdown(
        "'{\"blocks\": [{\"type\": \"paragraph\", \"paragraph\": ' || payload || '}]}'"
    ) }} as body,
    {{ json_text("payload", "$.created_by.id") }} as author_id,
    {{ json_text("payload", "$.display_name.resolved_name") }} as author_name,
    {{ iso_to_timestamp(json_text("payload", "$.created_time")) }} as created_at,
    source_updated_at,
    observed_at,
    landed_at,
    is_deleted
from source
