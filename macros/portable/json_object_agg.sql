{# A JSON object, as text, from the pairs of a group; pairs without a key are left out. #}
{% macro json_object_agg(key, value) %}
  {{- return(adapter.dispatch("json_object_agg", "loreline")(key, value)) -}}
{% endmacro %}


{% macro duckdb__json_object_agg(key, value) -%}
  cast(json_group_object({{ key }}, {{ value }}) filter (where {{ key }} is not null) as varchar)
{%- endmacro %}


{% macro spark__json_object_agg(key, value) -%}
  to_json(map_from_entries(collect_list(struct({{ key }}, {{ value }})) filter (where {{ key }} is not null)))
{%- endmacro %}
