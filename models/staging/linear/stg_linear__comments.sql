-- One row per observed version of a Linear comment, replies included, its payload parsed once.
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
    from {{ source("raw_linear", "comments") }}
    where {{ newer_than_watermark(source("raw_linear", "comments")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as comment_id,
    coalesce(
        {{ json_text("payload", "$.issue.id") }},
        {{ json_text("payload", "$.issueId") }}
    ) as issue_id,
    coalesce(
        {{ json_text("payload", "$.parent.id") }},
        {{ json_text("payload", "$.parentId") }}
    ) as parent_id,
    {{ linear_markdown(json_text("payload", "$.body"), keeps_headings=false) }} as body,
    {{ linear_markdown(json_text("payload", "$.quotedText"), keeps_headings=false) }}
        as quoted_text,
    {{ json_text("payload", "$.user.id") }} as author_id,
    coalesce(
        {{ json_text("payload", "$.user.name") }},
        {{ json_text("payload", "$.user.displayName") }},
        {{ json_text("payload", "$.externalUser.displayName") }},
        {{ json_text("payload", "$.externalUser.name") }},
        {{ json_text("payload", "$.botActor.userDisplayName") }},
        {{ json_text("payload", "$.botActor.name") }}
    ) as author_name,
    coalesce({{ json_text("payload", "$.hideInLinear") }} = 'true', false) as is_hidden,
    {{ iso_to_timestamp(json_text("payload", "$.createdAt")) }} as created_at,
    source_updated_at,
    observed_at,
    landed_at,
    is_deleted
from source
