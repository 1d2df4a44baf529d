{# The distinct values of a group as a sorted list, nulls left out; empty where there are none. #}
{% macro distinct_list(value) %}
  {{- return(adapter.dispatch("distinct_list", "loreline")(value)) -}}
{% endmacro %}


{% macro duckdb__distinct_list(value) -%}
  coalesce(list_sort(array_agg(distinct {{ value }}) filter ({{ value }} is not null)), [])
{%- endmacro %}


{% macro spark__distinct_list(value) -%}
  array_sort(collect_set({{ value }}))
{%- endmacro %}
