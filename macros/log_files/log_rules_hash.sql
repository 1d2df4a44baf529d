{# A hash of all that decides what is read of log lines, as a literal. #}
{% macro log_rules_hash(formats, masks, levels) -%}
  '{{ local_md5(tojson([formats, masks, levels, var("log_window_minutes")], sort_keys=true)) }}'
{%- endmacro %}
