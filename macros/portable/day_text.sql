{# The UTC day of a timestamp as yyyy-mm-dd. #}
{% macro day_text(timestamp) %}
  {{- return(adapter.dispatch("day_text", "loreline")(timestamp)) -}}
{% endmacro %}


{% macro duckdb__day_text(timestamp) -%}
  strftime({{ timestamp }}, '%Y-%m-%d')
{%- endmacro %}


{% macro spark__day_text(timestamp) -%}
  date_format({{ timestamp }}, 'yyyy-MM-dd')
{%- endmacro %}
