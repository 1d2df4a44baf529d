{# A lake table replaced as a whole, in one commit; none when its content is what is there. #}
{% materialization table, adapter="duckdb", supported_languages=["sql", "python"] %}
  {{ run_hooks(pre_hooks, inside_transaction=false) }}
  {% if model.language == "python" %}
    {% do lake_step("begin_python", "table") %}
    {% call statement("main", language="python") %}
{{ compiled_code }}
{{ lake_python_tail() }}
    {% endcall %}
    {% set message = lake_step("end_python", "table") %}
  {% else %}
    {% set message = lake_step("sql", "table", {"sql": sql}) %}
  {% endif %}
  {% call noop_statement("main", message, "OK", 0) %}{% endcall %}
  {{ run_hooks(post_hooks, inside_transaction=false) }}
  {% do return({"relations": [this.incorporate(type="table")]}) %}
{% endmaterialization %}
