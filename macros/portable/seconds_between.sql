{# Elapsed whole seconds between two timestamps. #}
{% macro seconds_between(earlier, later) %}
  {{- return(adapter.dispatch("seconds_between", "loreline")(earlier, later)) -}}
{% endmacro %}


{% macro duckdb__seconds_between(earlier, later) -%}
  (epoch_us({{ later }}) - epoch_us({{ earlier }})) // 1000000
{%- endmacro %}


{% macro spark__seconds_between(earlier, later) -%}
  (unix_micros({{ later }}) - unix_micros({{ earlier }})) div 1000000
{%- endmacro %}
