{# The first 128 bits of the SHA-256 of a text's UTF-8 bytes, as 32 lower-case hex digits. #}
{% macro short_hash(text) -%}
  substr({{ sha256_hex(text) }}, 1, 32)
{%- endmacro %}
