{# A UTC timestamp as yyyy-mm-dd hh:mm. #}
{% macro minute_text(timestamp) %}
  {{- return(adapter.dispatch("minute_text", "loreline")(timestamp)) -}}
{% endmacro %}


{% macro duckdb__minute_text(timestamp) -%}
  strftime({{ timestamp }}, '%Y-%m-%d %H:%M')
{%- endmacro %}


{% macro spark__minute_text(timestamp) -%}
  date_format({{ timestamp }}, 'yyyy-MM-dd HH:mm')
{%- endmacro %}
