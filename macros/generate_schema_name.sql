{# Plain names for local and prod; dev and ci put the user's or the run's name in front. #}
{% macro generate_schema_name(custom_schema_name, node) %}
  {%- set plain = custom_schema_name or target.schema -%}
  {%- if target.name in ("local", "prod") -%}
    {{- plain | trim -}}
  {%- else -%}
    {{- env_var("LORELINE_NAMESPACE") ~ "_" ~ plain | trim -}}
  {%- endif -%}
{% endmacro %}
