-- One row per embedding model that is not retired, under the hash of all that shapes its vectors.
{{ config(materialized="table") }}

select
    embedding_model,
    model,
    revision,
    cast(dimensions as bigint) as dimensions,
    cast(max_tokens as bigint) as max_tokens,
    cast(normalize as boolean) as normalize,
    cast(batch_size as bigint) as batch_size,
    status,
    cast(priority as bigint) as priority,
    {{ sha256_hex(
        "embedding_model || chr(31) || model || chr(31) || revision || chr(31)"
        ~ " || cast(dimensions as string) || chr(31) || cast(max_tokens as string)"
        ~ " || chr(31) || cast(cast(normalize as boolean) as string)"
    ) }} as config_hash
from {{ ref("embedding_models") }}
where status <> 'retired'
