{# An ISO 8601 instant with an offset or Z, as a UTC timestamp; null where it is none. #}
{% macro iso_to_timestamp(text) %}
  {{- return(adapter.dispatch("iso_to_timestamp", "loreline")(text)) -}}
{% endmacro %}


{% macro duckdb__iso_to_timestamp(text) -%}
  cast(try_cast({{ text }} as timestamptz) as timestamp)
{%- endmacro %}


{% macro spark__iso_to_timestamp(text) -%}
  try_to_timestamp({{ text }})
{%- endmacro %}
