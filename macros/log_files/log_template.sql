{# A message with its variable parts masked, by the rows of `log_masks` one after the other. #}
{% macro log_template(message, masks) %}
  {{- return(adapter.dispatch("log_template", "loreline")(message, masks)) -}}
{% endmacro %}


{% macro duckdb__log_template(message, masks) -%}
  {%- set masked = namespace(text=message) -%}
  {%- for mask in masks -%}
    {%- set masked.text = "regexp_replace(" ~ masked.text ~ ", " ~ sql_text(mask.pattern)
      ~ ", " ~ sql_text(mask.replacement) ~ ", 'g')" -%}
  {%- endfor -%}
  trim({{ masked.text }})
{%- endmacro %}


{% macro spark__log_template(message, masks) -%}
  {%- set masked = namespace(text=message) -%}
  {%- for mask in masks -%}
    {%- set replacement = modules.re.sub("\\\\(\\d)", "$\\1", mask.replacement or "") -%}
    {%- set masked.text = "regexp_replace(" ~ masked.text ~ ", " ~ sql_text(mask.pattern)
      ~ ", " ~ sql_text(replacement) ~ ")" -%}
  {%- endfor -%}
  trim({{ masked.text }})
{%- endmacro %}
