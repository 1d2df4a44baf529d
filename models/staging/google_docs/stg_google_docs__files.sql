-- One row per observed version of a file's metadata, its payload parsed once, and who may read it.
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
    from {{ source("raw_google_docs", "files") }}
    where {{ newer_than_watermark(source("raw_google_docs", "files")) }}

),

permissions as (

    select
        source._dlt_id as raw_dlt_id,
        {{ json_text("permission.element", "$.type") }} as kind,
        lower({{ json_text("permission.element", "$.emailAddress") }}) as email,
        lower({{ json_text("permission.element", "$.domain") }}) as domain,
        {{ json_text("permission.element", "$.view") }} as view_name,
        {{ json_text("permission.element", "$.deleted") }} as deleted,
        {{ json_text("source.payload", "$.trashed") }} as trashed,
        {{ json_text("permission.element", "$.expirationTime") }} as expiration,
        {{ iso_to_timestamp(json_text("permission.element", "$.expirationTime")) }} as expires_at,
        source.observed_at
    from source,
        {{ unnest_with_position(json_list("source.payload", "$.permissions"), "permission") }}

),

-- A permission of the view `metadata` shows that there is a file, not what is in it. What does not
-- say that it holds, in words that are known, does not.
readers as (

    select
        raw_dlt_id,
        case
            when kind = 'anyone' then 'public'
            when kind = 'domain' then 'domain:' || domain
            when kind in ('user', 'group') then 'google_docs:' || email
        end as principal
    from permissions
    where
        coalesce(trashed, 'false') in ('false', 'true')
        and coalesce(deleted, 'false') = 'false'
        and coalesce(view_name, 'published') = 'published'
        and (expiration is null or expires_at > observed_at)

),

-- Where permissions are not told, nothing is known but who owns the file.
owners as (

    select
        source._dlt_id as raw_dlt_id,
        'google_docs:' || lower({{ json_text("owner.element", "$.emailAddress") }}) as principal
    from source,
        {{ unnest_with_position(json_list("source.payload", "$.owners"), "owner") }}
    where
        {{ json_list("source.payload", "$.permissions") }} is null
        and coalesce({{ json_text("source.payload", "$.trashed") }}, 'false') in ('false', 'true')

),

gathered as (

    select
        raw_dlt_id,
        max(case when principal = 'public' then 1 else 0 end) = 1 as is_public,
        {{ distinct_list("principal") }} as principals
    from (
        select raw_dlt_id, principal
        from readers

        union all

        select raw_dlt_id, principal
        from owners
    ) as everybody
    group by raw_dlt_id

)

select
    source._dlt_id as raw_dlt_id,
    source._batch as raw_batch,
    source.external_id as file_id,
    {{ json_text("source.payload", "$.name") }} as name,
    {{ json_text("source.payload", "$.mimeType") }} as mime_type,
    {{ json_text("source.payload", "$.webViewLink") }} as url,
    -- A file of a shared drive has no owner.
    lower(
        coalesce(
            {{ json_text("source.payload", "$.owners[0].emailAddress") }},
            {{ json_text("source.payload", "$.lastModifyingUser.emailAddress") }}
        )
    ) as author_id,
    {{ json_text("source.payload", "$.parents[0]") }} as parent_id,
    {{ iso_to_timestamp(json_text("source.payload", "$.createdTime")) }} as created_at,
    case when gathered.is_public then 'public' else 'private' end as visibility,
    case
        when gathered.is_public then {{ list_of(["'public'"]) }}
        else coalesce(gathered.principals, {{ list_of([]) }})
    end as allowed_principals,
    source.source_updated_at,
    source.observed_at,
    source.landed_at,
    source.is_deleted
from source
left join gathered on source._dlt_id = gathered.raw_dlt_id
