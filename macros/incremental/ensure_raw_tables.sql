{# Run at the start: a source that nobody lands is an empty table, not an error. #}
{% macro ensure_raw_tables() %}
  {% if execute and flags.WHICH in ("build", "run", "test") %}
    {% set names = [] %}
    {% for source in graph.sources.values() if source.source_name.startswith("raw_") %}
      {% do names.append(source.schema ~ "." ~ source.identifier) %}
    {% endfor %}
    {% set request = {"step": "ensure_raw", "names": names} %}
    {% do adapter.store_relation("lake", none, [], "", "", request) %}
  {% endif %}
{% endmacro %}
