{# A text from a log as a code span: on one line, without what would end it. #}
{% macro log_code(text) -%}
  '`' || {{ replace_all(
    "replace(substr(" ~ text ~ ", 1, " ~ var("log_line_characters") ~ "), '`', '''')",
    regex("[\\x00-\\x20\\x7f]+"),
    "' '"
  ) }} || '`'
{%- endmacro %}
