{# Tables create their namespace themselves. dbt would have DuckDB do it, which first looks and then
   creates: of two builds that begin at once over an empty lake, one would fail. #}
{% macro duckdb__create_schema(relation) %}
{% endmacro %}
