-- One row per observed version of a Notion page or database row, its payload parsed once.
-- An export knows less than the API: what the API said before of a page stays where the export does
-- not say it, and its text too where the export says the same.
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

),

read as (

    select
        _dlt_id as raw_dlt_id,
        _batch as raw_batch,
        external_id as page_id,
        case
            when {{ json_text("payload", "$.markdown") }} is null then 'api' else 'export'
        end as route,
        {{ notion_title("payload") }} as title,
        {{ notion_markdown("payload") }} as body,
        {{ json_text("payload", "$.page.url") }} as url,
        {{ json_text("payload", "$.page.created_by.id") }} as author_id,
        {{ json_text("payload", "$.page.parent.type") }} as parent_type,
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

),

exported as (

    select page_id
    from read
    where route = 'export'
    group by page_id

),

-- All that the API said of the pages that an export shows now.
told as (

    select
        read.page_id,
        read.title,
        read.body,
        read.url,
        read.author_id,
        read.parent_type,
        read.parent_id,
        read.created_at,
        read.source_updated_at,
        read.observed_at,
        read.landed_at,
        read.is_deleted
    from read
    inner join exported on read.page_id = exported.page_id
    where read.route = 'api'

    {% if is_incremental() %}

    union all

    select
        known.page_id,
        known.title,
        known.body,
        known.url,
        known.author_id,
        known.parent_type,
        known.parent_id,
        known.created_at,
        known.source_updated_at,
        known.observed_at,
        known.landed_at,
        known.is_deleted
    from {{ this }} as known
    inner join exported on known.page_id = exported.page_id
    where known.route = 'api'

    {% endif %}

),

told_before as (

    select
        read.raw_dlt_id,
        told.title,
        told.body,
        told.url,
        told.author_id,
        told.parent_type,
        told.parent_id,
        told.created_at,
        told.source_updated_at,
        {{ notion_same_text("read.title", "told.title") }}
        and {{ notion_same_text("read.body", "told.body") }} as is_same,
        row_number() over (
            partition by read.raw_dlt_id
            order by
                -- Of a page in the bin the API may tell no text.
                told.is_deleted asc nulls last,
                told.observed_at desc nulls last,
                told.source_updated_at desc nulls last,
                told.landed_at desc nulls last
        ) as recency
    from read
    inner join told
        on read.page_id = told.page_id
        and read.observed_at >= told.observed_at
    where read.route = 'export'

)

select
    read.raw_dlt_id,
    read.raw_batch,
    read.page_id,
    read.route,
    case when told_before.is_same then told_before.title else read.title end as title,
    case when told_before.is_same then told_before.body else read.body end as body,
    case
        when read.route = 'api' then read.url
        else coalesce(told_before.url, 'https://www.notion.so/' || replace(read.page_id, '-', ''))
    end as url,
    coalesce(read.author_id, told_before.author_id) as author_id,
    -- An export knows pages and databases, the API data sources and blocks too; and a page whose
    -- parent was not exported seems to lie nowhere. From page to page, it was moved.
    case
        when told_before.raw_dlt_id is null then read.parent_type
        when read.parent_type = 'page_id' and told_before.parent_type = 'page_id'
            then read.parent_type
        else told_before.parent_type
    end as parent_type,
    case
        when told_before.raw_dlt_id is null then read.parent_id
        when read.parent_type = 'page_id' and told_before.parent_type = 'page_id'
            then read.parent_id
        else told_before.parent_id
    end as parent_id,
    coalesce(read.created_at, told_before.created_at) as created_at,
    -- What says something else was changed since; an export does not tell when.
    coalesce(
        read.source_updated_at, case when told_before.is_same then told_before.source_updated_at end
    ) as source_updated_at,
    read.observed_at,
    read.landed_at,
    read.is_deleted
from read
left join told_before
    on read.raw_dlt_id = told_before.raw_dlt_id
    and told_before.recency = 1
