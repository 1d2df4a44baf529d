{# A lake table that grows (append) or follows its keys (merge) by what is new upstream. #}
{% materialization incremental, adapter="duckdb", supported_languages=["sql", "python"] %}
  {% if config.get("incremental_strategy") not in (none, "append", "merge") %}
    {% do exceptions.raise_compiler_error(
      "incremental_strategy of " ~ this ~ " must be append or merge"
    ) %}
  {% endif %}
  {{ run_hooks(pre_hooks, inside_transaction=false) }}
  {% if model.language == "python" %}
    {% do lake_step("begin_python", "incremental") %}
    {% call statement("main", language="python") %}
{{ compiled_code }}
{{ lake_python_tail() }}
    {% endcall %}
    {% set message = lake_step("end_python", "incremental") %}
  {% else %}
    {% set message = lake_step("sql", "incremental", {"sql": sql}) %}
  {% endif %}
  {% call noop_statement("main", message, "OK", 0) %}{% endcall %}
  {{ run_hooks(post_hooks, inside_transaction=false) }}
  {% do return({"relations": [this.incorporate(type="table")]}) %}
{% endmaterialization %}
