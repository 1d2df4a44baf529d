{# The condition that keeps the rows of `upstream` which the model `reader` has read.

   While other builds and loads go on, an upstream table may be ahead of what follows from it; a test
   that compares the two in `dbt build` is about what was read. Other commands look at every row.
   `variant` is an expression for the slice of a model that keeps a watermark for each. #}
{% macro read_by(reader, upstream, batch="_batch", variant="''") %}
  {%- if flags.WHICH == "build" -%}
    {{ batch }} <= coalesce(
      (
        select max(watermarks.last_batch)
        from {{ postgres_table("operations", "watermarks") }} as watermarks
        where
          watermarks.model = '{{ reader.schema }}.{{ reader.identifier }}'
          and watermarks.upstream = '{{ upstream.schema }}.{{ upstream.identifier }}'
          and watermarks.variant = {{ variant }}
      ),
      -1
    )
  {%- else -%}
    true
  {%- endif -%}
{% endmacro %}
