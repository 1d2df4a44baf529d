{# The scalar at a JSON path as text; null where there is none. #}
{% macro json_text(column, path) %}
  {{- return(adapter.dispatch("json_text", "loreline")(column, path)) -}}
{% endmacro %}


{% macro duckdb__json_text(column, path) -%}
  json_extract_string({{ column }}, '{{ path }}')
{%- endmacro %}


{% macro spark__json_text(column, path) -%}
  get_json_object({{ column }}, '{{ path }}')
{%- endmacro %}
