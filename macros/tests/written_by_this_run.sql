{# The condition that keeps the rows of a lake table which this run of dbt committed: in `dbt build`
   a test then costs what the change costs. Other commands look at every row. #}
{% macro written_by_this_run(relation, batch="_batch") %}
  {%- if flags.WHICH == "build" -%}
    {{ batch }} >= (
      select coalesce(min(commits.batch), 9223372036854775807)
      from {{ postgres_table("operations", "commits") }} as commits
      where
        commits.table_name = '{{ relation.schema }}.{{ relation.identifier }}'
        and commits.invocation_id = '{{ invocation_id }}'
    )
  {%- else -%}
    true
  {%- endif -%}
{% endmacro %}


{# The rows that a generic test looks at: `where: written_by_this_run` in its configuration stands
   for the macro of that name. #}
{% macro duckdb__get_where_subquery(relation) %}
  {%- if config.get("where") != "written_by_this_run" -%}
    {%- do return(dbt.default__get_where_subquery(relation)) -%}
  {%- endif -%}
  {%- set condition = written_by_this_run(relation) -%}
  {%- do return("(select * from " ~ relation ~ " where " ~ condition ~ ") as written") -%}
{% endmacro %}
