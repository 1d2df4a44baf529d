{# Text in Unicode NFC with clean line ends, no blanks at the ends of lines, no blank line at either
   end (a registered Python function). #}
{% macro canonical_text(text) %}
  {{- return(adapter.dispatch("canonical_text", "loreline")(text)) -}}
{% endmacro %}


{% macro duckdb__canonical_text(text) -%}
  canonical_text({{ text }})
{%- endmacro %}


{% macro spark__canonical_text(text) -%}
  canonical_text({{ text }})
{%- endmacro %}
