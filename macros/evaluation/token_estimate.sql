{# About how many tokens a text has: one per three letters of a word, one per any other sign. That
   is rather too many for prose in Latin letters, and about right for code and other scripts. #}
{% macro token_estimate(text) -%}
  {{ list_length(
    "regexp_extract_all(" ~ text ~ ", " ~ regex("([A-Za-z]{1,3}|[^A-Za-z\s])") ~ ", 1)"
  ) }}
{%- endmacro %}
