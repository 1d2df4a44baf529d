-- One row per collection that Postgres should serve: each served embedding configuration with each
-- served chunking configuration. The name carries the configuration, so a changed one is built
-- beside the old: it takes over once all that there is to cut and to embed was, and until then the
-- collection that it replaces stays.
-- depends_on: {{ ref("text_embeddings") }}
{{ config(materialized="table") }}

with served as (

    select
        vector_collection,
        embedding_model,
        chunking_strategy,
        embedding_config_hash,
        chunking_config_hash,
        config_hash,
        dimensions,
        storage,
        cast(question_embedding as string) as question_embedding
    from {{ source("vector_store", "collections") }}
    where status = 'served'

),

pairs as (

    select
        embeddings.embedding_model,
        chunking.chunking_strategy,
        embeddings.config_hash as embedding_config_hash,
        chunking.config_hash as chunking_config_hash,
        -- What makes other rows or other answers of the same vectors is the collection's alone:
        -- changing it embeds nothing.
        {{ sha256_hex(
            "embeddings.config_hash || chunking.config_hash"
            ~ " || case when embeddings.storage = 'vector' then '' else chr(31)"
            ~ " || 'storage=' || embeddings.storage end"
            ~ " || case when embeddings.query_prefix = '' then '' else chr(31)"
            ~ " || 'query_prefix=' || embeddings.query_prefix end"
        ) }} as config_hash,
        embeddings.dimensions,
        embeddings.storage,
        '{"embedding_model": ' || {{ json_quoted("embeddings.embedding_model") }}
        || ', "model": ' || {{ json_quoted("embeddings.model") }}
        || ', "revision": ' || {{ json_quoted("embeddings.revision") }}
        || ', "dimensions": ' || cast(embeddings.dimensions as string)
        || ', "model_dimensions": ' || cast(embeddings.model_dimensions as string)
        || ', "max_tokens": ' || cast(embeddings.max_tokens as string)
        || ', "normalize": ' || cast(embeddings.normalize as string)
        || ', "query_prefix": ' || {{ json_quoted("embeddings.query_prefix") }}
        || '}' as question_embedding,
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

),

wanted as (

    select
        pairs.embedding_model || '__' || pairs.chunking_strategy
        || '__' || substr(pairs.config_hash, 1, 8) as vector_collection,
        pairs.embedding_model,
        pairs.chunking_strategy,
        pairs.embedding_config_hash,
        pairs.chunking_config_hash,
        pairs.config_hash,
        pairs.dimensions,
        pairs.storage,
        pairs.question_embedding,
        pairs.preference
    from pairs

),

-- How far each slice has been filled. A run that was killed, or that filled a part, moves nothing.
cut as (

    select
        variant as config_hash,
        max(last_batch) as last_batch
    from {{ source("operations", "watermarks") }}
    where model like '%knowledge.chunks' and upstream like '%knowledge.documents'
    group by variant

),

embedded as (

    select
        variant as config_hash,
        max(last_batch) as last_batch
    from {{ source("operations", "watermarks") }}
    where model like '%embedding.text_embeddings' and upstream like '%knowledge.chunks'
    group by variant

),

-- Tables that this target never wrote are those of another, which filled them to their end.
own_commits as (

    select
        count(case when model like '%knowledge.chunks' then 1 end) as of_chunks,
        count(case when model like '%embedding.text_embeddings' then 1 end) as of_embeddings
    from {{ source("operations", "commits") }}

),

last_document as (

    select coalesce(max(_batch), -1) as last_batch
    from {{ ref("documents") }}

),

last_chunks as (

    select
        config_hash,
        max(_batch) as last_batch
    from {{ ref("chunks") }}
    group by config_hash

),

decided as (

    select
        wanted.vector_collection,
        served.vector_collection is not null
        or (
            (
                coalesce(cut.last_batch, -1) >= last_document.last_batch
                or own_commits.of_chunks = 0
            )
            and (
                coalesce(embedded.last_batch, -1) >= coalesce(last_chunks.last_batch, -1)
                or own_commits.of_embeddings = 0
            )
        ) as is_complete
    from wanted
    cross join last_document
    cross join own_commits
    left join last_chunks on wanted.chunking_config_hash = last_chunks.config_hash
    left join served on wanted.vector_collection = served.vector_collection
    left join cut on wanted.chunking_config_hash = cut.config_hash
    left join embedded on wanted.embedding_config_hash = embedded.config_hash

),

collections as (

    select
        wanted.vector_collection,
        wanted.embedding_model,
        wanted.chunking_strategy,
        wanted.embedding_config_hash,
        wanted.chunking_config_hash,
        wanted.config_hash,
        wanted.dimensions,
        wanted.storage,
        wanted.question_embedding,
        wanted.preference
    from wanted
    inner join decided on wanted.vector_collection = decided.vector_collection
    where decided.is_complete

    union all

    select
        served.vector_collection,
        served.embedding_model,
        served.chunking_strategy,
        served.embedding_config_hash,
        served.chunking_config_hash,
        served.config_hash,
        cast(served.dimensions as bigint) as dimensions,
        served.storage,
        served.question_embedding,
        wanted.preference
    from wanted
    inner join decided on wanted.vector_collection = decided.vector_collection
    inner join served
        on wanted.embedding_model = served.embedding_model
        and wanted.chunking_strategy = served.chunking_strategy
    where not decided.is_complete

)

select
    vector_collection,
    embedding_model,
    chunking_strategy,
    embedding_config_hash,
    chunking_config_hash,
    config_hash,
    dimensions,
    storage,
    question_embedding,
    preference = min(preference) over () as is_default
from collections
