{# The canonical Markdown of a Google document (a registered Python function). #}
{% macro google_docs_markdown(payload) %}
  {{- return(adapter.dispatch("google_docs_markdown", "loreline")(payload)) -}}
{% endmacro %}


{% macro duckdb__google_docs_markdown(payload) -%}
  google_docs_markdown({{ payload }})
{%- endmacro %}


{% macro spark__google_docs_markdown(payload) -%}
  google_docs_markdown({{ payload }})
{%- endmacro %}
