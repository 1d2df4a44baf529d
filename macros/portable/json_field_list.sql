{# One field of each object in a JSON list, as a list of text; null where there is no list. #}
{% macro json_field_list(column, path, field) %}
  {{- return(adapter.dispatch("json_field_list", "loreline")(column, path, field)) -}}
{% endmacro %}


{% macro duckdb__json_field_list(column, path, field) -%}
  list_transform(
    from_json(json_extract({{ column }}, '{{ path }}'), '["JSON"]'),
    lambda x: json_extract_string(x, '{{ field }}')
  )
{%- endmacro %}


{% macro spark__json_field_list(column, path, field) -%}
  transform(
    from_json(get_json_object({{ column }}, '{{ path }}'), 'array<string>'),
    x -> get_json_object(x, '{{ field }}')
  )
{%- endmacro %}
