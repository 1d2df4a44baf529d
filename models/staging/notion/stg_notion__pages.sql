-- One row per observed version of a Notion page or database row, its payload parsed once.
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
    from {{ source("raw_notion", "pages") }}
    where {{ newer_than_watermark(source("raw_notion", "pages")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as page_id,
    {{ notion_title("payload") }} as title,
    {{ notion_markdown("payload") }} as body,
    {{ json_text("payload", "$.page.url") }} as url,
    {{ json_text("payload", "$.page.created_by.id") }} as author_id,
    coalesce(
        {{ json_text("payload", "$.page.parent.page_id") }},
        {{ json_text("payload", "$.page.parent.data_source_id") }},
        {{ json_text("payload", "$.page.parent.database_id") }}
    ) as parent_id,
    {{ iso_to_timestamp(json_text("payload", "$.page.created_time")) }} as created_at,
    source_updated_at,
    observed_at,
    landed_at,
    is_deleted
from source
