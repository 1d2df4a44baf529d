{# The Markdown of a Slack message; `names` is a JSON object from id to name (a registered Python
   function). #}
{% macro slack_markdown(message, names) %}
  {{- return(adapter.dispatch("slack_markdown", "loreline")(message, names)) -}}
{% endmacro %}


{% macro duckdb__slack_markdown(message, names) -%}
  slack_markdown({{ message }}, {{ names }})
{%- endmacro %}


{% macro spark__slack_markdown(message, names) -%}
  slack_markdown({{ message }}, {{ names }})
{%- endmacro %}
