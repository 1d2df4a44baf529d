{# The title of a Notion page's payload (a registered Python function). #}
{% macro notion_title(payload) %}
  {{- return(adapter.dispatch("notion_title", "loreline")(payload)) -}}
{% endmacro %}


{% macro duckdb__notion_title(payload) -%}
  notion_title({{ payload }})
{%- endmacro %}


{% macro spark__notion_title(payload) -%}
  notion_title({{ payload }})
{%- endmacro %}
