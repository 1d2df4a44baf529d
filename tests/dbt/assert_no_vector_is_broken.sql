-- A row is a vector of a wrong length, without direction, or with values that are no numbers.
select
    text_hash,
    embedding_model,
    dimensions,
    len(embedding) as length
from {{ ref("text_embeddings") }}
where
    {{ written_by_this_run(ref("text_embeddings")) }}
    and (
        len(embedding) <> dimensions
        or not coalesce(isfinite(list_dot_product(embedding, embedding)), false)
        or list_dot_product(embedding, embedding) = 0
    )
