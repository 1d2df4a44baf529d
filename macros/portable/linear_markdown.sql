{# The canonical Markdown of a text of Linear (a registered Python function); without headings
   where it is a part among others. #}
{% macro linear_markdown(text, keeps_headings=true) %}
  {{- return(adapter.dispatch("linear_markdown", "loreline")(text, keeps_headings)) -}}
{% endmacro %}


{% macro duckdb__linear_markdown(text, keeps_headings) -%}
  linear_markdown({{ text }}, {{ "true" if keeps_headings else "false" }})
{%- endmacro %}


{% macro spark__linear_markdown(text, keeps_headings) -%}
  linear_markdown({{ text }}, {{ "true" if keeps_headings else "false" }})
{%- endmacro %}
