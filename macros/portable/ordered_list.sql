{# The values of a group as a list in the order of `order_by`, which must differ within the group
   and not be null. #}
{% macro ordered_list(value, order_by) %}
  {{- return(adapter.dispatch("ordered_list", "loreline")(value, order_by)) -}}
{% endmacro %}


{% macro duckdb__ordered_list(value, order_by) -%}
  array_agg({{ value }} order by {{ order_by }} nulls last)
{%- endmacro %}


{% macro spark__ordered_list(value, order_by) -%}
  transform(
    array_sort(collect_list(struct({{ order_by }} as position, {{ value }} as value))),
    x -> x.value
  )
{%- endmacro %}
