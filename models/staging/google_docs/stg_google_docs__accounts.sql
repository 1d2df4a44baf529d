-- One row per observed version of a file's metadata and account that it names: who owns the file,
-- changed it last, or may read it.
{{ config(
    materialized="incremental",
    incremental_strategy="append",
    unique_key=["raw_dlt_id", "email"],
) }}

with source as (

    select
        {{ raw_payload("payload", "raw_object_uri") }} as payload,
        _dlt_id,
        _batch
    from {{ source("raw_google_docs", "files") }}
    where {{ newer_than_watermark(source("raw_google_docs", "files")) }}

),

named as (

    select
        source._dlt_id as raw_dlt_id,
        source._batch as raw_batch,
        {{ json_text("owner.element", "$.emailAddress") }} as email,
        {{ json_text("owner.element", "$.displayName") }} as name,
        cast(null as string) as deleted
    from source,
        {{ unnest_with_position(json_list("source.payload", "$.owners"), "owner") }}

    union all

    select
        source._dlt_id as raw_dlt_id,
        source._batch as raw_batch,
        {{ json_text("permission.element", "$.emailAddress") }} as email,
        {{ json_text("permission.element", "$.displayName") }} as name,
        {{ json_text("permission.element", "$.deleted") }} as deleted
    from source,
        {{ unnest_with_position(json_list("source.payload", "$.permissions"), "permission") }}

    union all

    select
        source._dlt_id as raw_dlt_id,
        source._batch as raw_batch,
        {{ json_text("source.payload", "$.lastModifyingUser.emailAddress") }} as email,
        {{ json_text("source.payload", "$.lastModifyingUser.displayName") }} as name,
        cast(null as string) as deleted
    from source

)

select
    raw_dlt_id,
    raw_batch,
    lower(email) as email,
    max(name) as name,
    max(case when deleted = 'true' then 1 else 0 end) = 1 as is_deleted
from named
where email <> ''
group by raw_dlt_id, raw_batch, lower(email)
