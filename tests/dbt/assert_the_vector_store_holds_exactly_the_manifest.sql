-- A row is a chunk that Postgres lacks (missing), should not have (extra), or holds with another
-- text, vector, version or other readers than it should (different). Postgres computes fingerprints
-- from what its rows hold.
{{ config(meta={"runs_always": true}) }}
-- depends_on: {{ ref("vector_collections") }}
with served as (

    select vector_collection, pushed_batch
    from {{ postgres_table("serving", "collections") }}
    where status = 'served'

),

-- What another build added to the manifest after the push of this one.
not_pushed as (

    select manifest.vector_collection, manifest.doc_id
    from {{ ref("vector_manifest") }} as manifest
    inner join served on manifest.vector_collection = served.vector_collection
    where manifest._batch > served.pushed_batch and {{ (flags.WHICH == "build") | lower }}
    group by manifest.vector_collection, manifest.doc_id

),

expected as (

    select
        vector_collection,
        chunk_id,
        doc_id,
        document_version_id || ' ' || fingerprint as state
    from {{ ref("vector_manifest") }}
    where not is_deleted

),

held as (

    select
        vector_collection,
        chunk_id,
        doc_id,
        document_version_id || ' ' || fingerprint as state
    from {{ postgres_table("serving", "vector_rows") }}

),

compared as (

    select
        coalesce(expected.vector_collection, held.vector_collection) as vector_collection,
        coalesce(expected.chunk_id, held.chunk_id) as chunk_id,
        coalesce(expected.doc_id, held.doc_id) as doc_id,
        case
            when held.chunk_id is null then 'missing'
            when expected.chunk_id is null then 'extra'
            when coalesce(held.state, '') <> expected.state then 'different'
            else 'ok'
        end as comparison
    from expected
    full outer join held
        on expected.vector_collection = held.vector_collection
        and expected.chunk_id = held.chunk_id

)

select
    compared.vector_collection,
    compared.chunk_id,
    compared.doc_id,
    compared.comparison
from compared
left join not_pushed
    on compared.vector_collection = not_pushed.vector_collection
    and compared.doc_id = not_pushed.doc_id
where compared.comparison <> 'ok' and not_pushed.doc_id is null
