{# Trajectories to look at, each with its stratum: theme × cluster of the served clustering.

   Those that nobody went on from; replays were asked for by an experiment, and are left out. #}
{% macro trajectory_strata() -%}
    select
        units.trajectory_id,
        clusters.cluster_id,
        coalesce(units.theme_id, 'no theme') || case
            when clusters.trajectory_id is null then ', not clustered'
            else ', ' || coalesce('cluster ' || clusters.cluster_id, 'outliers')
        end as stratum
    from {{ ref("trajectory_units") }} as units
    left join (
        select
            assigned.trajectory_id,
            min(assigned.cluster_id) as cluster_id
        from {{ ref("trajectory_clusters") }} as assigned
        inner join (
            select {{ arg_min("config_hash", "clustering") }} as config_hash
            from {{ ref("clustering_variants") }}
            where status = 'served'
        ) as served on assigned.config_hash = served.config_hash
        group by assigned.trajectory_id
    ) as clusters on units.trajectory_id = clusters.trajectory_id
    where
        units.superseded_by is null
        and not units.is_replay
        and not {{ asked_by_a_judge("units.session_id") }}
{%- endmacro %}
