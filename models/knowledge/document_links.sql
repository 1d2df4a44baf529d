-- One row per link of a document version: to its parent, to another document, or out to an address.
-- What names an issue or a Slack message is kept by that name, and leads to the issue as soon as
-- there is one, and to the document that the message is in.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["from_document_version_id", "link_number"],
) }}

with versions as (

    select
        document_version_id,
        body,
        parent_doc_id,
        case
            when source = 'linear'
                then
                    regexp_extract(
                        body, {{ regex("^- \\*\\*Issue:\\*\\* [^\\n]*(?:\\n- \\*\\*[^\\n]*)*") }}, 0
                    )
            else ''
        end as fields
    from {{ ref("documents") }}
    where {{ newer_than_watermark(ref("documents")) }} and not is_deleted

),

with_relations as (

    select
        document_version_id,
        body,
        fields,
        regexp_extract(
            fields,
            {{ regex(
                "(?:\\n- \\*\\*(?:Blocks|Blocked by|Duplicate of|Duplicated by|Related to|Similar to)"
                ~ ":\\*\\* [^\\n]*)+$"
            ) }},
            0
        ) as relations
    from versions

),

-- What the fields of an issue name (their own issue, labels, …), its relations, and any text.
parts as (

    select
        document_version_id,
        'fields' as part,
        substr(fields, 1, length(fields) - length(relations)) as text
    from with_relations
    where fields <> ''

    union all

    select
        document_version_id,
        'relations' as part,
        relations as text
    from with_relations
    where relations <> ''

    union all

    select
        document_version_id,
        'text' as part,
        substr(body, length(fields) + 1) as text
    from with_relations

),

-- Canonical Markdown's [text](address), images included, and <address>; addresses as they are; and
-- what an issue may be called.
matches as (

    select
        parts.document_version_id,
        parts.part,
        row_number() over (
            partition by parts.document_version_id
            order by parts.part asc nulls last, link.position asc nulls last
        ) as link_number,
        link.element as written
    from parts,
        {{ unnest_with_position(
            "regexp_extract_all(parts.text, "
            ~ regex(
                "(?:\\]\\(|<)https?://[^)>\\s]+|https?://[^)>\\s]+"
                ~ "|\\b[A-Z][A-Z0-9]{0,9}-[1-9][0-9]{0,6}\\b"
            )
            ~ ", 0)",
            "link"
        ) }}

),

addresses as (

    select
        document_version_id,
        part,
        link_number,
        case
            when substr(written, 1, 2) = '](' then substr(written, 3)
            when substr(written, 1, 1) = '<' then substr(written, 2)
            when substr(written, 1, 19) = 'https://linear.app/' then written
        end as address,
        case
            when substr(written, 1, 1) not in (']', '<', 'h') and part <> 'fields' then written
        end as identifier
    from matches

),

parsed as (

    select
        document_version_id,
        part,
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
        -- Of a reply the root: its thread is a document also where the reply is not known.
        regexp_extract(address, {{ regex("[?&]thread_ts=([0-9]{10}\\.[0-9]{6})") }}, 1)
            as slack_thread_ts,
        coalesce(
            identifier,
            nullif(
                upper(
                    regexp_extract(
                        address,
                        {{ regex(
                            "^https://linear\\.app/[^/?#]+/issue/([A-Za-z][A-Za-z0-9]*-[0-9]+)"
                        ) }},
                        1
                    )
                ),
                ''
            )
        ) as linear_identifier
    from addresses
    where address is not null or identifier is not null

),

resolved as (

    select
        document_version_id,
        part,
        link_number,
        address,
        case
            when linear_identifier is not null then linear_identifier
            when slack_channel_id = '' then cast(null as string)
            when slack_thread_ts <> '' then slack_channel_id || ':' || slack_thread_ts
            else
                slack_channel_id || ':' || substr(slack_ts, 1, 10) || '.' || substr(slack_ts, 11, 6)
        end as to_identifier,
        case
            when notion_id <> ''
                then
                    'notion:' || substr(notion_id, 1, 8) || '-' || substr(notion_id, 9, 4)
                    || '-' || substr(notion_id, 13, 4) || '-' || substr(notion_id, 17, 4)
                    || '-' || substr(notion_id, 21, 12)
            when google_docs_id <> '' then 'google_docs:' || google_docs_id
        end as to_doc_id
    from parsed

),

written as (

    select
        document_version_id as from_document_version_id,
        link_number,
        to_doc_id,
        to_identifier,
        address as to_url,
        part = 'relations' as is_relation
    from resolved

    {% if is_incremental() %}
    -- Links from before to what is there, called so, or in another document only now.
    {% for places, name in [
        (ref("linear_identifiers"), "identifier"), (ref("slack_message_places"), "message_id")
    ] %}
    union all

    select
        known.from_document_version_id,
        known.link_number,
        cast(null as string) as to_doc_id,
        known.to_identifier,
        known.to_url,
        known.kind = 'relation' as is_relation
    from {{ this }} as known
    inner join {{ places }} as named on known.to_identifier = named.{{ name }}
    left join versions on known.from_document_version_id = versions.document_version_id
    where
        {{ newer_than_watermark(places, "named") }}
        and versions.document_version_id is null
    {% endfor %}
    {% endif %}

),

led as (

    select
        written.from_document_version_id,
        written.link_number,
        coalesce(
            written.to_doc_id,
            'linear:' || identifiers.issue_id,
            'slack:' || places.external_id,
            -- Of a message that is not known: the document would be called so if it began with it.
            case when written.to_identifier like '%:%' then 'slack:' || written.to_identifier end
        ) as to_doc_id,
        written.to_identifier,
        written.to_url,
        written.is_relation
    from written
    left join {{ ref("linear_identifiers") }} as identifiers
        on written.to_identifier = identifiers.identifier
    left join {{ ref("slack_message_places") }} as places
        on written.to_identifier = places.message_id

)

select
    from_document_version_id,
    cast(link_number as bigint) as link_number,
    to_doc_id,
    to_identifier,
    to_url,
    case
        when is_relation and to_identifier is not null then 'relation'
        when to_doc_id is not null then 'mention'
        when to_url is not null then 'url'
        else 'identifier'
    end as kind
from led

union all

select
    document_version_id as from_document_version_id,
    cast(0 as bigint) as link_number,
    parent_doc_id as to_doc_id,
    cast(null as string) as to_identifier,
    cast(null as string) as to_url,
    'parent' as kind
from versions
where parent_doc_id is not null
