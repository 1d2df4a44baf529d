{# The scalars at several JSON paths as a list of text, from one reading of the JSON. #}
{% macro json_texts(column, paths) %}
  {{- return(adapter.dispatch("json_texts", "loreline")(column, paths)) -}}
{% endmacro %}


{% macro duckdb__json_texts(column, paths) -%}
  json_extract_string({{ column }}, ['{{ paths | join("', '") }}'])
{%- endmacro %}


{% macro spark__json_texts(column, paths) -%}
  transform(array('{{ paths | join("', '") }}'), path -> get_json_object({{ column }}, path))
{%- endmacro %}
