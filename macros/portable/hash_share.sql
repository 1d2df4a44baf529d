{# A number from 0 to below 1 that depends on the text alone: its SHA-256's first 32 bits. #}
{% macro hash_share(text) %}
  {{- return(adapter.dispatch("hash_share", "loreline")(text)) -}}
{% endmacro %}


{% macro duckdb__hash_share(text) -%}
  cast(cast('0x' || substr(sha256({{ text }}), 1, 8) as bigint) as double) / 4294967296
{%- endmacro %}


{% macro spark__hash_share(text) -%}
  cast(conv(substr(sha2({{ text }}, 256), 1, 8), 16, 10) as double) / 4294967296
{%- endmacro %}
