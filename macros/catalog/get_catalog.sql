{# The columns of the lake's tables for `dbt docs`. DuckDB learns the columns of an Iceberg table
   when a statement first names it; until then its catalog shows one column `__`. #}
{% macro duckdb__get_catalog(information_schema, schemas) %}
  {% do learn_columns(information_schema.database, schemas) %}
  {% do return(dbt.duckdb__get_catalog(information_schema, schemas)) %}
{% endmacro %}


{% macro duckdb__get_catalog_relations(information_schema, relations) %}
  {% set schemas = relations | map(attribute="schema") | unique | list %}
  {% do learn_columns(information_schema.database, schemas) %}
  {% do return(dbt.duckdb__get_catalog_relations(information_schema, relations)) %}
{% endmacro %}


{% macro learn_columns(database, schemas) %}
  {% set tables = run_query(
    "select schema_name, table_name from duckdb_tables() where database_name = '" ~ database ~ "'"
  ) %}
  {% for table in tables if table["schema_name"] in schemas %}
    {% set relation = api.Relation.create(database, table["schema_name"], table["table_name"]) %}
    {% do run_query("describe " ~ relation) %}
  {% endfor %}
{% endmacro %}
