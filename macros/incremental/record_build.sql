{# Run at the start: that a run has begun is known even where it is killed. #}
{% macro record_build_start() %}
  {% if execute and flags.WHICH in ("build", "run", "seed", "test") %}
    {% set told = invocation_args_dict.get("select") or [] %}
    {% do adapter.store_relation("lake", none, [], "", "", {
      "step": "build_begun",
      "invocation_id": invocation_id,
      "command": flags.WHICH,
      "selection": told if told is string else told | join(" "),
    }) %}
  {% endif %}
{% endmacro %}


{# Run at the end, also where nodes failed. #}
{% macro record_build_end(results) %}
  {% if execute and flags.WHICH in ("build", "run", "seed", "test") %}
    {% set said = [] %}
    {% for result in results %}
      {% do said.append({
        "node": result.node.unique_id,
        "status": result.status | string,
        "message": result.message,
      }) %}
    {% endfor %}
    {% do adapter.store_relation("lake", none, [], "", "", {
      "step": "build_ended",
      "invocation_id": invocation_id,
      "results": said,
    }) %}
  {% endif %}
{% endmacro %}
