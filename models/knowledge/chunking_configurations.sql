-- One row per chunking strategy that is not retired, under the hash of all that shapes its chunks.
{{ config(materialized="table") }}

select
    strategies.chunking_strategy,
    strategies.algorithm,
    cast(strategies.max_tokens as bigint) as max_tokens,
    cast(strategies.overlap_tokens as bigint) as overlap_tokens,
    cast(strategies.window_sentences as bigint) as window_sentences,
    cast(strategies.breakpoint_percentile as bigint) as breakpoint_percentile,
    strategies.sentence_model,
    strategies.context,
    strategies.tokenizer,
    cast(strategies.algorithm_version as bigint) as algorithm_version,
    strategies.status,
    cast(strategies.priority as bigint) as priority,
    embedding.config_hash as sentence_config_hash,
    {{ sha256_hex(
        "strategies.chunking_strategy || chr(31) || strategies.algorithm || chr(31)"
        ~ " || cast(strategies.max_tokens as string) || chr(31)"
        ~ " || cast(strategies.overlap_tokens as string) || chr(31)"
        ~ " || coalesce(cast(strategies.window_sentences as string), '') || chr(31)"
        ~ " || coalesce(cast(strategies.breakpoint_percentile as string), '') || chr(31)"
        ~ " || coalesce(embedding.config_hash, '') || chr(31) || strategies.context || chr(31)"
        ~ " || strategies.tokenizer || chr(31) || cast(strategies.algorithm_version as string)"
    ) }} as config_hash
from {{ ref("chunking_strategies") }} as strategies
left join {{ ref("embedding_configurations") }} as embedding
    on strategies.sentence_model = embedding.embedding_model
where strategies.status <> 'retired'
