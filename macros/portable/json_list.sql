{# The elements of a JSON list, each as JSON; null where there is no list. #}
{% macro json_list(column, path) %}
  {{- return(adapter.dispatch("json_list", "loreline")(column, path)) -}}
{% endmacro %}


{% macro duckdb__json_list(column, path) -%}
  from_json(json_extract({{ column }}, '{{ path }}'), '["JSON"]')
{%- endmacro %}


{% macro spark__json_list(column, path) -%}
  from_json(get_json_object({{ column }}, '{{ path }}'), 'array<string>')
{%- endmacro %}
