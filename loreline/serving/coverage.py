"""Which documents are built under which configurations, and why others are not.

A query over the lake and Postgres as they are when it is asked, not a table: what a build has left
undone is just what a table of the build would not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

    from loreline.settings import Settings

STATES = ("built", "missing", "stale", "failed")

# One row per document and pair of configurations: what there is to build, and what was deleted and
# is still there. Postgres is asked for its collections alone: which documents a collection holds is
# what the manifest says of it up to the push that it had last (`loreline contents` compares both).
COVERAGE = """
with pairs as (
    select
        embeddings.embedding_model,
        chunking.chunking_strategy,
        embeddings.config_hash as embedding_config_hash,
        chunking.config_hash as chunking_config_hash,
        embeddings.storage,
        embeddings.status = 'served' and chunking.status = 'served' as is_served
    from lake.{prefix}embedding.embedding_configurations as embeddings
    cross join lake.{prefix}knowledge.chunking_configurations as chunking
    where
        ($model is null or embeddings.embedding_model = $model)
        and ($strategy is null or chunking.chunking_strategy = $strategy)
),

current_documents as (
    select doc_id, document_version_id, source, title
    from lake.{prefix}knowledge.documents_current
    where not is_deleted and not is_blank and ($source is null or source = $source)
),

refused as (
    select external_id as text_hash, origin as embedding_config_hash, any_value(detail) as reason
    from pg.{prefix}operations.quarantine
    where source = 'embedding'
    group by external_id, origin
),

vectors as (
    select text_hash, config_hash as embedding_config_hash, halfvec_sha256 is null as is_too_large
    from lake.{prefix}embedding.text_embeddings
    where config_hash in (select embedding_config_hash from pairs)
),

texts as (
    select chunks.doc_id, chunks.config_hash as chunking_config_hash, chunks.text_hash
    from lake.{prefix}knowledge.chunks as chunks
    semi join current_documents using (document_version_id)
    where chunks.config_hash in (select chunking_config_hash from pairs)
),

counted as (
    select
        texts.doc_id,
        texts.chunking_config_hash,
        pairs.embedding_config_hash,
        count(*) as texts,
        count(vectors.text_hash) as embedded,
        count(*) filter (pairs.storage = 'halfvec' and vectors.is_too_large) as too_large
    from texts
    inner join pairs using (chunking_config_hash)
    left join vectors using (text_hash, embedding_config_hash)
    group by texts.doc_id, texts.chunking_config_hash, pairs.embedding_config_hash
),

refusals as (
    select
        texts.doc_id,
        texts.chunking_config_hash,
        refused.embedding_config_hash,
        count(*) as refused,
        any_value(refused.reason) as reason
    from texts
    inner join refused using (text_hash)
    anti join vectors using (text_hash, embedding_config_hash)
    group by texts.doc_id, texts.chunking_config_hash, refused.embedding_config_hash
),

stores as (
    select
        stored.vector_collection,
        stored.embedding_model,
        stored.chunking_strategy,
        stored.pushed_batch,
        pairs.embedding_config_hash is not null as is_of_now
    from pg.{prefix}serving.collections as stored
    left join pairs
        on stored.embedding_config_hash = pairs.embedding_config_hash
        and stored.chunking_config_hash = pairs.chunking_config_hash
        and stored.storage = pairs.storage
    where
        stored.status = 'served'
        and ($model is null or stored.embedding_model = $model)
        and ($strategy is null or stored.chunking_strategy = $strategy)
),

held as (
    select
        stores.embedding_model,
        stores.chunking_strategy,
        manifest.doc_id,
        any_value(manifest.document_version_id) as document_version_id,
        any_value(stores.is_of_now) as is_of_now
    from lake.{prefix}serving.vector_manifest as manifest
    inner join stores using (vector_collection)
    where not manifest.is_deleted and manifest._batch <= stores.pushed_batch
    group by stores.embedding_model, stores.chunking_strategy, manifest.doc_id
),

current_states as (
    select
        documents.doc_id,
        documents.source,
        documents.title,
        pairs.embedding_model,
        pairs.chunking_strategy,
        pairs.is_served,
        held.doc_id is not null as is_held,
        coalesce(held.is_of_now and held.document_version_id = documents.document_version_id, false)
            as is_held_as_it_is,
        coalesce(held.is_of_now, false) as is_of_now,
        coalesce(counted.texts, 0) as texts,
        coalesce(counted.embedded, 0) as embedded,
        coalesce(refusals.refused, 0) + coalesce(counted.too_large, 0) as refused,
        coalesce(
            refusals.reason, 'a vector with values beyond what halfvec holds, or from before it'
        ) as refusal
    from current_documents as documents
    cross join pairs
    left join counted using (doc_id, chunking_config_hash, embedding_config_hash)
    left join refusals using (doc_id, chunking_config_hash, embedding_config_hash)
    left join held using (doc_id, embedding_model, chunking_strategy)
),

