{# The elements of a list of text, joined. #}
{% macro joined_list(list, separator) %}
  {{- return(adapter.dispatch("joined_list", "loreline")(list, separator)) -}}
{% endmacro %}


{% macro duckdb__joined_list(list, separator) -%}
  array_to_string({{ list }}, '{{ separator }}')
{%- endmacro %}


{% macro spark__joined_list(list, separator) -%}
  array_join({{ list }}, '{{ separator }}')
{%- endmacro %}
