-- One row per account in a source: who wrote, and whom a principal stands for.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["source", "external_id"],
) }}

with accounts as (

    select
        'notion' as source,
        user_id as external_id,
        name,
        lower(email) as email,
        cast(null as string) as handle,
        is_deleted,
        raw_batch
    from {{ ref("stg_notion__users") }}
    where {{ newer_than_watermark(ref("stg_notion__users")) }}

    union all

    select
        'slack' as source,
        user_id as external_id,
        name,
        lower(email) as email,
        handle,
        is_deleted,
        raw_batch
    from {{ ref("stg_slack__users") }}
    where {{ newer_than_watermark(ref("stg_slack__users")) }}

    union all

    select
        'google_docs' as source,
        email as external_id,
        name,
        email,
        cast(null as string) as handle,
        is_deleted,
        raw_batch
    from {{ ref("stg_google_docs__accounts") }}
    where {{ newer_than_watermark(ref("stg_google_docs__accounts")) }}

    union all

    select
        'linear' as source,
        user_id as external_id,
        name,
        lower(email) as email,
        handle,
        is_deleted,
        raw_batch
    from {{ ref("stg_linear__users") }}
    where {{ newer_than_watermark(ref("stg_linear__users")) }}

),

ranked as (

    select
        source,
        external_id,
        name,
        email,
        handle,
        is_deleted,
        row_number() over (
            partition by source, external_id
            order by
                raw_batch desc nulls last,
                is_deleted asc nulls last,
                -- Google's files name the same account each, some of them without its name.
                name desc nulls last
        ) as recency
    from accounts

)

select
    source,
    external_id,
    source || ':' || external_id as principal,
    name,
    email,
    handle,
    is_deleted
from ranked
where recency = 1
