{# A lake table replaced as a whole, in one commit; none when its content is what is there. #}
{% materialization table, adapter="duckdb", supported_languages=["sql", "python"] %}
  {{ run_hooks(pre_hooks, inside_transaction=false) }}
  {% set message = lake_materialize("table") %}
  {% call noop_statement("main", message, "OK", 0) %}{% endcall %}
  {{ run_hooks(post_hooks, inside_transaction=false) }}
  {% do return({"relations": [this.incorporate(type="table")]}) %}
{% endmaterialization %}
