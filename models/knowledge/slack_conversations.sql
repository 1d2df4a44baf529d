-- One row per Slack document: a thread, or a run of unthreaded messages in which no two neighbours
-- lie further apart than `slack_gap_minutes`. Runs end with the UTC day, so that a late message
-- touches the conversations of one channel and day only.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="external_id") }}

with changed_messages as (

    select channel_id, anchor_day
    from {{ ref("stg_slack__messages") }}
    where {{ newer_than_watermark(ref("stg_slack__messages")) }}
    group by channel_id, anchor_day

),

changed_channels as (

    select channel_id
    from {{ ref("stg_slack__channels") }}
    where {{ newer_than_watermark(ref("stg_slack__channels")) }}
    group by channel_id

),

changed_users as (

    select user_id
    from {{ ref("stg_slack__users") }}
    where {{ newer_than_watermark(ref("stg_slack__users")) }}
    group by user_id

),

mentions as (

    select
        messages.channel_id,
        messages.anchor_day,
        mention.element as user_id
    from {{ ref("stg_slack__messages") }} as messages,
        {{ unnest_with_position("messages.mentioned_ids", "mention") }}

),

affected as (

    select channel_id, anchor_day
    from changed_messages

    union

    select messages.channel_id, messages.anchor_day
    from {{ ref("stg_slack__messages") }} as messages
    inner join changed_channels on messages.channel_id = changed_channels.channel_id

    union

    select messages.channel_id, messages.anchor_day
    from {{ ref("stg_slack__messages") }} as messages
    inner join changed_users on messages.author_id = changed_users.user_id

    union

    select mentions.channel_id, mentions.anchor_day
    from mentions
    inner join changed_users on mentions.user_id = changed_users.user_id

),

-- The newest version of every message of the affected channels and days.
versions as (

    select
        messages.channel_id,
        messages.anchor_day,
        messages.message_id,
        messages.ts,
        messages.thread_ts,
        messages.sent_at,
        messages.author_id,
        messages.author_name,
        messages.message,
        messages.mentioned_ids,
        messages.source_updated_at,
        messages.observed_at,
        messages.raw_dlt_id,
        messages.raw_batch,
        messages.is_deleted,
        coalesce(rules.is_content, true) as is_content,
        row_number() over (
            partition by messages.message_id
            order by
                messages.raw_batch desc nulls last,
                messages.observed_at desc nulls last,
                messages.source_updated_at desc nulls last,
                messages.landed_at desc nulls last
        ) as recency
    from {{ ref("stg_slack__messages") }} as messages
    inner join affected
        on messages.channel_id = affected.channel_id
        and messages.anchor_day = affected.anchor_day
    left join {{ ref("slack_message_rules") }} as rules
        on messages.subtype = rules.subtype

),

channels as (

    select
        channel_id,
        name,
        kind,
        member_ids,
        observed_at,
        is_deleted,
        row_number() over (
            partition by channel_id order by raw_batch desc nulls last, observed_at desc nulls last
        ) as recency
    from {{ ref("stg_slack__channels") }}

),

-- What was said in a channel that is gone, or that Loreline may no longer read, nobody is served.
lost_channels as (

    select channel_id
    from channels
    where recency = 1 and is_deleted

),

current_messages as (

    select
        channel_id,
        anchor_day,
        message_id,
        ts,
        coalesce(thread_ts, ts) as root_ts,
        sent_at,
        author_id,
        author_name,
        message,
        mentioned_ids,
        source_updated_at,
        observed_at,
        raw_dlt_id,
        raw_batch
    from versions
    where
        recency = 1
        and not is_deleted
        and is_content
        and channel_id not in (select lost_channels.channel_id from lost_channels)

),

-- A message is a thread's root once a reply to it is known.
threads as (

    select channel_id, root_ts
    from current_messages
    where root_ts <> ts
    group by channel_id, root_ts

),

with_gaps as (

    select
        current_messages.*,
        threads.root_ts is not null as is_threaded,
        lag(current_messages.sent_at) over (
            partition by
                current_messages.channel_id,
                current_messages.anchor_day,
                threads.root_ts is not null
            order by current_messages.sent_at nulls last, current_messages.ts nulls last
        ) as previous_sent_at
    from current_messages
    left join threads
        on current_messages.channel_id = threads.channel_id
        and current_messages.root_ts = threads.root_ts

),

with_runs as (

    select
        *,
        sum(
            case
                when
                    {{ seconds_between("previous_sent_at", "sent_at") }}
                    <= {{ var("slack_gap_minutes") }} * 60
                    then 0
                else 1
            end
        ) over (
            partition by channel_id, anchor_day, is_threaded
            order by sent_at nulls last, ts nulls last
        ) as run_number
    from with_gaps

),

with_conversation as (

    select
        *,
        case
            when is_threaded then root_ts
            else min(ts) over (partition by channel_id, anchor_day, is_threaded, run_number)
        end as conversation_ts
    from with_runs

),

users as (

    select
        user_id,
        name,
        row_number() over (partition by user_id order by raw_batch desc nulls last) as recency
    from {{ ref("stg_slack__users") }}

),

