{# The condition that keeps the rows of `relation` which the running model has not read yet.

   The bounds are DuckDB variables that the materialization sets under the table's lock, so that
   compiled SQL stays the same from run to run. In a unit test, and where nothing is set, every row
   is new. #}
{% macro newer_than_watermark(relation, alias=none) %}
  {{- return(adapter.dispatch("newer_than_watermark", "loreline")(relation, alias)) -}}
{% endmacro %}


{% macro duckdb__newer_than_watermark(relation, alias) %}
  {%- if model.resource_type == "unit_test" -%}
    true
  {%- else -%}
    {%- set batch = (alias ~ "." if alias else "") ~ "_batch" -%}
    {%- set name = relation.schema ~ "." ~ relation.identifier -%}
    {{ batch }} > coalesce(getvariable('low:{{ name }}'), -1)
    and {{ batch }} <= coalesce(getvariable('high:{{ name }}'), 9223372036854775807)
  {%- endif -%}
{% endmacro %}
