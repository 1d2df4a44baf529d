{# Seconds since 1970 with a fraction, as text (a Slack ts), as a UTC timestamp to the microsecond;
   null where it is no number. #}
{% macro epoch_text_to_timestamp(text) %}
  {{- return(adapter.dispatch("epoch_text_to_timestamp", "loreline")(text)) -}}
{% endmacro %}


{% macro duckdb__epoch_text_to_timestamp(text) -%}
  make_timestamp(cast(try_cast({{ text }} as decimal(20, 6)) * 1000000 as bigint))
{%- endmacro %}


{% macro spark__epoch_text_to_timestamp(text) -%}
  timestamp_micros(cast(try_cast({{ text }} as decimal(20, 6)) * 1000000 as bigint))
{%- endmacro %}
