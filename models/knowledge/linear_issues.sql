-- One row per Linear issue as a document: its fields, relations and description, then its comments.
-- What changed touches only the issues that show it.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="issue_id") }}

{% set changed = {
    "issues": "issue_id",
    "comments": "issue_id",
    "attachments": "issue_id",
    "projects": "project_id",
    "cycles": "cycle_id",
    "teams": "team_id",
    "labels": "label_id",
    "users": "user_id",
} %}
{% set newest_first = "order by raw_batch desc nulls last, landed_at desc nulls last" %}
{# How a relation reads on the issue that has it, and on the other one. #}
{% set relation_names = [
    ("blocks", "Blocks", "Blocked by"),
    ("duplicate", "Duplicate of", "Duplicated by"),
    ("related", "Related to", "Related to"),
    ("similar", "Similar to", "Similar to"),
] %}
{% set relation_lines = [
    "Blocks", "Blocked by", "Duplicate of", "Duplicated by", "Related to", "Similar to"
] %}

with

{% for table, key in changed.items() %}
changed_{{ table }} as (

    select {{ key }}
    from {{ ref("stg_linear__" ~ table) }}
    where {{ newer_than_watermark(ref("stg_linear__" ~ table)) }}
    group by {{ key }}

),

{% endfor %}
changed_relations as (

    select
        issue_id,
        related_issue_id
    from {{ ref("stg_linear__relations") }}
    where {{ newer_than_watermark(ref("stg_linear__relations")) }}
    group by issue_id, related_issue_id

),

issue_labels as (

    select
        issues.issue_id,
        issues.raw_dlt_id,
        label.element as label_id,
        {{ list_at("issues.label_names", "label.position") }} as name
    from {{ ref("stg_linear__issues") }} as issues,
        {{ unnest_with_position("issues.label_ids", "label") }}

),

affected as (

    select issue_id from changed_issues

    union

    select issue_id from changed_comments

    union

    select issue_id from changed_attachments

    union

    select issue_id from changed_relations

    union

    select related_issue_id as issue_id from changed_relations

    union

    -- Relations and sub-issues show the identifier of the other issue.
    select related.related_issue_id as issue_id
    from {{ ref("stg_linear__relations") }} as related
    inner join changed_issues on related.issue_id = changed_issues.issue_id

    union

    select related.issue_id
    from {{ ref("stg_linear__relations") }} as related
    inner join changed_issues on related.related_issue_id = changed_issues.issue_id

    union

    select issues.issue_id
    from {{ ref("stg_linear__issues") }} as issues
    inner join changed_issues on issues.parent_id = changed_issues.issue_id

    {% for table, column, reference in [
        ("projects", "project_id", "project_id"),
        ("cycles", "cycle_id", "cycle_id"),
        ("teams", "team_id", "team_id"),
        ("users", "user_id", "assignee_id"),
    ] %}
    union

    select issues.issue_id
    from {{ ref("stg_linear__issues") }} as issues
    inner join changed_{{ table }} on issues.{{ reference }} = changed_{{ table }}.{{ column }}

    {% endfor %}
    union

    select comments.issue_id
    from {{ ref("stg_linear__comments") }} as comments
    inner join changed_users on comments.author_id = changed_users.user_id

    union

    select issue_labels.issue_id
    from issue_labels
    inner join changed_labels on issue_labels.label_id = changed_labels.label_id

),

-- The newest state of the affected issues, of what they hold, and of what they name.
issue_versions as (

    select
        issues.*,
        row_number() over (partition by issues.issue_id {{ newest_first }}) as recency
    from {{ ref("stg_linear__issues") }} as issues
    inner join affected on issues.issue_id = affected.issue_id

),

issues as (

    select * from issue_versions
    where recency = 1

),

comment_versions as (

    select
        comments.*,
        row_number() over (partition by comments.comment_id {{ newest_first }}) as recency
    from {{ ref("stg_linear__comments") }} as comments
    inner join affected on comments.issue_id = affected.issue_id

),

attachment_versions as (

    select
        attachments.*,
        row_number() over (partition by attachments.attachment_id {{ newest_first }}) as recency
    from {{ ref("stg_linear__attachments") }} as attachments
    inner join affected on attachments.issue_id = affected.issue_id

),

-- Each relation from both of its sides.
sides as (

    {% for own_id, other_id, other_identifier, side in [
        ("issue_id", "related_issue_id", "related_identifier", 1),
        ("related_issue_id", "issue_id", "identifier", 2),
    ] %}
    {{ "union all" if not loop.first }}

    select
        related.relation_id,
        related.{{ own_id }} as holder_id,
        related.{{ other_id }} as other_id,
        related.{{ other_identifier }} as other_identifier,
        case related.relation_type
            {% for names in relation_names %}
            when '{{ names[0] }}' then '{{ names[side] }}'
            {% endfor %}
        end as line,
        related.observed_at,
        related.is_deleted,
        row_number() over (partition by related.relation_id {{ newest_first }}) as recency
    from {{ ref("stg_linear__relations") }} as related
    inner join affected on related.{{ own_id }} = affected.issue_id

    {% endfor %}
),

mentioned_issues as (

    select parent_id as issue_id
    from issues

    union

    select other_id as issue_id
    from sides

),

identifiers as (

    select
        others.issue_id,
        others.identifier,
        others.is_deleted,
        row_number() over (
            partition by others.issue_id
            order by others.raw_batch desc nulls last, others.landed_at desc nulls last
        ) as recency
    from {{ ref("stg_linear__issues") }} as others
    inner join mentioned_issues on others.issue_id = mentioned_issues.issue_id

),

{% for table, key in changed.items() if key != "issue_id" %}
{{ table }} as (

    select
        *,
        row_number() over (partition by {{ key }} {{ newest_first }}) as recency
    from {{ ref("stg_linear__" ~ table) }}

),

{% endfor %}
relation_texts as (

    select
        issue_id,
        {% for line in relation_lines %}
        {{ ordered_string_agg(
            "case when line = '" ~ line ~ "' then identifier end", ", ", "identifier"
        ) }} as relation_{{ loop.index }},
        {% endfor %}
        count(*) as relations
    from (
        select distinct
            sides.holder_id as issue_id,
            sides.line,
            coalesce(identifiers.identifier, sides.other_identifier) as identifier
        from sides
        left join identifiers
            on sides.other_id = identifiers.issue_id
            and identifiers.recency = 1
        where
            sides.recency = 1
            and not sides.is_deleted
            and not coalesce(identifiers.is_deleted, false)
    ) as others
    where identifier is not null
    group by issue_id

),

label_texts as (

    select
        issue_id,
        {{ ordered_string_agg("name", ", ", "name") }} as labels
    from (
        select distinct
            issues.issue_id,
            coalesce(labels.name, issue_labels.name) as name
        from issues
        inner join issue_labels on issues.raw_dlt_id = issue_labels.raw_dlt_id
        left join labels
            on issue_labels.label_id = labels.label_id
            and labels.recency = 1
        where not coalesce(labels.is_deleted, false)
    ) as named
    where name is not null
    group by issue_id

),

attachment_texts as (

    select
        issue_id,
        {{ ordered_string_agg(
            "'[' || " ~ replace_all("coalesce(title, url)", regex("[\\[\\]\\s]+"), "' '")
            ~ " || '](' || replace(replace(replace(url, ' ', '%20'), '(', '%28'), ')', '%29') || ')'",
            ", ",
            "url || attachment_id",
        ) }} as links
    from attachment_versions
    where recency = 1 and not is_deleted and url is not null
    group by issue_id

),

-- A reply stands below the comment that it is a reply to, and replies to replies do too.
threaded as (

    select
        comments.issue_id,
        comments.comment_id,
        coalesce(parents.parent_id, comments.parent_id, comments.comment_id) as thread_id,
        comments.parent_id is not null as is_reply,
        comments.created_at,
        comments.quoted_text,
        comments.body,
        coalesce(users.name, comments.author_name, 'somebody') as author
    from comment_versions as comments
    left join comment_versions as parents
        on comments.parent_id = parents.comment_id
        and parents.recency = 1
    left join users
        on comments.author_id = users.user_id
        and users.recency = 1
    where
        comments.recency = 1
        and not comments.is_deleted
        and not comments.is_hidden
        and comments.body <> ''

),

threads as (

    select
        thread_id,
        min(created_at) as begun_at
    from threaded
    group by thread_id

),

comment_places as (

    select
        threaded.*,
        row_number() over (
            partition by threaded.issue_id
            order by
                threads.begun_at asc nulls last,
                threaded.thread_id asc nulls last,
                threaded.is_reply asc nulls last,
                threaded.created_at asc nulls last,
                threaded.comment_id asc nulls last
        ) as place
    from threaded
    inner join threads on threaded.thread_id = threads.thread_id

),

comment_texts as (

    select
        issue_id,
        {{ ordered_string_agg("text", "\n\n", "place") }} as comments
    from (
        select
            issue_id,
            place,
            '**' || author || coalesce(', ' || {{ minute_text("created_at") }}, '')
            || case when is_reply then ', in reply' else '' end || ':**' || chr(10) || chr(10)
            || case
                when coalesce(quoted_text, '') <> ''
                    then
                        '> ' || replace(quoted_text, chr(10), chr(10) || '> ')
                        || chr(10) || chr(10)
                else ''
            end
            || body as text
        from comment_places
    ) as spoken
    group by issue_id

),

readers as (

    select
        issue_id,
        {{ distinct_list("principal") }} as principals
    from (
        select
            issues.issue_id,
            'linear:' || member.element as principal
        from issues
        inner join teams
            on issues.team_id = teams.team_id
            and teams.recency = 1,
            {{ unnest_with_position("teams.member_ids", "member") }}

        union all

        select
            issues.issue_id,
            'linear:' || guest.element as principal
        from issues,
            {{ unnest_with_position("issues.shared_with_ids", "guest") }}
    ) as members
    group by issue_id

),

-- What was deleted counts too: it is why the issue looks as it does.
touched as (

    select
        issue_id,
        max(observed_at) as observed_at,
        max(source_updated_at) as source_updated_at
    from (
        select issue_id, observed_at, source_updated_at
        from comment_versions
        where recency = 1

        union all

        select issue_id, observed_at, cast(null as timestamp) as source_updated_at
        from attachment_versions
        where recency = 1

        union all

        select
            holder_id as issue_id,
            observed_at,
            cast(null as timestamp) as source_updated_at
        from sides
        where recency = 1
    ) as parts
    group by issue_id

),

described as (

    select
        issues.issue_id,
        coalesce(issues.identifier, issues.issue_id) as identifier,
        issues.title,
        issues.description,
        issues.url,
        issues.status,
        issues.priority,
        issues.estimate,
        issues.due_date,
        issues.creator_id,
        issues.parent_id,
        issues.created_at,
        issues.raw_dlt_id,
        issues.is_deleted,
        coalesce(assignees.name, issues.assignee_name) as assignee,
        label_texts.labels,
        case
            when not coalesce(projects.is_deleted, false) or projects.is_archived
                then coalesce(projects.name, issues.project_name)
        end as project,
        case
            when not coalesce(cycles.is_deleted, false) or cycles.is_archived
                then coalesce(cycles.name, issues.cycle_name)
        end as cycle_name,
        case
            when not coalesce(parents.is_deleted, false)
                then coalesce(parents.identifier, issues.parent_identifier)
        end as parent_identifier,
        attachment_texts.links,
        {% for line in relation_lines %}
        relation_texts.relation_{{ loop.index }},
        {% endfor %}
        comment_texts.comments,
        coalesce(teams.team_key, issues.team_key) as team_key,
        -- A team that nobody has described yet is read by nobody.
        coalesce(teams.is_private, true) as is_private,
        coalesce(readers.principals, {{ list_of([]) }}) as principals,
        greatest(issues.observed_at, touched.observed_at, teams.observed_at) as observed_at,
        greatest(issues.source_updated_at, touched.source_updated_at) as source_updated_at
    from issues
    left join users as assignees
        on issues.assignee_id = assignees.user_id
        and assignees.recency = 1
    left join projects
        on issues.project_id = projects.project_id
        and projects.recency = 1
    left join cycles
        on issues.cycle_id = cycles.cycle_id
        and cycles.recency = 1
    left join teams
        on issues.team_id = teams.team_id
        and teams.recency = 1
    left join identifiers as parents
        on issues.parent_id = parents.issue_id
        and parents.recency = 1
    left join label_texts on issues.issue_id = label_texts.issue_id
    left join attachment_texts on issues.issue_id = attachment_texts.issue_id
    left join relation_texts on issues.issue_id = relation_texts.issue_id
    left join comment_texts on issues.issue_id = comment_texts.issue_id
    left join readers on issues.issue_id = readers.issue_id
    left join touched on issues.issue_id = touched.issue_id

)

select
    issue_id,
    identifier,
    identifier || coalesce(': ' || title, '') as title,
    -- `document_links` tells relations by their lines.
    '- **Issue:** ' || identifier
    {% for line, value in [
        ("Status", "status"),
        ("Assignee", "assignee"),
        ("Priority", "priority"),
        ("Labels", "labels"),
        ("Project", "project"),
        ("Cycle", "cycle_name"),
        ("Estimate", "estimate"),
        ("Due", "due_date"),
        ("Parent", "parent_identifier"),
        ("Links", "links"),
    ] -%}
    || coalesce(
        chr(10) || '- **{{ line }}:** '
        || nullif({{ replace_all(value, regex("\\s+"), "' '") }}, ''),
        ''
    )
    {% endfor -%}
    {% for line in relation_lines -%}
    || coalesce(chr(10) || '- **{{ line }}:** ' || nullif(relation_{{ loop.index }}, ''), '')
    {% endfor -%}
    || coalesce(chr(10) || chr(10) || nullif(description, ''), '')
    || coalesce(
        chr(10) || chr(10) || '# Comments' || chr(10) || chr(10) || nullif(comments, ''), ''
    ) as body,
    url,
    creator_id as author_id,
    coalesce(project, team_key) as container,
    parent_id,
    created_at,
    source_updated_at,
    observed_at,
    case when is_private then 'private' else 'public' end as visibility,
    case when is_private then principals else {{ list_of(["'public'"]) }} end as allowed_principals,
    raw_dlt_id,
    is_deleted
from described
