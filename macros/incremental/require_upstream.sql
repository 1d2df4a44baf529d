{# Run at the start: a table that the selection reads, but neither builds nor finds, is named. #}
{% macro require_upstream() %}
  {# A deferred table is found elsewhere. #}
  {% if execute and flags.WHICH in ("build", "run") and not flags.DEFER %}
    {% set reads = [] %}
    {% for id in selected_resources if id.startswith("model.") %}
      {% for above in graph.nodes[id].depends_on.nodes if above not in selected_resources %}
        {% set node = graph.nodes[above] %}
        {% if node and node.resource_type in ("model", "seed") %}
          {% do reads.append({
            "reader": graph.nodes[id].name,
            "name": node.name,
            "database": node.database,
            "schema": node.schema,
            "identifier": node.alias,
          }) %}
        {% endif %}
      {% endfor %}
    {% endfor %}
    {% do adapter.store_relation("lake", none, [], "", "", {
      "step": "require_upstream",
      "reads": reads,
    }) %}
  {% endif %}
{% endmacro %}
