{# The number of elements of a list. #}
{% macro list_length(list) %}
  {{- return(adapter.dispatch("list_length", "loreline")(list)) -}}
{% endmacro %}


{% macro duckdb__list_length(list) -%}
  len({{ list }})
{%- endmacro %}


{% macro spark__list_length(list) -%}
  array_size({{ list }})
{%- endmacro %}
