-- One row per version of a document: a version is added when title, body, deletion or metadata
-- (permissions, container, address, author) differ from the version before.
{{ config(
    materialized="incremental",
    incremental_strategy="append",
    unique_key="document_version_id",
) }}

with changed_comments as (

    select
        page_id,
        _batch
    from {{ ref("notion_comments") }}
    where {{ newer_than_watermark(ref("notion_comments")) }}

),

new_pages as (

    select
        *,
        row_number() over (
            partition by page_id
            order by
                raw_batch desc nulls last,
                observed_at desc nulls last,
                source_updated_at desc nulls last,
                landed_at desc nulls last
        ) as recency
    from {{ ref("stg_notion__pages") }}
    where {{ newer_than_watermark(ref("stg_notion__pages")) }}

),

-- Pages of which nothing but the comments changed.
commented_pages as (

    select
        pages.*,
        changed_comments._batch as commented_batch,
        row_number() over (
            partition by pages.page_id
            order by
                pages.raw_batch desc nulls last,
                pages.observed_at desc nulls last,
                pages.source_updated_at desc nulls last,
                pages.landed_at desc nulls last
        ) as recency
    from {{ ref("stg_notion__pages") }} as pages
    inner join changed_comments on pages.page_id = changed_comments.page_id
    where pages.page_id not in (select new_pages.page_id from new_pages)

),

notion_pages as (

    {% for pages, arrival, condition in [
        ("new_pages", "raw_batch", "true"),
        ("commented_pages", "commented_batch", "recency = 1"),
    ] %}
    {{ "union all" if not loop.first }}

    select
        page_id,
        title,
        body,
        url,
        author_id,
        parent_id,
        created_at,
        source_updated_at,
        observed_at,
        is_deleted,
        raw_dlt_id,
        {{ arrival }} as arrival,
        landed_at,
        recency
    from {{ pages }}
    where {{ condition }}

    {% endfor %}
),

candidates as (

    select
        'notion' as source,
        pages.page_id as external_id,
        pages.title,
        case
            when coalesce(said.comments, '') = '' then pages.body
            else
                coalesce(nullif(pages.body, '') || chr(10) || chr(10), '')
                || '# Comments' || chr(10) || chr(10) || said.comments
        end as body,
        pages.url,
        pages.author_id,
        cast(null as string) as container,
        pages.parent_id as parent_external_id,
        pages.created_at,
        greatest(pages.source_updated_at, said.source_updated_at) as source_updated_at,
        greatest(pages.observed_at, said.observed_at) as observed_at,
        pages.is_deleted,
        'public' as visibility,
        {{ list_of(["'public'"]) }} as allowed_principals,
        'raw_notion.pages' as raw_table,
        pages.raw_dlt_id,
        pages.arrival,
        pages.landed_at
    from notion_pages as pages
    -- What is said now is said of the newest version.
    left join {{ ref("notion_comments") }} as said
        on pages.page_id = said.page_id
        and pages.recency = 1

    union all

    select
        'slack' as source,
        external_id,
        title,
        body,
        url,
        author_id,
        container,
        cast(null as string) as parent_external_id,
        created_at,
        source_updated_at,
        observed_at,
        is_deleted,
        visibility,
        allowed_principals,
        'raw_slack.messages' as raw_table,
        raw_dlt_id,
        _batch as arrival,
        cast(null as timestamp) as landed_at
    from {{ ref("slack_conversations") }}
    where {{ newer_than_watermark(ref("slack_conversations")) }}

    union all

    select
        'google_docs' as source,
        external_id,
        title,
        body,
        url,
        author_id,
        cast(null as string) as container,
        parent_id as parent_external_id,
        created_at,
        source_updated_at,
        observed_at,
        is_deleted,
        visibility,
        allowed_principals,
        'raw_google_docs.documents' as raw_table,
        raw_dlt_id,
        _batch as arrival,
        cast(null as timestamp) as landed_at
    from {{ ref("google_docs_documents") }}
    where {{ newer_than_watermark(ref("google_docs_documents")) }}

    union all

    select
        'linear' as source,
        issue_id as external_id,
        title,
        body,
        url,
        author_id,
        container,
        parent_id as parent_external_id,
        created_at,
        source_updated_at,
        observed_at,
        is_deleted,
        visibility,
        allowed_principals,
        'raw_linear.issues' as raw_table,
        raw_dlt_id,
        _batch as arrival,
        cast(null as timestamp) as landed_at
    from {{ ref("linear_issues") }}
    where {{ newer_than_watermark(ref("linear_issues")) }}

    union all

    select
        'incident_reports' as source,
        incident_id as external_id,
        title,
        body,
        url,
        {{ list_at("authors", 1) }} as author_id,
        cast(null as string) as container,
        cast(null as string) as parent_external_id,
        started_at as created_at,
        source_updated_at,
        observed_at,
        is_deleted,
        'public' as visibility,
        {{ list_of(["'public'"]) }} as allowed_principals,
        'raw_incident_reports.reports' as raw_table,
        raw_dlt_id,
        raw_batch as arrival,
        landed_at
    from {{ ref("stg_incident_reports__reports") }}
    where {{ newer_than_watermark(ref("stg_incident_reports__reports")) }}

    union all

    select
        'log_files' as source,
        external_id,
        title,
        body,
        cast(null as string) as url,
        cast(null as string) as author_id,
        service as container,
        cast(null as string) as parent_external_id,
        window_start as created_at,
        last_at as source_updated_at,
        observed_at,
        is_deleted,
        'public' as visibility,
        {{ list_of(["'public'"]) }} as allowed_principals,
        'raw_log_files.lines' as raw_table,
        raw_dlt_id,
        _batch as arrival,
        cast(null as timestamp) as landed_at
    from {{ ref("log_documents") }}
    where {{ newer_than_watermark(ref("log_documents")) }}

    {% for model in ["stg_github__issues"] %}
    union all

    -- A model that has the columns of a document needs nothing but its name in this list.
    select
        source,
        external_id,
        title,
        body,
        url,
        author_id,
        container,
        parent_external_id,
        created_at,
        source_updated_at,
        observed_at,
        is_deleted,
        visibility,
        allowed_principals,
        raw_table,
        raw_dlt_id,
        raw_batch as arrival,
        landed_at
    from {{ ref(model) }}
    where {{ newer_than_watermark(ref(model)) }}

    {% endfor %}
),

