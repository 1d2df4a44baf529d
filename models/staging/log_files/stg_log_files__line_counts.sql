-- One row per landed block, service, window, level and template: how many of its records say this.
-- What no format fits has no window; a block also has a row for its blank lines, which count for
-- nothing. Records are read, masked and counted in one go: a row for each would only be written to
-- be summed.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="line_count_id") }}

{% set formats = seed_rows(ref("log_formats"), "position") %}
{% set masks = seed_rows(ref("log_masks"), "position") %}
{% set levels = seed_rows(ref("log_levels"), "level_scale, written") %}

with source as (

    select
        _dlt_id as raw_dlt_id,
        observed_at,
        {{ json_texts(
            raw_payload("payload", "raw_object_uri"),
            ["$.file", "$.end", "$.continues", "$.text"]
        ) }} as said
    from {{ source("raw_log_files", "lines") }}
    where {{ newer_than_watermark(source("raw_log_files", "lines")) }}

),

-- The same rows without what they hold.
arrived as (

    select
        _dlt_id as raw_dlt_id,
        external_id,
        observed_at,
        _batch
    from {{ source("raw_log_files", "lines") }}
    where {{ newer_than_watermark(source("raw_log_files", "lines")) }}

),

blocks as (

    select
        raw_dlt_id,
        observed_at,
        regexp_extract(
            {{ list_at("said", 1) }},
            {{ regex("([^/]+?)(?:[._-][0-9]{4}-?[0-9]{2}-?[0-9]{2}[^/]*|[.][^/]*)?$") }},
            1
        ) as file_service,
        cast({{ list_at("said", 2) }} as bigint) as block_end,
        {{ list_at("said", 3) }} = 'true' as continues,
        {{ list_at("said", 4) }} as text
    from source

),

-- Line ends of one kind, and no sign that the records are told apart by. Most blocks are so, and to
-- look costs a tenth of replacing nothing.
cleaned as (

    select
        raw_dlt_id,
        observed_at,
        file_service,
        block_end,
        continues,
        case
            when text like ('%' || chr(13) || '%') or text like ('%' || chr(30) || '%')
                then replace(replace(text, chr(13) || chr(10), chr(10)), chr(30), '')
            else text
        end as block
    from blocks

),

records as (

    select
        raw_dlt_id,
        block_end,
        observed_at,
        file_service,
        {{ each_element(log_records("block", "continues", formats)) }} as record
    from cleaned

),

parsed as (

    select
        raw_dlt_id,
        block_end,
        observed_at,
        file_service,
        record,
        {{ log_fields("record", formats) }} as fields
    from records

),

timed as (

    select
        raw_dlt_id,
        block_end,
        record,
        coalesce({{ list_at("fields", 4) }}, file_service) as service,
        {{ list_at("fields", 1) }} as log_format,
        lower({{ list_at("fields", 3) }}) as written_level,
        coalesce(
            {{ list_at("fields", 5) }}, regexp_extract(record, {{ regex("^[^\\n]*") }}, 0)
        ) as message,
        {{ log_time(
            list_at("fields", 1), list_at("fields", 2), "observed_at", formats
        ) }} as logged_at
    from parsed

),

masked as (

    select
        raw_dlt_id,
        block_end,
        record,
        service,
        log_format,
        written_level,
        {{ log_template("message", masks) }} as template,
        {{ window_start("logged_at", var("log_window_minutes")) }} as window_start,
        logged_at
    from timed

),

counted as (

    select
        raw_dlt_id,
        block_end,
        service,
        log_format,
        written_level,
        template,
        window_start,
        -- What has a format is not blank.
        sum(
            case
                when log_format is null and trim(replace(record, chr(10), '')) = '' then 0
                else 1
            end
        ) as line_count,
        min(logged_at) as first_at,
        max(logged_at) as last_at,
        -- Lines begin with their time: the least is the first, in whatever order they came.
        min(record) as example
    from masked
    group by
        raw_dlt_id,
        block_end,
        service,
        log_format,
        written_level,
        template,
        window_start

),

-- What two formats or two words for a level say alike is one.
summed as (

    select
        counted.raw_dlt_id,
        counted.block_end,
        counted.service,
        counted.window_start,
        coalesce(levels.level, 'unknown') as level,
        counted.template,
        cast(sum(counted.line_count) as bigint) as line_count,
        min(counted.first_at) as first_at,
        max(counted.last_at) as last_at,
        min(counted.example) as example
    from counted
    left join {{ ref("log_formats") }} as formats
        on counted.log_format = formats.log_format
    left join {{ ref("log_levels") }} as levels
        on formats.level_scale = levels.level_scale
        and counted.written_level = levels.written
    group by
        counted.raw_dlt_id,
        counted.block_end,
        counted.service,
        counted.window_start,
        coalesce(levels.level, 'unknown'),
        counted.template

)

select
    {{ short_hash(
        "summed.raw_dlt_id || chr(31) || summed.service || chr(31)"
        ~ " || coalesce(cast(summed.window_start as string), '') || chr(31) || summed.level"
        ~ " || chr(31) || summed.template"
    ) }} as line_count_id,
    summed.raw_dlt_id,
    arrived._batch as raw_batch,
    arrived.external_id as block_id,
    summed.block_end,
    summed.service,
    summed.window_start,
    summed.level,
    {{ short_hash("summed.template") }} as template_id,
    summed.template,
    summed.line_count,
    summed.first_at,
    summed.last_at,
    {{ replace_all(
        "substr(summed.example, 1, " ~ var("log_example_characters") ~ ")", regex("\\s+$"), "''"
    ) }} as example,
    arrived.observed_at,
    {{ log_rules_hash(formats, masks, levels) }} as config_hash
from summed
inner join arrived on summed.raw_dlt_id = arrived.raw_dlt_id
