{# When a record was written, UTC, as its format says; null where that is no time of the years 1 to
   9999. A format without a year means the year in which the file was written, or the one before. #}
{% macro log_time(format, text, written_at, formats) %}
  {{- return(adapter.dispatch("log_time", "loreline")(format, text, written_at, formats)) -}}
{% endmacro %}


{% macro duckdb__log_time(format, text, written_at, formats) -%}
  list_extract(list_filter([
  case {{ format }}
    {#- A case needs a branch, also where all formats have times as ISO 8601 writes them. #}
    when null then null
    {%- for row in formats if row.time_format != "iso" %}
    when {{ sql_text(row.log_format) }} then
      {%- if "%Y" in row.time_format %}
      cast(try_strptime({{ text }}, {{ sql_text(row.time_format) }}) as timestamp)
      {%- else %}
      {%- set this_year = "try_strptime(" ~ text ~ " || strftime(" ~ written_at ~ ", ' %Y'), "
        ~ sql_text(row.time_format ~ " %Y") ~ ")" %}
      {{ this_year }} - case
        when {{ this_year }} > {{ written_at }} + interval 1 day then interval 1 year
        else interval 0 year
      end
      {%- endif %}
    {%- endfor %}
    else coalesce(
      cast(try_cast(replace({{ text }}, ',', '.') as timestamptz) as timestamp),
      {#- Seconds, milli-, micro- or nanoseconds since 1970, by how many they are; nothing that is
          infinite, or no number, which is more than any is. -#}
      make_timestamp(cast(
        try_cast({{ text }} as double)
        * case
          when abs(try_cast({{ text }} as double)) < 1e11 then 1e6
          when abs(try_cast({{ text }} as double)) < 1e14 then 1e3
          when abs(try_cast({{ text }} as double)) < 1e17 then 1
          when abs(try_cast({{ text }} as double)) < 1e20 then 1e-3
        end
        as bigint
      ))
    )
  end
  ], lambda found: {{ is_log_time("found") }}), 1)
{%- endmacro %}


{% macro spark__log_time(format, text, written_at, formats) -%}
  {%- set letters = {
    "%Y": "yyyy", "%m": "MM", "%b": "MMM", "%d": "d", "%H": "HH", "%M": "mm", "%S": "ss", "%z": "Z",
  } -%}
  try_element_at(filter(array(
  case {{ format }}
    {#- A case needs a branch, also where all formats have times as ISO 8601 writes them. #}
    when null then null
    {%- for row in formats if row.time_format != "iso" %}
    {%- set pattern = namespace(text=row.time_format) %}
    {%- for sign, letter in letters.items() %}
      {%- set pattern.text = pattern.text | replace(sign, letter) %}
    {%- endfor %}
    when {{ sql_text(row.log_format) }} then
      {%- if "%Y" in row.time_format %}
      try_to_timestamp({{ text }}, {{ sql_text(pattern.text) }})
      {%- else %}
      {%- set this_year = "try_to_timestamp(" ~ text ~ " || date_format(" ~ written_at
        ~ ", ' yyyy'), " ~ sql_text(pattern.text ~ " yyyy") ~ ")" %}
      {{ this_year }} - case
        when {{ this_year }} > {{ written_at }} + interval 1 day then interval 1 year
        else interval 0 year
      end
      {%- endif %}
    {%- endfor %}
    else coalesce(
      try_to_timestamp(replace({{ text }}, ',', '.')),
      timestamp_micros(cast(
        try_cast({{ text }} as double)
        * case
          when abs(try_cast({{ text }} as double)) < 1e11 then 1e6
          when abs(try_cast({{ text }} as double)) < 1e14 then 1e3
          when abs(try_cast({{ text }} as double)) < 1e17 then 1
          when abs(try_cast({{ text }} as double)) < 1e20 then 1e-3
        end
        as bigint
      ))
    )
  end
  ), found -> {{ is_log_time("found") }}), 1)
{%- endmacro %}


{# Whether a timestamp is one that every engine and file format can hold. #}
{% macro is_log_time(timestamp) -%}
  {{ timestamp }} between timestamp '0001-01-01' and timestamp '9999-12-31'
{%- endmacro %}
