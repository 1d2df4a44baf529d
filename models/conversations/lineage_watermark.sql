-- One row per tenant and session: the last event that its lineage is built from.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["tenant", "session_id"],
) }}

with arrived as (

    select
        tenant,
        session_id,
        event_id,
        event_key,
        coalesce(event_at, ended_at) as event_at
    from {{ ref("stg_gateway__chat_requests") }}
    where
        problem is null
        and session_id is not null
        and {{ newer_than_watermark(ref("stg_gateway__chat_requests")) }}

    {% if is_incremental() %}
    union all

    select
        known.tenant,
        known.session_id,
        known.last_event_id as event_id,
        known.last_event_key as event_key,
        known.last_event_at as event_at
    from {{ this }} as known
    inner join {{ ref("stg_gateway__chat_requests") }} as requests
        on known.tenant = requests.tenant
        and known.session_id = requests.session_id
    where {{ newer_than_watermark(ref("stg_gateway__chat_requests"), "requests") }}
    {% endif %}

),

ranked as (

    select
        *,
        row_number() over (
            partition by tenant, session_id
            order by event_at desc nulls last, event_key asc nulls last
        ) as recency
    from arrived

)

select
    tenant,
    session_id,
    event_id as last_event_id,
    event_key as last_event_key,
    event_at as last_event_at,
    cast(current_timestamp as timestamp) as processed_at
from ranked
where recency = 1
