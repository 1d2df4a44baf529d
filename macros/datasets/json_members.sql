{# A JSON object, as text, whose members are texts: `members` names each with its expression. #}
{% macro json_members(members) -%}
  '{'
  {%- for name, text in members.items() %}
  || '{{ "," if not loop.first }}"{{ name }}":' || {{ json_quoted(text) }}
  {%- endfor %}
  || '}'
{%- endmacro %}
