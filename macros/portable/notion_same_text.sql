{# Whether two Markdown texts of a Notion page say the same, one perhaps by the API and one by an
   export (a registered Python function). #}
{% macro notion_same_text(one, other) %}
  {{- return(adapter.dispatch("notion_same_text", "loreline")(one, other)) -}}
{% endmacro %}


{% macro duckdb__notion_same_text(one, other) -%}
  notion_same_text({{ one }}, {{ other }})
{%- endmacro %}


{% macro spark__notion_same_text(one, other) -%}
  notion_same_text({{ one }}, {{ other }})
{%- endmacro %}
