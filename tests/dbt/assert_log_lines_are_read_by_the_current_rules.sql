-- A row is a setting under which log lines were read and which is not that of now: a seed
-- log_*.csv or log_window_minutes has changed. Build anew what was read before: loreline build
-- --full-refresh --select stg_log_files__line_counts+
{{ config(group="knowledge") }}

{% set formats = seed_rows(ref("log_formats"), "position") %}
{% set masks = seed_rows(ref("log_masks"), "position") %}
{% set levels = seed_rows(ref("log_levels"), "level_scale, written") %}

select distinct config_hash
from {{ ref("stg_log_files__line_counts") }}
where config_hash <> {{ log_rules_hash(formats, masks, levels) }}
