{# An ISO 8601 instant with an offset or Z, as a UTC timestamp. #}
{% macro iso_to_timestamp(text) %}
  {{- return(adapter.dispatch("iso_to_timestamp", "loreline")(text)) -}}
{% endmacro %}


{% macro duckdb__iso_to_timestamp(text) -%}
  cast(cast({{ text }} as timestamptz) as timestamp)
{%- endmacro %}


{% macro spark__iso_to_timestamp(text) -%}
  to_timestamp({{ text }})
{%- endmacro %}
