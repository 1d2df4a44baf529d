{# A list with one more element at its end; null where the list is null. #}
{% macro list_append(list, element) %}
  {{- return(adapter.dispatch("list_append", "loreline")(list, element)) -}}
{% endmacro %}


{% macro duckdb__list_append(list, element) -%}
  case when {{ list }} is not null then list_append({{ list }}, {{ element }}) end
{%- endmacro %}


{% macro spark__list_append(list, element) -%}
  array_append({{ list }}, {{ element }})
{%- endmacro %}
