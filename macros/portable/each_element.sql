{# In a select list: a row for each element of a list, none for an empty one. #}
{% macro each_element(list) %}
  {{- return(adapter.dispatch("each_element", "loreline")(list)) -}}
{% endmacro %}


{% macro duckdb__each_element(list) -%}
  unnest({{ list }})
{%- endmacro %}


{% macro spark__each_element(list) -%}
  explode({{ list }})
{%- endmacro %}
