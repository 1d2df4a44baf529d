{# An example from a log as an indented block of code, which nothing in it can end. #}
{% macro log_code_block(text) -%}
  '      ' || replace({{ replace_all(text, regex("[\\x00-\\x08\\x0b-\\x1f\\x7f]|\\s+$"), "''") }}, chr(10), chr(10) || '      ')
{%- endmacro %}
