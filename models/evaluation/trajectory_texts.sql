-- One row per window of what is said in a trajectory, in the form in which it is embedded.
--
-- A message is rendered as its role, what it says and the tools that it calls. Messages that fit
-- stay whole, longer ones come in pieces; both are laid end to end, and a window is what begins
-- within a stretch of that line. Windows do not depend on what comes after them: where a
-- conversation goes on, the texts that it had stay, but the last. A window that is no longer there
-- stays, marked.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["trajectory_id", "window_index"],
) }}

{#- A window is less than a stretch, a part that begins within it, and what it repeats: a part is a
    whole message of half a window or less, or a piece of a longer one. Pieces end where a word
    ends; short ones fill windows evenly. -#}
{%- set piece = "(?s:.{1,40})" %}
{%- set columns = [
    "trajectory_id", "window_index", "content_hash", "text_hash", "text", "token_estimate",
    "first_message", "is_complete"
] %}

with limits as (

    select
        cast(floor(0.5 * max(case when setting = 'window_tokens' then value end)) as bigint)
            as part_tokens,
        cast(max(case when setting = 'overlap_tokens' then value end) as bigint) as overlap_tokens,
        cast(
            floor(0.5 * max(case when setting = 'window_tokens' then value end))
            - max(case when setting = 'overlap_tokens' then value end)
            as bigint
        ) as stretch_tokens,
        max(case when setting = 'message_characters' then value end) as message_characters,
        cast(
            floor(0.5 * max(case when setting = 'message_characters' then value end)) as bigint
        ) as half_message
    from {{ ref("trajectory_text_settings") }}

),

changed_settings as (

    {{ one_row_if_new(ref("trajectory_text_settings")) }}

),

touched as (

    select trajectory_id
    from {{ ref("trajectory_units") }}
    where {{ newer_than_watermark(ref("trajectory_units")) }}

    {% if is_incremental() %}
    union

    -- Messages of which had not arrived.
    select trajectory_id
    from {{ this }}
    where not is_complete

    union

    select units.trajectory_id
    from {{ ref("trajectory_units") }} as units
    cross join changed_settings
    {% endif %}

),

-- What was superseded says nothing new.
trajectories as (

    select
        units.trajectory_id,
        units.message_hashes
    from {{ ref("trajectory_units") }} as units
    inner join touched on units.trajectory_id = touched.trajectory_id
    where
        units.superseded_by is null
        and not {{ asked_by_a_judge("units.session_id") }}

),

said as (

    select
        trajectories.trajectory_id,
        message.element as message_hash,
        message.position as message_index
    from trajectories, {{ unnest_with_position("trajectories.message_hashes", "message") }}

),

wanted as (

    select message_hash
    from said
    group by message_hash

),

found as (

    select
        messages.message_hash,
        messages.role,
        messages.tool_calls,
        -- Pictures and the like say nothing as text.
        {{ replace_all(
            "coalesce(messages.content, '')",
            regex("data:[A-Za-z0-9./+-]{1,100};base64,[A-Za-z0-9+/=]*"),
            "'data'"
        ) }} as content
    from {{ ref("messages") }} as messages
    inner join wanted on messages.message_hash = wanted.message_hash

),

calls as (

    select
        found.message_hash,
        {{ ordered_string_agg(
            json_text("call.element", "$.name"), ", ", "call.position"
        ) }} as names
    from found, {{ unnest_with_position(json_text_list("found.tool_calls", "$"), "call") }}
    group by found.message_hash

),

rendered as (

    select
        found.message_hash,
        found.role || ': ' || case
            when length(found.content) <= limits.message_characters then found.content
            else
                substr(found.content, 1, limits.half_message)
                || ' […] '
                || substr(found.content, 1 + length(found.content) - limits.half_message)
        end || coalesce(chr(10) || 'calls ' || calls.names, '') || chr(10) as text
    from found
    left join calls on found.message_hash = calls.message_hash
    cross join limits

),

messages_in_parts as (

    select
        rendered.message_hash,
        case
            when {{ token_estimate("rendered.text") }} <= limits.part_tokens
                then {{ list_of(["rendered.text"]) }}
            else regexp_extract_all(
                rendered.text, {{ regex("(" ~ piece ~ "(?:\s|\z)|" ~ piece ~ ")") }}, 1
            )
        end as parts
    from rendered
    cross join limits

),

message_parts as (

    select
        messages_in_parts.message_hash,
        part.position as part_index,
        part.element as text,
        {{ token_estimate("part.element") }} as token_estimate
    from messages_in_parts, {{ unnest_with_position("messages_in_parts.parts", "part") }}

),

laid as (

    select
        said.trajectory_id,
        said.message_index,
        coalesce(message_parts.text, '') as text,
        coalesce(message_parts.token_estimate, 0) as token_estimate,
        message_parts.message_hash is not null as is_there,
        row_number() over (
            partition by said.trajectory_id
            order by said.message_index asc nulls last, message_parts.part_index asc nulls last
        ) as place
    from said
    left join message_parts on said.message_hash = message_parts.message_hash

),

summed as (

    select
        laid.*,
        coalesce(
            sum(laid.token_estimate) over (
                partition by laid.trajectory_id
                order by laid.place asc nulls last
                rows between unbounded preceding and 1 preceding
            ),
            0
        ) as tokens_before
    from laid

),

placed as (

    select
        summed.*,
        cast(
            floor({{ ratio("summed.tokens_before", "limits.stretch_tokens") }}) as bigint
        ) as window_index,
        -- What begins shortly before a window is repeated by it.
        cast(
            floor(
                {{ ratio("summed.tokens_before + limits.overlap_tokens", "limits.stretch_tokens") }}
            ) as bigint
        ) as repeated_in
    from summed
    cross join limits

),

last_windows as (

    select
        trajectory_id,
        max(window_index) as window_index
    from placed
    group by trajectory_id

),

window_parts as (

    select
        trajectory_id,
        window_index,
        message_index,
        place,
        text,
        token_estimate,
        is_there
    from placed

    union all

    select
        placed.trajectory_id,
        placed.repeated_in as window_index,
        placed.message_index,
        placed.place,
        placed.text,
        placed.token_estimate,
        placed.is_there
    from placed
    inner join last_windows on placed.trajectory_id = last_windows.trajectory_id
    where
        placed.repeated_in > placed.window_index
        and placed.repeated_in <= last_windows.window_index

),

windows as (

    select
        trajectory_id,
        window_index,
        -- Without the blanks around it.
        regexp_extract(
            {{ ordered_string_agg("text", "", "place") }}, {{ regex("(?s)^\s*(.*\S)") }}, 1
        ) as text,
        cast(sum(token_estimate) as bigint) as token_estimate,
        min(message_index) as first_message,
        bool_and(is_there) as is_there
    from window_parts
    group by trajectory_id, window_index

),

hashed as (

    select
        windows.*,
        {{ sha256_hex("windows.text") }} as text_hash
    from windows

),

wholes as (

    select
        trajectory_id,
        {{ short_hash(ordered_string_agg("text_hash", " ", "window_index")) }} as content_hash,
        bool_and(is_there) as is_complete
    from hashed
    group by trajectory_id

)

select
    hashed.trajectory_id,
    hashed.window_index,
    wholes.content_hash,
    hashed.text_hash,
    hashed.text,
    hashed.token_estimate,
    cast(hashed.first_message as bigint) as first_message,
    wholes.is_complete,
    false as is_deleted
from hashed
inner join wholes on hashed.trajectory_id = wholes.trajectory_id

{% if is_incremental() %}
union all

select
    known.{{ columns | join(",\n    known.") }},
    true as is_deleted
from {{ this }} as known
inner join trajectories on known.trajectory_id = trajectories.trajectory_id
left join hashed
    on known.trajectory_id = hashed.trajectory_id
    and known.window_index = hashed.window_index
where hashed.trajectory_id is null
{% endif %}
