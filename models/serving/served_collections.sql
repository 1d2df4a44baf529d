-- One row per collection that Postgres should serve: each served embedding configuration with each
-- served chunking configuration. The name carries the configuration, so a changed one is built
-- beside the old.
{{ config(materialized="table") }}

with pairs as (

    select
        embeddings.embedding_model,
        chunking.chunking_strategy,
        embeddings.config_hash as embedding_config_hash,
        chunking.config_hash as chunking_config_hash,
        {{ sha256_hex("embeddings.config_hash || chunking.config_hash") }} as config_hash,
        embeddings.dimensions,
        row_number() over (
            order by
                embeddings.priority nulls last,
                chunking.priority nulls last,
                embeddings.embedding_model nulls last,
                chunking.chunking_strategy nulls last
        ) as preference
    from {{ ref("embedding_configurations") }} as embeddings
    cross join {{ ref("chunking_configurations") }} as chunking
    where embeddings.status = 'served' and chunking.status = 'served'

)

select
    embedding_model || '__' || chunking_strategy || '__' || substr(config_hash, 1, 8)
        as vector_collection,
    embedding_model,
    chunking_strategy,
    embedding_config_hash,
    chunking_config_hash,
    config_hash,
    dimensions,
    preference = 1 as is_default
from pairs
