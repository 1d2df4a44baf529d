{# A text with each match of a regular expression replaced; the pattern is a constant. #}
{% macro replace_all(text, pattern, replacement) %}
  {{- return(adapter.dispatch("replace_all", "loreline")(text, pattern, replacement)) -}}
{% endmacro %}


{% macro duckdb__replace_all(text, pattern, replacement) -%}
  regexp_replace({{ text }}, {{ pattern }}, {{ replacement }}, 'g')
{%- endmacro %}


{% macro spark__replace_all(text, pattern, replacement) -%}
  regexp_replace({{ text }}, {{ pattern }}, {{ replacement }})
{%- endmacro %}
