{# A text as a literal. #}
{% macro sql_text(text) %}
  {{- return(adapter.dispatch("sql_text", "loreline")(text)) -}}
{% endmacro %}


{% macro duckdb__sql_text(text) -%}
  '{{ (text or "") | replace("'", "''") }}'
{%- endmacro %}


{% macro spark__sql_text(text) -%}
  '{{ (text or "") | replace("\\", "\\\\") | replace("'", "\\'") }}'
{%- endmacro %}
