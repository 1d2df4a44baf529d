-- One row per chunk that a collection in Postgres should hold, or held once (`is_deleted`).
-- A document's new version takes over when each of its chunks is embedded; until then, and where a
-- text was refused, the chunks of the version before stay, under the permissions of now.
{{ config(
    materialized="incremental",
    incremental_strategy="merge",
    unique_key=["vector_collection", "chunk_id"],
) }}

with

{% if is_incremental() %}

known_collections as (

    select vector_collection
    from {{ this }}
    where not is_deleted
    group by vector_collection

),

{% endif %}

new_collections as (

    select collections.vector_collection
    from {{ ref("served_collections") }} as collections
    {% if is_incremental() %}
    left join known_collections
        on collections.vector_collection = known_collections.vector_collection
    where known_collections.vector_collection is null
    {% endif %}

),

touched as (

    select doc_id
    from {{ ref("documents_current") }}
    where {{ newer_than_watermark(ref("documents_current")) }}

    union

    select doc_id
    from {{ ref("chunks") }}
    where {{ newer_than_watermark(ref("chunks")) }}

    union

    select chunks.doc_id
    from {{ ref("chunks") }} as chunks
    inner join {{ ref("text_embeddings") }} as embeddings
        on chunks.text_hash = embeddings.text_hash
    inner join {{ ref("served_collections") }} as collections
        on embeddings.config_hash = collections.embedding_config_hash
    where {{ newer_than_watermark(ref("text_embeddings"), "embeddings") }}

),

pairs as (

    select
        collections.vector_collection,
        collections.chunking_config_hash,
        collections.embedding_config_hash,
        collections.storage,
        documents.doc_id,
        documents.document_version_id,
        documents.is_deleted,
        documents.is_blank,
        documents.allowed_principals
    from {{ ref("documents_current") }} as documents
    cross join {{ ref("served_collections") }} as collections
    left join touched on documents.doc_id = touched.doc_id
    left join new_collections
        on collections.vector_collection = new_collections.vector_collection
    where touched.doc_id is not null or new_collections.vector_collection is not null

),

-- Chunks of before there were contexts have one hash.
wanted as (

    select
        pairs.vector_collection,
        chunks.chunk_id,
        pairs.doc_id,
        pairs.document_version_id,
        chunks.text_hash,
        coalesce(chunks.shown_text_hash, chunks.text_hash) as shown_text_hash,
        case
            when pairs.storage = 'halfvec' then embeddings.halfvec_sha256
            else embeddings.vector_sha256
        end as vector_sha256,
        pairs.allowed_principals
    from pairs
    inner join {{ ref("chunks") }} as chunks
        on pairs.document_version_id = chunks.document_version_id
        and pairs.chunking_config_hash = chunks.config_hash
    left join {{ ref("text_embeddings") }} as embeddings
        on chunks.text_hash = embeddings.text_hash
        and pairs.embedding_config_hash = embeddings.config_hash
    where not pairs.is_deleted

),

readiness as (

    select
        pairs.vector_collection,
        pairs.doc_id,
        pairs.is_deleted or pairs.is_blank
        or (
            count(wanted.chunk_id) > 0
            and count(wanted.chunk_id) = count(wanted.vector_sha256)
        ) as is_ready
    from pairs
    left join wanted
        on pairs.vector_collection = wanted.vector_collection
        and pairs.doc_id = wanted.doc_id
    group by
        pairs.vector_collection,
        pairs.doc_id,
        pairs.is_deleted,
        pairs.is_blank

),

live as (

    select
        wanted.vector_collection,
        wanted.chunk_id,
        wanted.doc_id,
        wanted.document_version_id,
        wanted.text_hash,
        wanted.shown_text_hash,
        wanted.vector_sha256,
        wanted.allowed_principals,
        false as is_deleted
    from wanted
    inner join readiness
        on wanted.vector_collection = readiness.vector_collection
        and wanted.doc_id = readiness.doc_id
    where readiness.is_ready

),

{% if is_incremental() %}

gone_collections as (

    select known_collections.vector_collection
    from known_collections
    left join {{ ref("served_collections") }} as collections
        on known_collections.vector_collection = collections.vector_collection
    where collections.vector_collection is null

),

-- Of documents that were touched, and all of a collection that is not served any more: two inner
-- joins, so that no other row of this table is read whole.
held as (

    select
        known.vector_collection,
        known.chunk_id,
        known.doc_id,
        known.document_version_id,
        known.text_hash,
        coalesce(known.shown_text_hash, known.text_hash) as shown_text_hash,
        known.vector_sha256,
        pairs.allowed_principals,
        readiness.is_ready as is_deleted
    from {{ this }} as known
    inner join pairs
        on known.vector_collection = pairs.vector_collection
        and known.doc_id = pairs.doc_id
    inner join readiness
        on known.vector_collection = readiness.vector_collection
        and known.doc_id = readiness.doc_id
    left join live
        on known.vector_collection = live.vector_collection
        and known.chunk_id = live.chunk_id
    where not known.is_deleted and live.chunk_id is null

    union all

    select
        known.vector_collection,
        known.chunk_id,
        known.doc_id,
        known.document_version_id,
        known.text_hash,
        coalesce(known.shown_text_hash, known.text_hash) as shown_text_hash,
        known.vector_sha256,
        known.allowed_principals,
        true as is_deleted
    from {{ this }} as known
    inner join gone_collections
        on known.vector_collection = gone_collections.vector_collection
    where not known.is_deleted

),

{% endif %}

manifest as (

    select
        vector_collection,
        chunk_id,
        doc_id,
        document_version_id,
        text_hash,
        shown_text_hash,
        vector_sha256,
        allowed_principals,
        is_deleted
    from live

    {% if is_incremental() %}

    union all

    select
        vector_collection,
        chunk_id,
        doc_id,
        document_version_id,
        text_hash,
        shown_text_hash,
        vector_sha256,
        allowed_principals,
        is_deleted
    from held

    {% endif %}

)

select
    vector_collection,
    chunk_id,
    doc_id,
    document_version_id,
    text_hash,
    shown_text_hash,
    vector_sha256,
    {{ sha256_hex(
        "shown_text_hash || ':' || vector_sha256 || ':' || "
        ~ joined_list(sorted_list("allowed_principals"), ",")
    ) }} as fingerprint,
    allowed_principals,
    is_deleted
from manifest
