-- One row per incident: what its newest report says, and how long it took.
{{ config(materialized="incremental", incremental_strategy="merge", unique_key="incident_id") }}

with ranked as (

    select
        *,
        row_number() over (
            partition by incident_id
            order by
                raw_batch desc nulls last,
                observed_at desc nulls last,
                source_updated_at desc nulls last,
                landed_at desc nulls last
        ) as recency
    from {{ ref("stg_incident_reports__reports") }}
    where {{ newer_than_watermark(ref("stg_incident_reports__reports")) }}

)

select
    incident_id,
    'incident_reports:' || incident_id as doc_id,
    title,
    severity,
    status,
    started_at,
    detected_at,
    resolved_at,
    {{ seconds_between("started_at", "detected_at") }} as seconds_to_detect,
    {{ seconds_between("started_at", "resolved_at") }} as seconds_to_resolve,
    services,
    commander,
    authors,
    tags,
    url,
    fields,
    raw_dlt_id,
    is_deleted
from ranked
where recency = 1
