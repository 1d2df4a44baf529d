{# A CSV file as a lake table; nothing is committed when its content is what is there. #}
{% materialization seed, adapter="duckdb" %}
  {{ run_hooks(pre_hooks, inside_transaction=false) }}
  {# dbt shows the rows of a seed with --show. #}
  {% do store_result("agate_table", response="OK", agate_table=load_agate_table()) %}
  {% set message = lake_step("seed", "seed", {
    "file": adapter.get_seed_file_path(model),
    "column_types": config.get("column_types", {}),
    "delimiter": config.get("delimiter", ","),
  }) %}
  {% call noop_statement("main", message, "OK", 0) %}{% endcall %}
  {{ run_hooks(post_hooks, inside_transaction=false) }}
  {% do return({"relations": [this.incorporate(type="table")]}) %}
{% endmaterialization %}
