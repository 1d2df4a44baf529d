{# When a record was written, UTC, as its format says; null where that is no time. A format
   without a year means the year in which the file was written, or the one before. #}
{% macro log_time(format, text, written_at, formats) %}
  {{- return(adapter.dispatch("log_time", "loreline")(format, text, written_at, formats)) -}}
{% endmacro %}


{% macro duckdb__log_time(format, text, written_at, formats) -%}
  case {{ format }}
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
      {#- Seconds, milli-, micro- or nanoseconds since 1970, by how many they are. -#}
      make_timestamp(cast(
        try_cast({{ text }} as double)
        * case
          when abs(try_cast({{ text }} as double)) < 1e11 then 1e6
          when abs(try_cast({{ text }} as double)) < 1e14 then 1e3
          when abs(try_cast({{ text }} as double)) < 1e17 then 1
          else 1e-3
        end
        as bigint
      ))
    )
  end
{%- endmacro %}


{% macro spark__log_time(format, text, written_at, formats) -%}
  {%- set letters = {
    "%Y": "yyyy", "%m": "MM", "%b": "MMM", "%d": "d", "%H": "HH", "%M": "mm", "%S": "ss", "%z": "Z",
  } -%}
  case {{ format }}
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
          else 1e-3
        end
        as bigint
      ))
    )
  end
{%- endmacro %}
