{# What names a turn: tenant, turn id and what was asked. Its hash is the turn_key. #}
{% macro turn_name(requests=none) -%}
  {%- set of = requests ~ "." if requests else "" -%}
  {{ of }}tenant || chr(31) || {{ of }}turn_id || chr(31) || {{ of }}request_hash
{%- endmacro %}