explained as (
    select
        *,
        case
            when refused > 0 then 'failed'
            when texts > 0 and embedded = texts and (is_held_as_it_is or not is_served) then 'built'
            when is_held and not is_held_as_it_is then 'stale'
            else 'missing'
        end as state,
        case
            when refused > 0 then refused || ' of ' || texts || ' texts refused: ' || refusal
            when texts = 0 then 'not cut into chunks'
            when embedded < texts
                then (texts - embedded) || ' of ' || texts || ' texts not embedded'
            when is_served and not is_held_as_it_is then 'embedded, not pushed'
        end as reason
    from current_states
),

-- What is served although there is nothing of it to serve.
left_over as (
    select
        held.doc_id,
        documents.source,
        documents.title,
        held.embedding_model,
        held.chunking_strategy,
        true as is_served,
        'stale' as state,
        'deleted, and still served' as reason
    from held
    inner join lake.{prefix}knowledge.documents_current as documents
        on held.doc_id = documents.doc_id
    where
        (documents.is_deleted or documents.is_blank)
        and ($source is null or documents.source = $source)
)

select
    doc_id,
    source,
    title,
    embedding_model,
    chunking_strategy,
    is_served,
    state,
    reason || case
        when state = 'built' or not is_held or is_held_as_it_is then ''
        when is_of_now then '; an older version is served'
        else '; an older configuration is served'
    end as reason
from explained

union all

select * from left_over
"""


@dataclass(frozen=True)
class Cell:
    """Documents of a source under a pair of configurations, counted by state."""

    embedding_model: str
    chunking_strategy: str
    is_served: bool
    source: str
    built: int
    missing: int
    stale: int
    failed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.built + self.missing + self.stale + self.failed


@dataclass(frozen=True)
class Gap:
    """A document that is not built under a pair of configurations, and why."""

    doc_id: str
    source: str
    title: str | None
    embedding_model: str
    chunking_strategy: str
    is_served: bool
    state: str
    reason: str


@dataclass(frozen=True)
class Coverage:
    """The states of all documents, computed once and held in DuckDB."""

    connection: duckdb.DuckDBPyConnection

    def cells(self) -> list[Cell]:
        """By configurations and source; served ones first."""
        counts = ", ".join(f"count(*) filter (state = '{state}')" for state in STATES)
        rows = self.connection.execute(
            f"select embedding_model, chunking_strategy, is_served, source, {counts}"  # noqa: S608
            " from coverage group by 1, 2, 3, 4 order by 3 desc, 1, 2, 4"
        ).fetchall()
        return [Cell(*row) for row in rows]

    def gaps(self, limit: int | None = None) -> Iterator[Gap]:
        """What is not built, by configurations and document."""
        result = self.connection.execute(
            "select doc_id, source, title, embedding_model, chunking_strategy, is_served, state,"
            " reason from coverage where state <> 'built'"
            " order by is_served desc, embedding_model, chunking_strategy, doc_id limit $limit",
            {"limit": 2**62 if limit is None else limit},
        )
        while rows := result.fetchmany(1_000):
            yield from (Gap(*row) for row in rows)


def coverage(
    lake: duckdb.DuckDBPyConnection,
    settings: Settings,
    *,
    model: str | None = None,
    strategy: str | None = None,
    source: str | None = None,
) -> Coverage:
    """Compute the states of all documents under all configurations that are not retired.

    Args:
        lake: with both stores attached; gets a temporary table `coverage`.
        settings: the stores.
        model: only under this embedding model.
        strategy: only under this chunking strategy.
        source: only documents from here.

    Raises:
        duckdb.CatalogException: something that it reads was never built.
    """
    lake.execute(
        f"create or replace temp table coverage as {COVERAGE.format(prefix=settings.prefix)}",
        {"model": model, "strategy": strategy, "source": source},
    )
    return Coverage(lake)


def sources_of(cells: Sequence[Cell]) -> list[str]:
    """The sources that there are documents from."""
    return sorted({cell.source for cell in cells})
