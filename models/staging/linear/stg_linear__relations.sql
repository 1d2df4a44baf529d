-- One row per observed version of a relation between two Linear issues, its payload parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

with source as (

    select
        external_id,
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        observed_at,
        landed_at,
        is_deleted,
        _dlt_id,
        _batch
    from {{ source("raw_linear", "relations") }}
    where {{ newer_than_watermark(source("raw_linear", "relations")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as relation_id,
    {{ json_text("payload", "$.issue.id") }} as issue_id,
    {{ json_text("payload", "$.relatedIssue.id") }} as related_issue_id,
    {{ json_text("payload", "$.issue.identifier") }} as identifier,
    {{ json_text("payload", "$.relatedIssue.identifier") }} as related_identifier,
    {{ json_text("payload", "$.type") }} as relation_type,
    observed_at,
    landed_at,
    is_deleted
from source
