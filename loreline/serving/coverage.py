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

# What is compared, in small numbers instead of long names: documents and pairs of configurations.
PAIRS = """
select
    row_number() over () as pair,
    dense_rank() over (order by embeddings.config_hash) as embedding,
    dense_rank() over (order by chunking.config_hash) as chunking,
    embeddings.embedding_model,
    chunking.chunking_strategy,
    embeddings.config_hash as embedding_config_hash,
    chunking.config_hash as chunking_config_hash,
    embeddings.storage,
    embeddings.status = 'served' and chunking.status = 'served' as is_served
from lake.{prefix}embedding.embedding_configurations as embeddings
cross join lake.{prefix}knowledge.chunking_configurations as chunking
where
    ({model} is null or embeddings.embedding_model = {model})
    and ({strategy} is null or chunking.chunking_strategy = {strategy})
"""

DOCUMENTS = """
select
    row_number() over () as document,
    doc_id,
    document_version_id,
    source,
    title,
    not is_deleted and not is_blank as is_current
from lake.{prefix}knowledge.documents_current
where {source} is null or source = {source}
"""

# One row per document and pair: what there is to build, and what was deleted and is still there.
#
# Texts are told apart by 64 bits of their hashes, which takes a fifth of the memory: that of a
# million texts that lack a vector one has the bits of one among a hundred million that do not, has
# a chance of five in a million.
#
# Postgres is asked for its collections alone: which documents a collection holds is what the
# manifest says of it up to the push that it had last (`loreline contents` compares both).
STATES_OF_ALL = """
with refused as (
    select
        hash(set_aside.external_id) as text,
        pairs.embedding,
        any_value(set_aside.detail) as reason
    from pg.{prefix}operations.quarantine as set_aside
    inner join (select distinct embedding, embedding_config_hash from coverage_pairs) as pairs
        on set_aside.origin = pairs.embedding_config_hash
    where set_aside.source = 'embedding'
    group by set_aside.external_id, pairs.embedding
),

vectors as (
    select
        hash(embeddings.text_hash) as text,
        pairs.embedding,
        embeddings.halfvec_sha256 is null as is_too_large
    from lake.{prefix}embedding.text_embeddings as embeddings
    inner join (select distinct embedding, embedding_config_hash from coverage_pairs) as pairs
        on embeddings.config_hash = pairs.embedding_config_hash
),

texts as (
    select documents.document, pairs.chunking, hash(chunks.text_hash) as text
    from lake.{prefix}knowledge.chunks as chunks
    inner join coverage_documents as documents using (document_version_id)
    inner join (select distinct chunking, chunking_config_hash from coverage_pairs) as pairs
        on chunks.config_hash = pairs.chunking_config_hash
    where documents.is_current
),

counted as (
    select
        texts.document,
        pairs.pair,
        count(*) as texts,
        count(vectors.text) as embedded,
        count(*) filter (pairs.storage = 'halfvec' and vectors.is_too_large) as too_large
    from texts
    inner join coverage_pairs as pairs using (chunking)
    left join vectors on texts.text = vectors.text and pairs.embedding = vectors.embedding
    group by texts.document, pairs.pair
),

refusals as (
    select
        texts.document,
        pairs.pair,
        count(*) as refused,
        any_value(refused.reason) as reason
    from texts
    inner join refused using (text)
    inner join coverage_pairs as pairs using (chunking, embedding)
    anti join vectors on texts.text = vectors.text and pairs.embedding = vectors.embedding
    group by texts.document, pairs.pair
),

stores as (
    select
        stored.vector_collection,
        stored.pushed_batch,
        named.pair,
        named.embedding_config_hash = stored.embedding_config_hash
        and named.chunking_config_hash = stored.chunking_config_hash
        and named.storage = stored.storage as is_of_now
    from pg.{prefix}serving.collections as stored
    inner join coverage_pairs as named using (embedding_model, chunking_strategy)
    where stored.status = 'served'
),

held as (
    select
        documents.document,
        stores.pair,
        coalesce(bool_and(stores.is_of_now), false) as is_of_now,
        coalesce(
            bool_and(
                stores.is_of_now
                and documents.is_current
                and manifest.document_version_id = documents.document_version_id
            ),
            false
        ) as is_held_as_it_is
    from lake.{prefix}serving.vector_manifest as manifest
    inner join stores using (vector_collection)
    inner join coverage_documents as documents on manifest.doc_id = documents.doc_id
    where not manifest.is_deleted and manifest._batch <= stores.pushed_batch
    group by documents.document, stores.pair
),

current_states as (
    select
        documents.document,
        pairs.pair,
        pairs.is_served,
        held.document is not null as is_held,
        coalesce(held.is_held_as_it_is, false) as is_held_as_it_is,
        coalesce(held.is_of_now, false) as is_of_now,
        coalesce(counted.texts, 0) as texts,
        coalesce(counted.embedded, 0) as embedded,
        coalesce(refusals.refused, 0) + coalesce(counted.too_large, 0) as refused,
        coalesce(
            refusals.reason, 'a vector with values beyond what halfvec holds, or from before it'
        ) as refusal
    from coverage_documents as documents
    cross join coverage_pairs as pairs
    left join counted on documents.document = counted.document and pairs.pair = counted.pair
    left join refusals on documents.document = refusals.document and pairs.pair = refusals.pair
    left join held on documents.document = held.document and pairs.pair = held.pair
    where documents.is_current
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
)

select
    document,
    pair,
    is_served,
    state,
    reason || case
        when not is_held or is_held_as_it_is then ''
        when is_of_now then '; an older version is served'
        else '; an older configuration is served'
    end as reason
from explained

union all

-- What is served although there is nothing of it to serve.
select held.document, held.pair, true, 'stale', 'deleted, and still served'
from held
inner join coverage_documents as documents using (document)
where not documents.is_current
"""

