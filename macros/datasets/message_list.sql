{# JSON messages side by side, of one or two texts, as the JSON text of a list. #}
{% macro message_list(first, second=none) -%}
  '[' || {{ first }}
  {%- if second %} || case when {{ first }} = '' then '' else ',' end || {{ second }}{% endif %}
  || ']'
{%- endmacro %}
