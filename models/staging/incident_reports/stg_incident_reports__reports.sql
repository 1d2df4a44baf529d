-- One row per observed version of an incident report, its front matter and text parsed once.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="raw_dlt_id") }}

{% set lists = ["services", "authors", "tags"] %}
{% set words = ["title", "severity", "status", "commander", "url"] %}
{% set times = ["started_at", "detected_at", "resolved_at"] %}

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
    from {{ source("raw_incident_reports", "reports") }}
    where {{ newer_than_watermark(source("raw_incident_reports", "reports")) }}

),

clean_columns as (

    select
        _dlt_id as raw_dlt_id,
        _batch as raw_batch,
        external_id as incident_id,
        {% for name in words %}
        {{ json_text("payload", "$.fields." ~ name) }} as {{ name }},
        {% endfor %}
        {% for name in times %}
        {% set written = json_text("payload", "$.fields." ~ name) %}
        -- A time without seconds is one too.
        {{ iso_to_timestamp(
            "case when regexp_extract(" ~ written ~ ", "
            ~ regex("^[0-9-]{10}[T ][0-9]{2}:[0-9]{2}(?:[^0-9:]|$)") ~ ", 0) <> ''"
            ~ " then substr(" ~ written ~ ", 1, 16) || ':00' || substr(" ~ written ~ ", 17)"
            ~ " else " ~ written ~ " end"
        ) }} as {{ name }},
        {% endfor %}
        {% for name in lists %}
        -- One name may stand there without a list around it.
        case
            when {{ json_text("payload", "$.fields." ~ name) }} is null then {{ list_of([]) }}
            when substr({{ json_text("payload", "$.fields." ~ name) }}, 1, 1) = '['
                then {{ json_text_list("payload", "$.fields." ~ name) }}
            else {{ list_of([json_text("payload", "$.fields." ~ name)]) }}
        end as {{ name }},
        {% endfor %}
        {{ json_text("payload", "$.fields") }} as fields,
        {{ canonical_text("coalesce(" ~ json_text("payload", "$.body") ~ ", '')") }} as report,
        source_updated_at,
        observed_at,
        landed_at,
        is_deleted
    from source

),

headed as (

    select
        *,
        '- Incident: ' || incident_id
        {%- for name in ["severity", "status"] %}
        || coalesce(chr(10) || '- {{ name | capitalize }}: ' || {{ name }}, '')
        {%- endfor %}
        {%- for name in times %}
        || coalesce(
            chr(10) || '- {{ name | replace("_at", "") | capitalize }}: '
            || {{ minute_text(name) }} || ' UTC',
            ''
        )
        {%- endfor %}
        || coalesce(chr(10) || '- Commander: ' || commander, '')
        {%- for name in lists %}
        || case
            when {{ list_length(name) }} = 0 then ''
            else chr(10) || '- {{ name | capitalize }}: ' || {{ joined_list(name, ", ") }}
        end
        {%- endfor %} as head
    from clean_columns

)

select
    raw_dlt_id,
    raw_batch,
    incident_id,
    coalesce(
        title,
        nullif(regexp_extract(chr(10) || report, {{ regex("\\n# +([^\\n]+)") }}, 1), ''),
        incident_id
    ) as title,
    severity,
    status,
    started_at,
    detected_at,
    resolved_at,
    services,
    commander,
    authors,
    tags,
    url,
    fields,
    {{ canonical_text("head || chr(10) || chr(10) || report") }} as body,
    source_updated_at,
    observed_at,
    landed_at,
    is_deleted
from headed
