-- One row per cluster that began or ended with a clustering: born, split, merged or died.
{{ config(materialized="incremental", incremental_strategy="append", unique_key="event_id") }}

with runs as (

    select
        config_hash,
        run_number,
        clustering,
        clustered_at,
        events
    from {{ ref("clustering_runs") }}
    where {{ newer_than_watermark(ref("clustering_runs")) }}

)

select
    {{ short_hash(
        "runs.config_hash || chr(31) || cast(runs.run_number as string)"
        ~ " || chr(31) || happened.element.event || chr(31) || happened.element.cluster_id"
    ) }} as event_id,
    runs.config_hash,
    runs.clustering,
    runs.run_number,
    happened.element.event,
    happened.element.cluster_id,
    happened.element.other_cluster_id,
    happened.element.member_count,
    runs.clustered_at as happened_at
from runs, {{ unnest_with_position("runs.events", "happened") }}
