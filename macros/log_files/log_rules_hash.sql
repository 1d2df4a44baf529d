{# A hash of all that decides what is read of log lines, for one and all rows. #}
{% macro log_rules_hash(formats, masks, levels) -%}
  {{ short_hash(sql_text([formats, masks, levels, var("log_window_minutes")] | string)) }}
{%- endmacro %}
