{# A from-clause item: one row `choice` per answer of a row of `requests`; of a request that was
   answered nothing one whose element is null. #}
{% macro each_choice(requests) -%}
  {{ unnest_with_position(
      "case when " ~ list_length(requests ~ ".choices") ~ " > 0 then " ~ requests ~ ".choices else "
      ~ list_of(["null"]) ~ " end", "choice"
  ) }}
{%- endmacro %}
