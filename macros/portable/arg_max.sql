{# The value, null included, of the row of a group at which `by` is greatest. #}
{% macro arg_max(value, by) %}
  {{- return(adapter.dispatch("arg_max", "loreline")(value, by)) -}}
{% endmacro %}


{% macro duckdb__arg_max(value, by) -%}
  arg_max_null({{ value }}, {{ by }})
{%- endmacro %}


{% macro spark__arg_max(value, by) -%}
  max_by({{ value }}, {{ by }})
{%- endmacro %}
