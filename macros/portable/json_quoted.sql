{# A text as a JSON string, `null` for null. #}
{% macro json_quoted(text) %}
  {{- return(adapter.dispatch("json_quoted", "loreline")(text)) -}}
{% endmacro %}


{% macro duckdb__json_quoted(text) -%}
  coalesce(cast(to_json({{ text }}) as varchar), 'null')
{%- endmacro %}


{% macro spark__json_quoted(text) -%}
  coalesce(regexp_extract(to_json(array({{ text }})), '(?s)^\\[(.*)\\]$', 1), 'null')
{%- endmacro %}