message_names as (

    select
        mentioned.message_id,
        {{ json_object_agg("users.user_id", "users.name") }} as names
    from (
        select distinct
            with_conversation.message_id,
            mention.element as user_id
        from with_conversation,
            {{ unnest_with_position("with_conversation.mentioned_ids", "mention") }}
    ) as mentioned
    inner join users
        on mentioned.user_id = users.user_id
        and users.recency = 1
    group by mentioned.message_id

),

rendered as (

    select
        with_conversation.channel_id,
        with_conversation.anchor_day,
        with_conversation.conversation_ts,
        with_conversation.ts,
        with_conversation.sent_at,
        with_conversation.author_id,
        coalesce(
            nullif(
                trim(
                    substr(
                        {{ replace_all(
                            "coalesce(authors.name, with_conversation.author_name,"
                            ~ " with_conversation.author_id)",
                            regex("\\s+"),
                            "' '"
                        ) }},
                        1,
                        100
                    )
                ),
                ''
            ),
            'somebody'
        ) as author,
        {{ slack_markdown("with_conversation.message", "coalesce(message_names.names, '{}')") }}
            as text,
        with_conversation.source_updated_at,
        with_conversation.observed_at,
        with_conversation.raw_dlt_id,
        with_conversation.raw_batch
    from with_conversation
    left join message_names
        on with_conversation.message_id = message_names.message_id
    left join users as authors
        on with_conversation.author_id = authors.user_id
        and authors.recency = 1

),

-- Where each message begins can be told from the body alone (loreline/knowledge/messages.py): a
-- name is one short line, and no paragraph within a message looks like one that begins another. A
-- fence or a quote is one only at the start of a line.
spoken as (

    select
        channel_id,
        anchor_day,
        conversation_ts,
        ts,
        sent_at,
        author_id,
        text,
        '**' || author || ':**'
        || case
            when substr(text, 1, 3) = '```' or substr(text, 1, 1) = '>' then chr(10) || chr(10)
            else ' '
        end
        || text as line,
        source_updated_at,
        observed_at,
        raw_dlt_id,
        raw_batch
    from rendered
    where text <> ''

),

conversations as (

    select
        channel_id,
        anchor_day,
        conversation_ts,
        {{ ordered_string_agg("line", "\n\n", "ts") }} as body,
        {{ ordered_list("ts", "ts") }} as message_ts,
        {{ arg_min("text", "ts") }} as first_text,
        {{ arg_min("author_id", "ts") }} as author_id,
        min(sent_at) as created_at,
        max(source_updated_at) as source_updated_at,
        max(observed_at) as observed_at,
        -- Batches end where a load was cut: what was observed at once goes by the messages' order.
        {{ arg_max(
            "raw_dlt_id", "coalesce(cast(observed_at as string), '') || ' ' || ts"
        ) }} as raw_dlt_id,
        max(raw_batch) as raw_batch
    from spoken
    group by channel_id, anchor_day, conversation_ts

),

described as (

    select
        conversations.channel_id || ':' || conversations.conversation_ts as external_id,
        conversations.channel_id,
        conversations.anchor_day,
        '#' || coalesce(channels.name, conversations.channel_id) || ': '
        || substr(regexp_extract(conversations.first_text, {{ regex("^[^\\r\\n]*") }}, 0), 1, 80)
            as title,
        conversations.body,
        'https://slack.com/archives/' || conversations.channel_id || '/p'
        || replace(conversations.conversation_ts, '.', '') as url,
        conversations.author_id,
        coalesce(channels.name, conversations.channel_id) as container,
        conversations.created_at,
        conversations.source_updated_at,
        greatest(conversations.observed_at, channels.observed_at) as observed_at,
        -- A channel that nobody has described yet is read by nobody.
        case when channels.kind = 'public' then 'public' else 'private' end as visibility,
        case
            when channels.kind = 'public' then {{ list_of(["'public'"]) }}
            else {{ sorted_list(
                prefixed_list("coalesce(channels.member_ids, " ~ list_of([]) ~ ")", "slack:")
            ) }}
        end as allowed_principals,
        conversations.message_ts,
        conversations.raw_dlt_id,
        false as is_deleted
    from conversations
    left join channels
        on conversations.channel_id = channels.channel_id
        and channels.recency = 1

)

select * from described

{% if is_incremental() %}

union all

-- Conversations of the affected channels and days that are no longer there.
select
    known.external_id,
    known.channel_id,
    known.anchor_day,
    known.title,
    known.body,
    known.url,
    known.author_id,
    known.container,
    known.created_at,
    known.source_updated_at,
    (select max(versions.observed_at) from versions) as observed_at,
    known.visibility,
    known.allowed_principals,
    {{ list_of([]) }} as message_ts,
    known.raw_dlt_id,
    true as is_deleted
from {{ this }} as known
inner join affected
    on known.channel_id = affected.channel_id
    and known.anchor_day = affected.anchor_day
left join described on known.external_id = described.external_id
where described.external_id is null and not known.is_deleted

{% endif %}
