{# The value, null included, of the row of a group at which `by` is least. #}
{% macro arg_min(value, by) %}
  {{- return(adapter.dispatch("arg_min", "loreline")(value, by)) -}}
{% endmacro %}


{% macro duckdb__arg_min(value, by) -%}
  arg_min_null({{ value }}, {{ by }})
{%- endmacro %}


{% macro spark__arg_min(value, by) -%}
  min_by({{ value }}, {{ by }})
{%- endmacro %}
