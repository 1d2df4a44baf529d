-- One row per observed version of a Linear issue, its payload parsed once.
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
    from {{ source("raw_linear", "issues") }}
    where {{ newer_than_watermark(source("raw_linear", "issues")) }}

)

select
    _dlt_id as raw_dlt_id,
    _batch as raw_batch,
    external_id as issue_id,
    {{ json_text("payload", "$.identifier") }} as identifier,
    {{ json_text_list("payload", "$.previousIdentifiers") }} as previous_identifiers,
    {{ json_text("payload", "$.title") }} as title,
    {{ linear_markdown(json_text("payload", "$.description")) }} as description,
    {{ json_text("payload", "$.url") }} as url,
    {{ json_text("payload", "$.state.name") }} as status,
    -- No priority is 0, and says nothing.
    case {{ replace_all(json_text("payload", "$.priority"), regex("\\.0+$"), "''") }}
        when '0' then null
        when '1' then coalesce({{ json_text("payload", "$.priorityLabel") }}, 'Urgent')
        when '2' then coalesce({{ json_text("payload", "$.priorityLabel") }}, 'High')
        when '3' then coalesce({{ json_text("payload", "$.priorityLabel") }}, 'Medium')
        when '4' then coalesce({{ json_text("payload", "$.priorityLabel") }}, 'Low')
        else nullif({{ json_text("payload", "$.priorityLabel") }}, 'No priority')
    end as priority,
    {{ replace_all(json_text("payload", "$.estimate"), regex("\\.0+$"), "''") }} as estimate,
    {{ json_text("payload", "$.dueDate") }} as due_date,
    {{ json_text("payload", "$.assignee.id") }} as assignee_id,
    coalesce(
        {{ json_text("payload", "$.assignee.name") }},
        {{ json_text("payload", "$.assignee.displayName") }}
    ) as assignee_name,
    {{ json_text("payload", "$.creator.id") }} as creator_id,
    {{ json_text("payload", "$.team.id") }} as team_id,
    {{ json_text("payload", "$.team.key") }} as team_key,
    {{ json_text("payload", "$.project.id") }} as project_id,
    {{ json_text("payload", "$.project.name") }} as project_name,
    {{ json_text("payload", "$.cycle.id") }} as cycle_id,
    coalesce(
        {{ json_text("payload", "$.cycle.name") }},
        {{ json_text("payload", "$.cycle.number") }}
    ) as cycle_name,
    {{ json_text("payload", "$.parent.id") }} as parent_id,
    {{ json_text("payload", "$.parent.identifier") }} as parent_identifier,
    coalesce(
        {{ json_field_list("payload", "$.labels.nodes", "$.id") }},
        {{ json_text_list("payload", "$.labelIds") }}
    ) as label_ids,
    {{ json_field_list("payload", "$.labels.nodes", "$.name") }} as label_names,
    {{ json_field_list("payload", "$.sharedAccess.sharedWithUsers", "$.id") }} as shared_with_ids,
    {{ iso_to_timestamp(json_text("payload", "$.createdAt")) }} as created_at,
    source_updated_at,
    observed_at,
    landed_at,
    is_deleted
from source
