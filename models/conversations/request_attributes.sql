-- One row per tenant and distinct system text or list of tools: a replay needs them as they were.
{{ config(
    materialized="incremental",
    incremental_strategy="append",
    unique_key=["tenant", "attribute_hash"],
) }}

with requests as (

    select
        tenant,
        new_attributes
    from {{ ref("stg_gateway__chat_requests") }}
    where {{ newer_than_watermark(ref("stg_gateway__chat_requests")) }}

),

given as (

    select
        requests.tenant,
        attribute.element.attribute_hash,
        min(attribute.element.kind) as kind,
        min(attribute.element.content) as content
    from requests, {{ unnest_with_position("requests.new_attributes", "attribute") }}
    group by requests.tenant, attribute.element.attribute_hash

)

select
    given.tenant,
    given.attribute_hash,
    given.kind,
    given.content
from given
{% if is_incremental() %}
left join {{ this }} as known
    on given.tenant = known.tenant
    and given.attribute_hash = known.attribute_hash
where known.attribute_hash is null
{% endif %}
