{# The first `length` elements of a list. #}
{% macro list_head(list, length) %}
  {{- return(adapter.dispatch("list_head", "loreline")(list, length)) -}}
{% endmacro %}


{% macro duckdb__list_head(list, length) -%}
  list_slice({{ list }}, 1, {{ length }})
{%- endmacro %}


{% macro spark__list_head(list, length) -%}
  slice({{ list }}, 1, cast({{ length }} as int))
{%- endmacro %}
