-- A row is a chunk with more tokens than its configuration allows: a model would cut it silently.
select
    chunks.chunk_id,
    chunks.chunking_strategy,
    chunks.token_count,
    configurations.max_tokens
from {{ ref("chunks") }} as chunks
inner join {{ ref("chunking_configurations") }} as configurations
    on chunks.config_hash = configurations.config_hash
where
    chunks.token_count > configurations.max_tokens
    and {{ written_by_this_run(ref("chunks"), "chunks._batch") }}
