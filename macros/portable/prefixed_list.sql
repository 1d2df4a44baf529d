{# A list of text with the same text put before each element. #}
{% macro prefixed_list(list, prefix) %}
  {{- return(adapter.dispatch("prefixed_list", "loreline")(list, prefix)) -}}
{% endmacro %}


{% macro duckdb__prefixed_list(list, prefix) -%}
  list_transform({{ list }}, lambda x: '{{ prefix }}' || x)
{%- endmacro %}


{% macro spark__prefixed_list(list, prefix) -%}
  transform({{ list }}, x -> concat('{{ prefix }}', x))
{%- endmacro %}
