{# A JSON list of scalars as a list of text; null where there is none. #}
{% macro json_text_list(column, path) %}
  {{- return(adapter.dispatch("json_text_list", "loreline")(column, path)) -}}
{% endmacro %}


{% macro duckdb__json_text_list(column, path) -%}
  from_json(json_extract({{ column }}, '{{ path }}'), '["VARCHAR"]')
{%- endmacro %}


{% macro spark__json_text_list(column, path) -%}
  from_json(get_json_object({{ column }}, '{{ path }}'), 'array<string>')
{%- endmacro %}
