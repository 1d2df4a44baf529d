{# Texts of a group joined in the order of `order_by`, which must differ within the group. #}
{% macro ordered_string_agg(text, separator, order_by) %}
  {{- return(adapter.dispatch("ordered_string_agg", "loreline")(text, separator, order_by)) -}}
{% endmacro %}


{% macro duckdb__ordered_string_agg(text, separator, order_by) -%}
  string_agg({{ text }}, '{{ separator }}' order by {{ order_by }} nulls last)
{%- endmacro %}


{% macro spark__ordered_string_agg(text, separator, order_by) -%}
  array_join(transform(array_sort(collect_list(struct({{ order_by }} as o, {{ text }} as t))), x -> x.t), '{{ separator }}')
{%- endmacro %}
