{# A regular expression as a text: Spark reads a backslash in a plain one as an escape. #}
{% macro regex(pattern) %}
  {{- return(adapter.dispatch("regex", "loreline")(pattern)) -}}
{% endmacro %}


{% macro duckdb__regex(pattern) -%}
  '{{ pattern }}'
{%- endmacro %}


{% macro spark__regex(pattern) -%}
  r'{{ pattern }}'
{%- endmacro %}