cleaned as (

    select
        source || ':' || external_id as doc_id,
        source,
        external_id,
        coalesce(title, '') as title,
        -- What was deleted keeps its title, for the record, and no text.
        case when is_deleted then '' else coalesce(body, '') end as body,
        url,
        author_id,
        container,
        source || ':' || parent_external_id as parent_doc_id,
        created_at,
        source_updated_at,
        observed_at,
        is_deleted,
        visibility,
        allowed_principals,
        raw_table,
        raw_dlt_id,
        arrival,
        landed_at
    from candidates

),

hashed as (

    select
        cleaned.*,
        {{ sha256_hex("title || chr(31) || body") }} as content_hash,
        {{ sha256_hex(
            "coalesce(url, '') || chr(31) || coalesce(author_id, '') || chr(31)"
            ~ " || coalesce(container, '') || chr(31) || coalesce(parent_doc_id, '') || chr(31)"
            ~ " || " ~ joined_list("allowed_principals", ",")
        ) }} as metadata_hash
    from cleaned

),

{% if is_incremental() %}

touched as (

    select doc_id
    from hashed
    group by doc_id

),

{% endif %}

stored as (

    {% if is_incremental() %}
    select
        known.doc_id,
        known.version_number,
        known.content_hash,
        known.metadata_hash,
        known.is_deleted,
        row_number() over (
            partition by known.doc_id order by known.version_number desc nulls last
        ) as recency
    from {{ this }} as known
    inner join touched on known.doc_id = touched.doc_id
    {% else %}
    select
        cast(null as string) as doc_id,
        cast(0 as bigint) as version_number,
        cast(null as string) as content_hash,
        cast(null as string) as metadata_hash,
        false as is_deleted,
        1 as recency
    {% endif %}

),

compared as (

    select
        hashed.*,
        coalesce(stored.version_number, 0) as last_version_number,
        lag(
            hashed.content_hash || hashed.metadata_hash || cast(hashed.is_deleted as string),
            1,
            stored.content_hash || stored.metadata_hash || cast(stored.is_deleted as string)
        ) over (
            partition by hashed.doc_id
            order by
                hashed.arrival nulls last,
                hashed.observed_at nulls last,
                hashed.source_updated_at nulls last,
                hashed.landed_at nulls last
        ) as state_before
    from hashed
    left join stored
        on hashed.doc_id = stored.doc_id
        and stored.recency = 1

),

changed as (

    select
        *,
        last_version_number + row_number() over (
            partition by doc_id
            order by
                arrival nulls last,
                observed_at nulls last,
                source_updated_at nulls last,
                landed_at nulls last
        ) as version_number
    from compared
    where state_before is distinct from content_hash || metadata_hash || cast(is_deleted as string)

)

select
    {{ sha256_hex(
        "doc_id || chr(31) || cast(version_number as string) || chr(31) || content_hash"
        ~ " || metadata_hash || cast(is_deleted as string)"
    ) }} as document_version_id,
    doc_id,
    source,
    external_id,
    version_number,
    content_hash,
    metadata_hash,
    title,
    body,
    url,
    author_id,
    container,
    parent_doc_id,
    created_at,
    -- Nothing that is asked for by time may be lost because its source tells none.
    coalesce(
        source_updated_at,
        case when version_number = 1 then created_at end,
        observed_at
    ) as source_updated_at,
    observed_at as valid_from,
    is_deleted,
    visibility,
    allowed_principals,
    raw_table,
    raw_dlt_id,
    case source
        when 'github' then {{ var("github_canonicalizer_version") }}
        when 'google_docs' then {{ var("google_docs_canonicalizer_version") }}
        when 'incident_reports' then {{ var("incident_reports_canonicalizer_version") }}
        when 'linear' then {{ var("linear_canonicalizer_version") }}
        when 'log_files' then {{ var("log_files_canonicalizer_version") }}
        when 'notion' then {{ var("notion_canonicalizer_version") }}
        else {{ var("slack_canonicalizer_version") }}
    end as canonicalizer_version
from changed
