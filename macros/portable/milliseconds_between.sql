{# Elapsed whole milliseconds between two timestamps. #}
{% macro milliseconds_between(earlier, later) %}
  {{- return(adapter.dispatch("milliseconds_between", "loreline")(earlier, later)) -}}
{% endmacro %}


{% macro duckdb__milliseconds_between(earlier, later) -%}
  (epoch_us({{ later }}) - epoch_us({{ earlier }})) // 1000
{%- endmacro %}


{% macro spark__milliseconds_between(earlier, later) -%}
  (unix_micros({{ later }}) - unix_micros({{ earlier }})) div 1000
{%- endmacro %}
