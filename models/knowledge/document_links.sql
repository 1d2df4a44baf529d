-- One row per link of a document version: to its parent, to another document, or out to an address.
{{ config(
    materialized="incremental",
    incremental_strategy="append",
    unique_key=["from_document_version_id", "link_number"],
) }}

with versions as (

    select document_version_id, body, parent_doc_id
    from {{ ref("documents") }}
    where {{ newer_than_watermark(ref("documents")) }} and not is_deleted

),

-- Canonical Markdown's [text](address), images included, and <address>.
addresses as (

    select
        versions.document_version_id,
        link.position as link_number,
        link.element as address
    from versions,
        {{ unnest_with_position(
            "regexp_extract_all(versions.body, " ~ regex("(?:\\]\\(|<)(https?://[^)>\\s]+)") ~ ", 1)",
            "link"
        ) }}

),

parsed as (

    select
        document_version_id,
        link_number,
        address,
        regexp_extract(
            address,
            {{ regex(
                "^https://(?:www\\.|app\\.)?notion\\.(?:so|com)/(?:[^?#]*[-/])?([0-9a-f]{32})"
            ) }},
            1
        ) as notion_id,
        regexp_extract(
            address,
            {{ regex(
                "^https://docs\\.google\\.com/(?:a/[^/]+/)?document/(?:u/[0-9]+/)?d/([A-Za-z0-9_-]{2,})"
            ) }},
            1
        ) as google_docs_id,
        regexp_extract(address, '/archives/([A-Z0-9]+)/p[0-9]{16}', 1) as slack_channel_id,
        regexp_extract(address, '/archives/[A-Z0-9]+/p([0-9]{16})', 1) as slack_ts,
        regexp_extract(address, {{ regex("[?&]thread_ts=([0-9]{10}\\.[0-9]{6})") }}, 1)
            as slack_thread_ts
    from addresses

),

resolved as (

    select
        document_version_id,
        link_number,
        address,
        case
            when notion_id <> ''
                then
                    'notion:' || substr(notion_id, 1, 8) || '-' || substr(notion_id, 9, 4)
                    || '-' || substr(notion_id, 13, 4) || '-' || substr(notion_id, 17, 4)
                    || '-' || substr(notion_id, 21, 12)
            when google_docs_id <> '' then 'google_docs:' || google_docs_id
            when slack_thread_ts <> '' and slack_channel_id <> ''
                then 'slack:' || slack_channel_id || ':' || slack_thread_ts
            when slack_ts <> ''
                then
                    'slack:' || slack_channel_id || ':' || substr(slack_ts, 1, 10)
                    || '.' || substr(slack_ts, 11, 6)
        end as to_doc_id
    from parsed

)

select
    document_version_id as from_document_version_id,
    cast(link_number as bigint) as link_number,
    to_doc_id,
    address as to_url,
    case when to_doc_id is null then 'url' else 'mention' end as kind
from resolved

union all

select
    document_version_id as from_document_version_id,
    cast(0 as bigint) as link_number,
    parent_doc_id as to_doc_id,
    cast(null as string) as to_url,
    'parent' as kind
from versions
where parent_doc_id is not null
