-- One row per chunking strategy that is not retired, under the hash of all that shapes its chunks.
{{ config(materialized="table") }}

select
    chunking_strategy,
    algorithm,
    cast(max_tokens as bigint) as max_tokens,
    cast(overlap_tokens as bigint) as overlap_tokens,
    tokenizer,
    cast(algorithm_version as bigint) as algorithm_version,
    status,
    cast(priority as bigint) as priority,
    {{ sha256_hex(
        "chunking_strategy || chr(31) || algorithm || chr(31) || cast(max_tokens as string)"
        ~ " || chr(31) || cast(overlap_tokens as string) || chr(31) || tokenizer"
        ~ " || chr(31) || cast(algorithm_version as string)"
    ) }} as config_hash
from {{ ref("chunking_strategies") }}
where status <> 'retired'
