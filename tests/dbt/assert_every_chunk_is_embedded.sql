-- A row is a text of which an embedding configuration has no vector.
with wanted as (

    select
        chunks.text_hash,
        configurations.config_hash
    from {{ ref("chunks") }} as chunks
    cross join {{ ref("embedding_configurations") }} as configurations
    where {{ read_by(
        ref("text_embeddings"), ref("chunks"), "chunks._batch", "configurations.config_hash"
    ) }}
    group by chunks.text_hash, configurations.config_hash

)

select
    wanted.text_hash,
    wanted.config_hash
from wanted
left join {{ ref("text_embeddings") }} as embeddings
    on wanted.text_hash = embeddings.text_hash
    and wanted.config_hash = embeddings.config_hash
where embeddings.text_hash is null
