{# The canonical Markdown of a Notion page's payload (a registered Python function). #}
{% macro notion_markdown(payload) %}
  {{- return(adapter.dispatch("notion_markdown", "loreline")(payload)) -}}
{% endmacro %}


{% macro duckdb__notion_markdown(payload) -%}
  notion_markdown({{ payload }})
{%- endmacro %}


{% macro spark__notion_markdown(payload) -%}
  notion_markdown({{ payload }})
{%- endmacro %}
