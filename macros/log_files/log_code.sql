{# A text from a log as a code span: on one line, without what would end it. #}
{% macro log_code(text) -%}
  '`' || {{ replace_all(
    "replace(substr(" ~ text ~ ", 1, " ~ var("log_line_characters") ~ "), '`', '''')",
    "'[[:cntrl:][:space:]]+'",
    "' '"
  ) }} || '`'
{%- endmacro %}
