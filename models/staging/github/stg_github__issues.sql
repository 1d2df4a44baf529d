-- One row per observed version of a GitHub issue as a document: its fields and text, then its
-- comments.
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
    from {{ source("raw_github", "issues") }}
    where {{ newer_than_watermark(source("raw_github", "issues")) }}

),

clean_columns as (

    select
        _dlt_id as raw_dlt_id,
        _batch as raw_batch,
        external_id,
        {{ json_text("payload", "$.repository.full_name") }} as repository,
        {{ json_text("payload", "$.repository.private") }} = 'true' as is_private,
        {{ json_text("payload", "$.issue.number") }} as number,
        {{ json_text("payload", "$.issue.title") }} as title,
        {{ json_text("payload", "$.issue.state") }} as status,
        {{ json_text("payload", "$.issue.html_url") }} as url,
        {{ json_text("payload", "$.issue.user.login") }} as author_id,
        {{ json_text("payload", "$.issue.milestone.title") }} as milestone,
        {{ json_field_list("payload", "$.issue.labels", "$.name") }} as labels,
        {{ json_field_list("payload", "$.issue.assignees", "$.login") }} as assignees,
        {{ canonical_text("coalesce(" ~ json_text("payload", "$.issue.body") ~ ", '')") }}
            as description,
        {{ json_list("payload", "$.comments") }} as comments,
        {{ iso_to_timestamp(json_text("payload", "$.issue.created_at")) }} as created_at,
        source_updated_at,
        observed_at,
        landed_at,
        is_deleted
    from source

),

spoken as (

    select
        clean_columns.raw_dlt_id,
        comment.position as place,
        '**' || coalesce({{ json_text("comment.element", "$.user.login") }}, 'somebody')
        || coalesce(
            ', '
            || {{ minute_text(iso_to_timestamp(json_text("comment.element", "$.created_at"))) }},
            ''
        )
        || ':**' || chr(10) || chr(10)
        || {{ canonical_text("coalesce(" ~ json_text("comment.element", "$.body") ~ ", '')") }}
            as text
    from clean_columns,
        {{ unnest_with_position("clean_columns.comments", "comment") }}

),

conversations as (

    select
        raw_dlt_id,
        {{ ordered_string_agg("text", "\n\n", "place") }} as conversation
    from spoken
    group by raw_dlt_id

)

select
    issues.raw_dlt_id,
    issues.raw_batch,
    issues.landed_at,
    'github' as source,
    issues.external_id,
    issues.repository || '#' || issues.number || coalesce(': ' || issues.title, '') as title,
    '- **Issue:** ' || issues.repository || '#' || issues.number
    || coalesce(chr(10) || '- **Status:** ' || issues.status, '')
    || coalesce(
        chr(10) || '- **Labels:** ' || nullif({{ joined_list("issues.labels", ", ") }}, ''), ''
    )
    || coalesce(
        chr(10) || '- **Assignees:** ' || nullif({{ joined_list("issues.assignees", ", ") }}, ''),
        ''
    )
    || coalesce(chr(10) || '- **Milestone:** ' || issues.milestone, '')
    || coalesce(chr(10) || chr(10) || nullif(issues.description, ''), '')
    || coalesce(
        chr(10) || chr(10) || '# Comments' || chr(10) || chr(10) || conversations.conversation, ''
    ) as body,
    issues.url,
    issues.author_id,
    issues.repository as container,
    cast(null as string) as parent_external_id,
    issues.created_at,
    issues.source_updated_at,
    issues.observed_at,
    issues.is_deleted,
    -- Who may read a private repository is not asked: whoever is to find its issues is given the
    -- principal of the repository.
    case when issues.is_private then 'private' else 'public' end as visibility,
    case
        when issues.is_private then {{ list_of(["'github:' || issues.repository"]) }}
        else {{ list_of(["'public'"]) }}
    end as allowed_principals,
    'raw_github.issues' as raw_table
from clean_columns as issues
left join conversations on issues.raw_dlt_id = conversations.raw_dlt_id