COVERAGE = """
select
    documents.doc_id,
    documents.source,
    documents.title,
    pairs.embedding_model,
    pairs.chunking_strategy,
    states.is_served,
    states.state,
    states.reason
from coverage_states as states
inner join coverage_documents as documents using (document)
inner join coverage_pairs as pairs using (pair)
"""

STEPS = {
    "coverage_pairs": PAIRS,
    "coverage_documents": DOCUMENTS,
    "coverage_states": STATES_OF_ALL,
}


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
        lake: with both stores attached; gets a temporary view `coverage`.
        settings: the stores.
        model: only under this embedding model.
        strategy: only under this chunking strategy.
        source: only documents from here.

    Raises:
        duckdb.CatalogException: something that it reads was never built.
    """
    given = {"model": model, "strategy": strategy, "source": source}
    parameters = {name: f"${name}" for name in given}
    for name, query in STEPS.items():
        statement = f"create or replace temp table {name} as {query}"
        lake.execute(
            statement.format(prefix=settings.prefix, **parameters),
            {name: value for name, value in given.items() if f"{{{name}}}" in query},
        )
    lake.execute(f"create or replace temp view coverage as {COVERAGE}")
    return Coverage(lake)


def create_view(lake: duckdb.DuckDBPyConnection, settings: Settings) -> None:
    """Create `operations.coverage`: the same for all documents, computed whenever it is read.

    Args:
        lake: in-memory DuckDB with both stores attached; gets a schema and a view of its own.
        settings: the stores.

    Raises:
        duckdb.CatalogException: something that it reads was never built.
    """
    steps = ", ".join(f"{name} as materialized ({query})" for name, query in STEPS.items())
    everything = dict.fromkeys(("model", "strategy", "source"), "null")
    lake.execute("create schema if not exists operations")
    lake.execute(
        f"create or replace view operations.coverage as with {steps} {COVERAGE}".format(
            prefix=settings.prefix, **everything
        )
    )


def sources_of(cells: Sequence[Cell]) -> list[str]:
    """The sources that there are documents from."""
    return sorted({cell.source for cell in cells})
