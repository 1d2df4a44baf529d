{# The tables of the lake and of Postgres, for dbt's cache and for `dbt docs`. The stores are asked,
   not `duckdb_tables()`: DuckDB replaces its entry of an Iceberg table when a statement first names
   the table, and whoever lists the entries in another thread then reads one that is freed. Until
   then, too, that entry has one column `__`. #}

{% macro duckdb__list_relations_without_caching(schema_relation) %}
  {% set database, schema = schema_relation.database, schema_relation.schema %}
  {% do return(run_query(
    "select '" ~ database ~ "' as database, name, '" ~ schema ~ "' as schema, 'table' as type "
    ~ "from unnest(" ~ stored_tables(database, schema) ~ "::varchar[]) as tables(name)"
  )) %}
{% endmacro %}


{% macro duckdb__get_catalog(information_schema, schemas) %}
  {% set relations = [] %}
  {% for schema in schemas %}
    {% do relations.append(api.Relation.create(information_schema.database, schema)) %}
  {% endfor %}
  {% do return(duckdb__get_catalog_relations(information_schema, relations)) %}
{% endmacro %}


{% macro duckdb__get_catalog_relations(information_schema, relations) %}
  {% set database, columns = information_schema.database, [] %}
  {% for schema in relations | map(attribute="schema") | unique %}
    {% set asked = relations | selectattr("schema", "equalto", schema)
      | map(attribute="identifier") | list %}
    {% for table in stored_tables(database, schema) if table in asked or none in asked %}
      {% do columns.append(
        "select '" ~ schema ~ "' as table_schema, '" ~ table ~ "' as table_name, column_name, "
        ~ "row_number() over () as column_index, column_type "
        ~ "from (describe " ~ api.Relation.create(database, schema, table) ~ ")"
      ) %}
    {% endfor %}
  {% endfor %}
  {% set nothing = "select '' as table_schema, '' as table_name, '' as column_name, "
    ~ "0 as column_index, '' as column_type where false" %}
  {% do return(run_query(
    "select '" ~ database ~ "' as table_database, table_schema, table_name, "
    ~ "'BASE TABLE' as table_type, null as table_comment, column_name, column_index, column_type, "
    ~ "null as column_comment, null as table_owner "
    ~ "from (" ~ (columns or [nothing]) | join(" union all ") ~ ") "
    ~ "order by table_schema, table_name, column_index"
  )) %}
{% endmacro %}


{# Names of the tables of a schema of `lake` or `pg`. #}
{% macro stored_tables(database, schema) %}
  {# The first statement makes the connection, and with it the plugin. #}
  {% do adapter.execute("select 1") %}
  {% set request = {"step": "list_tables", "database": database, "schema": schema} %}
  {% do adapter.store_relation("lake", none, [], "", "", request) %}
  {% do return(request["tables"]) %}
{% endmacro %}
