{# The rows of a seed as a list of dictionaries, for what has to stand in the SQL itself: an
   engine compiles a pattern once where it is a constant, and for each row where it is none. A
   unit test takes the seed as it was built. #}
{% macro seed_rows(relation, order_by) %}
  {{- return(adapter.dispatch("seed_rows", "loreline")(relation, order_by)) -}}
{% endmacro %}


{% macro duckdb__seed_rows(relation, order_by) %}
  {% set rows = [] %}
  {% if execute %}
    {% set table = relation %}
    {% if model.resource_type == "unit_test" %}
      {% set name = relation.identifier | replace("__dbt__cte__", "") %}
      {% set table = api.Relation.create("lake", generate_schema_name("seeds"), name) %}
    {% endif %}
    {# A project may be compiled before any seed was loaded. #}
    {% if table.identifier in stored_tables("lake", table.schema) %}
      {% set found = run_query("select * from " ~ table ~ " order by " ~ order_by) %}
      {% for row in found.rows %}
        {% do rows.append(dict(zip(found.column_names, row.values()))) %}
      {% endfor %}
    {% endif %}
  {% endif %}
  {{ return(rows) }}
{% endmacro %}


{% macro spark__seed_rows(relation, order_by) %}
  {{ return(duckdb__seed_rows(relation, order_by)) }}
{% endmacro %}
