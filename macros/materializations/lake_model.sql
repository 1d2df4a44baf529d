{# What the plugin needs to know of the node that is materialized. dbt lets no Python model have a
   contract: the columns that one declares are taken for it. #}
{% macro lake_model(materialized) %}
  {% set columns = [] %}
  {% for column in model.columns.values() if column.data_type %}
    {% set constraints = column.constraints | map(attribute="type") | map("string") | list %}
    {% do columns.append([column.name, column.data_type, "not_null" in constraints | join(" ")]) %}
  {% endfor %}
  {% set unique_key = config.get("unique_key") or [] %}
  {% set upstream = [] %}
  {% for node in model.depends_on.nodes if graph.nodes[node] or graph.sources[node] %}
    {% set read = graph.nodes[node] or graph.sources[node] %}
    {% do upstream.append(read.schema ~ "." ~ (read.identifier or read.alias)) %}
  {% endfor %}
  {% do return({
    "relation": this.schema ~ "." ~ this.identifier,
    "name": this.schema ~ "." ~ this.identifier,
    "invocation_id": invocation_id,
    "code_version": loreline_code_version(),
    "materialized": materialized,
    "strategy": config.get("incremental_strategy") or "append",
    "unique_key": [unique_key] if unique_key is string else unique_key | list,
    "is_incremental": is_incremental(),
    "full_refresh": should_full_refresh(),
    "empty": flags.EMPTY or false,
    "contract": config.get("contract").enforced or model.language == "python" and columns != [],
    "columns": columns,
    "partition_by": config.get("partition_by") or [],
    "on_schema_change": config.get("on_schema_change") or "append_new_columns",
    "upstream": upstream,
    "project": invocation_args_dict.get("project_dir") or ".",
    "variables": invocation_args_dict.get("vars") or {},
  }) %}
{% endmacro %}


{# The version of the code that writes: the package's and, shortened, the checksum of the model. #}
{% macro loreline_code_version() %}
  {% do return("0.1.0+" ~ (model.checksum.checksum | default("none"))[:12]) %}
{% endmacro %}


{# One step of a materialization in Python; gives the line that dbt logs. #}
{% macro lake_step(step, materialized, extra={}) %}
  {# The first statement opens this thread's connection, which the plugin then works on. #}
  {% do adapter.execute("select 1") %}
  {% set request = {"step": step, "model": lake_model(materialized)} %}
  {% do request.update(extra) %}
  {% do adapter.store_relation("lake", this, [], "", "", request) %}
  {% do return(request["message"]) %}
{% endmacro %}


{# The end of a Python model's code: dbt-duckdb calls `materialize` with what the model gave. #}
{% macro lake_python_tail() %}


from loreline.dbt_plugin import store_python_result as materialize  # noqa: E402
{% endmacro %}
