{# The payload of a raw row, fetched from the object store where it is kept there (a registered
   Python function). #}
{% macro raw_payload(payload, uri) %}
  {{- return(adapter.dispatch("raw_payload", "loreline")(payload, uri)) -}}
{% endmacro %}


{% macro duckdb__raw_payload(payload, uri) -%}
  coalesce({{ payload }}, stored_payload({{ uri }}))
{%- endmacro %}


{% macro spark__raw_payload(payload, uri) -%}
  coalesce({{ payload }}, stored_payload({{ uri }}))
{%- endmacro %}
