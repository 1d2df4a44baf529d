{# A list in ascending order, nulls last. #}
{% macro sorted_list(list) %}
  {{- return(adapter.dispatch("sorted_list", "loreline")(list)) -}}
{% endmacro %}


{% macro duckdb__sorted_list(list) -%}
  list_sort({{ list }}, 'ASC', 'NULLS LAST')
{%- endmacro %}


{% macro spark__sorted_list(list) -%}
  array_sort({{ list }})
{%- endmacro %}
