-- One row per embedding model that is not retired, under the hash of all that shapes its vectors.
{{ config(materialized="table") }}

with settings as (

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
        coalesce(cast(model_dimensions as bigint), cast(dimensions as bigint)) as model_dimensions,
        coalesce(query_prefix, '') as query_prefix,
        coalesce(passage_prefix, '') as passage_prefix,
        coalesce(storage, 'vector') as storage
    from {{ ref("embedding_models") }}
    where status <> 'retired'

)

-- What is as it is by default is not in the hash: a setting that comes to be makes no vectors anew.
select
    embedding_model,
    model,
    revision,
    dimensions,
    max_tokens,
    normalize,
    batch_size,
    status,
    priority,
    model_dimensions,
    query_prefix,
    passage_prefix,
    storage,
    {{ sha256_hex(
        "embedding_model || chr(31) || model || chr(31) || revision || chr(31)"
        ~ " || cast(dimensions as string) || chr(31) || cast(max_tokens as string)"
        ~ " || chr(31) || cast(normalize as string)"
        ~ " || case when model_dimensions = dimensions then '' else chr(31)"
        ~ " || 'model_dimensions=' || cast(model_dimensions as string) end"
        ~ " || case when passage_prefix = '' then '' else chr(31)"
        ~ " || 'passage_prefix=' || passage_prefix end"
    ) }} as config_hash
from settings
