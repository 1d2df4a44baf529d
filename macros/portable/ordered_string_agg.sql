{# Texts of a group joined in the order of `order_by`, which must differ within the group and not
   be null; nulls among the texts are left out. #}
{% macro ordered_string_agg(text, separator, order_by) %}
  {{- return(adapter.dispatch("ordered_string_agg", "loreline")(text, separator, order_by)) -}}
{% endmacro %}


{% macro duckdb__ordered_string_agg(text, separator, order_by) -%}
  coalesce(string_agg({{ text }}, '{{ separator }}' order by {{ order_by }} nulls last), '')
{%- endmacro %}


{% macro spark__ordered_string_agg(text, separator, order_by) -%}
  array_join(
    transform(
      array_sort(collect_list(struct({{ order_by }} as position, {{ text }} as text))),
      x -> x.text
    ),
    '{{ separator }}'
  )
{%- endmacro %}
