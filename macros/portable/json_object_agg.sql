{# A JSON object, as text, from the pairs of a group; keys must be distinct and not null. #}
{% macro json_object_agg(key, value) %}
  {{- return(adapter.dispatch("json_object_agg", "loreline")(key, value)) -}}
{% endmacro %}


{% macro duckdb__json_object_agg(key, value) -%}
  cast(json_group_object({{ key }}, {{ value }}) as varchar)
{%- endmacro %}


{% macro spark__json_object_agg(key, value) -%}
  to_json(map_from_entries(collect_list(struct({{ key }}, {{ value }}))))
{%- endmacro %}
