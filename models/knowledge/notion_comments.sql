-- One row per Notion page that has or had comments: what is said in those that are open.
-- What changed touches only the pages that show it.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="page_id") }}

{% set newest_first = "order by raw_batch desc nulls last, landed_at desc nulls last" %}

with changed_comments as (

    select page_id
    from {{ ref("stg_notion__comments") }}
    where {{ newer_than_watermark(ref("stg_notion__comments")) }}
    group by page_id

),

changed_users as (

    select user_id
    from {{ ref("stg_notion__users") }}
    where {{ newer_than_watermark(ref("stg_notion__users")) }}
    group by user_id

),

affected as (

    select page_id
    from changed_comments
    where page_id is not null

    union

    select comments.page_id
    from {{ ref("stg_notion__comments") }} as comments
    inner join changed_users on comments.author_id = changed_users.user_id
    where comments.page_id is not null

),

comment_versions as (

    select
        comments.*,
        row_number() over (partition by comments.comment_id {{ newest_first }}) as recency
    from {{ ref("stg_notion__comments") }} as comments
    inner join affected on comments.page_id = affected.page_id

),

users as (

    select
        user_id,
        name,
        row_number() over (
            partition by user_id order by raw_batch desc nulls last, observed_at desc nulls last
        ) as recency
    from {{ ref("stg_notion__users") }}

),

open_comments as (

    select
        comments.page_id,
        comments.comment_id,
        comments.discussion_id,
        comments.created_at,
        comments.body,
        coalesce(users.name, comments.author_name, 'somebody') as author,
        row_number() over (
            partition by comments.discussion_id
            order by comments.created_at asc nulls last, comments.comment_id asc nulls last
        ) > 1 as is_reply,
        min(comments.created_at) over (partition by comments.discussion_id) as begun_at
    from comment_versions as comments
    left join users
        on comments.author_id = users.user_id
        and users.recency = 1
    where
        comments.recency = 1
        and not comments.is_deleted
        and comments.body <> ''

),

-- A discussion stands where it began.
comment_places as (

    select
        *,
        row_number() over (
            partition by page_id
            order by
                begun_at asc nulls last,
                discussion_id asc nulls last,
                is_reply asc nulls last,
                created_at asc nulls last,
                comment_id asc nulls last
        ) as place
    from open_comments

),

comment_texts as (

    select
        page_id,
        {{ ordered_string_agg("text", "\n\n", "place") }} as comments
    from (
        select
            page_id,
            place,
            '**' || author || coalesce(', ' || {{ minute_text("created_at") }}, '')
            || case when is_reply then ', in reply' else '' end || ':**' || chr(10) || chr(10)
            || body as text
        from comment_places
    ) as spoken
    group by page_id

),

-- What was deleted counts too: it is why the page looks as it does.
touched as (

    select
        page_id,
        max(observed_at) as observed_at,
        max(source_updated_at) as source_updated_at
    from comment_versions
    where recency = 1
    group by page_id

)

select
    touched.page_id,
    coalesce(comment_texts.comments, '') as comments,
    touched.observed_at,
    touched.source_updated_at
from touched
left join comment_texts on touched.page_id = comment_texts.page_id
