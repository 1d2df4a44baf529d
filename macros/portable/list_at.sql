{# The element of a list at a position counted from 1; null where there is none. #}
{% macro list_at(list, position) %}
  {{- return(adapter.dispatch("list_at", "loreline")(list, position)) -}}
{% endmacro %}


{% macro duckdb__list_at(list, position) -%}
  list_extract({{ list }}, {{ position }})
{%- endmacro %}


{% macro spark__list_at(list, position) -%}
  try_element_at({{ list }}, {{ position }})
{%- endmacro %}
