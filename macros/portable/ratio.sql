{# A number divided by another, as a double; null where that is zero or one of them is null. #}
{% macro ratio(part, whole) %}
  {{- return(adapter.dispatch("ratio", "loreline")(part, whole)) -}}
{% endmacro %}


{% macro duckdb__ratio(part, whole) -%}
  cast({{ part }} as double) / nullif(cast({{ whole }} as double), 0)
{%- endmacro %}


{% macro spark__ratio(part, whole) -%}
  cast({{ part }} as double) / nullif(cast({{ whole }} as double), 0)
{%- endmacro %}
