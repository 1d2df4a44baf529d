{# How far an attempt got, 0 for the furthest. #}
{% macro attempt_rank(status) -%}
  case {{ status }} when 'completed' then 0 when 'interrupted' then 1 else 2 end
{%- endmacro %}
