{# The name of a table or view in Postgres, as DuckDB reads it. #}
{% macro postgres_table(schema, name) %}
  {%- do return("pg." ~ generate_schema_name(schema, none) ~ "." ~ name) -%}
{% endmacro %}
