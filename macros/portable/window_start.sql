{# The beginning of the window of so many minutes, counted from 1970, in which a timestamp lies. #}
{% macro window_start(timestamp, minutes) %}
  {{- return(adapter.dispatch("window_start", "loreline")(timestamp, minutes)) -}}
{% endmacro %}


{% macro duckdb__window_start(timestamp, minutes) -%}
  time_bucket(interval '{{ minutes }} minutes', {{ timestamp }}, timestamp '1970-01-01')
{%- endmacro %}


{% macro spark__window_start(timestamp, minutes) -%}
  timestamp_seconds(
    cast(floor(unix_seconds({{ timestamp }}) / ({{ minutes }} * 60)) as bigint) * {{ minutes }} * 60
  )
{%- endmacro %}
