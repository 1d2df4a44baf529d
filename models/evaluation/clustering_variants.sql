-- One row per clustering that is not retired, under the hash of all that shapes its clusters.
{{ config(materialized="table") }}

select
    clusterings.clustering,
    embeddings.embedding_model,
    embeddings.config_hash as embedding_config_hash,
    cast(clusterings.pca_dimensions as bigint) as pca_dimensions,
    cast(clusterings.min_cluster_size as bigint) as min_cluster_size,
    cast(clusterings.min_samples as bigint) as min_samples,
    cast(clusterings.reach_quantile as double) as reach_quantile,
    cast(clusterings.sample_above as bigint) as sample_above,
    cast(clusterings.random_seed as bigint) as random_seed,
    cast(clusterings.resamples as bigint) as resamples,
    cast(clusterings.rerun_share as double) as rerun_share,
    clusterings.status,
    {{ sha256_hex(
        "clusterings.clustering || chr(31) || embeddings.config_hash"
        ~ " || chr(31) || cast(clusterings.pca_dimensions as string)"
        ~ " || chr(31) || cast(clusterings.min_cluster_size as string)"
        ~ " || chr(31) || cast(clusterings.min_samples as string)"
        ~ " || chr(31) || cast(clusterings.reach_quantile as string)"
        ~ " || chr(31) || cast(clusterings.sample_above as string)"
        ~ " || chr(31) || cast(clusterings.random_seed as string)"
        ~ " || chr(31) || cast(clusterings.algorithm_version as string)"
    ) }} as config_hash
from {{ ref("clustering_configurations") }} as clusterings
inner join {{ ref("embedding_configurations") }} as embeddings
    on clusterings.embedding_model = embeddings.embedding_model
where clusterings.status <> 'retired'
