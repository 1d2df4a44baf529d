"""What Postgres serves: collections of chunks, and the push that brings one up to date.

A collection is what one embedding configuration makes of the chunks of one chunking configuration.
A new one is loaded by COPY, indexed, and switched to in one transaction, which retires the one that
it replaces. From then on a push changes exactly the rows that differ, whole documents at a time, so
that a search, which sees one snapshot, never meets two versions of a document or half of one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.pq import TransactionStatus
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Identifier

from loreline.errors import LorelineError
from loreline.serving.chunk_table import ChunkTable, Progress, PushResult
from loreline.serving.rows import CHUNK_SCHEMA, whole_documents
from loreline.settings import Settings

__all__ = [
    "CHUNK_SCHEMA",
    "Collection",
    "CollectionState",
    "PushResult",
    "drop_retired",
    "push",
    "pushed_batch",
    "retire",
    "retire_others",
    "states",
]

# pgvector indexes vectors of up to so many dimensions.
MOST_DIMENSIONS = {"vector": 2_000, "halfvec": 4_000}

# Rows that are compared and swapped in one transaction, and rows of one COPY of a new collection.
ROWS_PER_SWAP = 2_000
ROWS_PER_COPY = 10_000

# A query that began before a collection was retired may still read its table.
KEEP_RETIRED = timedelta(hours=1)


@dataclass(frozen=True)
class Collection:
    """A collection as it should be.

    Attributes:
        vector_collection: its name, which no other configuration ever has.
        embedding_model: the embedding variant.
        chunking_strategy: the chunking variant. A new collection replaces the one of the same two.
        config_hash: of both configurations.
        dimensions: of the embeddings.
        storage: the type of pgvector that holds them, vector or halfvec.
        embedding_config_hash: of the embedding configuration.
        chunking_config_hash: of the chunking configuration.
        question_embedding: the settings, as JSON, that questions are embedded with.
        text_search_config: the Postgres text search configuration that splits texts into words.
        is_default: whether a search that names no collection means this one.
        hnsw_m: links of a node of the vector index; used when it is built.
        hnsw_ef_construction: candidates for those links: more of them, a slower and better build.
    """

    vector_collection: str
    embedding_model: str
    chunking_strategy: str
    config_hash: str
    dimensions: int
    text_search_config: str = "english"
    is_default: bool = False
    storage: str = "vector"
    embedding_config_hash: str | None = None
    chunking_config_hash: str | None = None
    question_embedding: str | None = None
    hnsw_m: int = 16
    hnsw_ef_construction: int = 100

    def __post_init__(self) -> None:
        if self.storage not in MOST_DIMENSIONS:
            raise LorelineError(
                f"collection {self.vector_collection} is to be stored as {self.storage!r}",
                f"use {' or '.join(MOST_DIMENSIONS)}",
            )
        most = MOST_DIMENSIONS[self.storage]
        if not 1 <= self.dimensions <= most:
            raise LorelineError(
                f"collection {self.vector_collection} has {self.dimensions} dimensions",
                f"pgvector indexes a {self.storage} of 1 to {most}: keep fewer"
                + (" or store them as halfvec" if self.storage == "vector" else ""),
            )


@dataclass(frozen=True)
class CollectionState:
    """A collection as it is; `status` is building, served or retired."""

    vector_collection: str
    embedding_model: str
    chunking_strategy: str
    config_hash: str
    dimensions: int
    text_search_config: str
    status: str
    is_default: bool
    table_number: int
    pushed_batch: int | None
    row_count: int
    built_at: datetime | None
    storage: str
    question_embedding: dict[str, Any] | None


def states(connection: psycopg.Connection, settings: Settings) -> list[CollectionState]:
    """Every collection that Postgres knows, by name.

    Raises:
        LorelineError: the schema is older than this version of Loreline.
    """
    query = _in_schema(
        settings,
        """
        select
            vector_collection, embedding_model, chunking_strategy, config_hash, dimensions,
            text_search_config, status, is_default, table_number, pushed_batch,
            chunk_count as row_count, built_at, storage, question_embedding
        from {serving}.collections
        order by vector_collection
        """,
    )
    try:
        with (
            connection.transaction(),
            connection.cursor(row_factory=class_row(CollectionState)) as cursor,
        ):
            return cursor.execute(query).fetchall()
    except psycopg.errors.UndefinedColumn as error:
        raise LorelineError("Postgres has an older schema", "run `loreline upgrade`") from error


def pushed_batch(
    connection: psycopg.Connection, settings: Settings, collection: Collection
) -> int | None:
    """The `through_batch` of the last complete push, or None: then a push needs every document."""
    state = _find(connection, settings, collection.vector_collection)
    return state.pushed_batch if state else None


def stored_vectors(
    connection: psycopg.Connection,
    settings: Settings,
    collection: Collection,
    doc_ids: Sequence[str],
) -> pa.Table:
    """The vectors that a collection holds of some documents.

    Returns:
        Columns text_hash, vector_sha256 (as in `fingerprints`) and embedding.
    """
    schema = pa.schema(
        [
            ("text_hash", pa.string()),
            ("vector_sha256", pa.string()),
            ("embedding", pa.list_(pa.float32())),
        ]
    )
    state = _find(connection, settings, collection.vector_collection)
    if state is None or state.pushed_batch is None:
        return schema.empty_table()
    statement = SQL(
        "select text_hash, encode(sha256({}(embedding)), 'hex'), embedding::real[]"
        " from {} where doc_id = any(%s)"
    ).format(
        SQL(f"{state.storage}_send"),
        Identifier(f"{settings.prefix}serving", f"chunks_{state.table_number}"),
    )
    with connection.transaction():
        rows = connection.execute(statement, [list(doc_ids)], binary=True).fetchall()
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(column, f.type) for column, f in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def push(
    connection: psycopg.Connection,
    settings: Settings,
    collection: Collection,
    rows: Iterable[pa.RecordBatch],
    *,
    through_batch: int,
    since: int | None = None,
    recount: bool = False,
    progress: Progress | None = None,
) -> PushResult:
    """Bring a collection to what `rows` say, and serve it.

    A push that is killed leaves whole documents, old or new, and is made up for by the next one.
    Two pushes of one collection wait for each other.

    Args:
        connection: without an open transaction; in autocommit while the push lasts.
        settings: says which schema the collection lives in.
        collection: made, and built beside the one that it replaces, when it is not there.
        rows: columns of `rows.CHUNK_SCHEMA`, ordered by `doc_id`: every live chunk of each document
            that changed, and one row with a null `chunk_id` for a document that has none left. Read
            once, in bounded memory.
        through_batch: what `pushed_batch` says from then on. When another push has gone further
            meanwhile, `rows` are outdated and not read.
        since: what `pushed_batch` said when `rows` were chosen, to make sure that it still holds.
        recount: count chunks and lexemes anew: for a table that somebody else has changed.
        progress: called with the name of a step and how many chunks it has done.

    Raises:
        LorelineError: the rows are not as described, or Postgres refuses one; the collection has
            another configuration, or less than `since`; the connection is in a transaction.
    """
    with _sole_writer(connection, settings, collection):
        state = _registered(connection, settings, collection)
        if since is not None and (state.pushed_batch is None or state.pushed_batch < since):
            raise LorelineError(
                f"collection {collection.vector_collection} no longer holds batch {since}",
                "push again, with the changes since what it holds now",
            )
        table = _table(connection, settings, state, progress)
        result = PushResult()
        try:
            if state.pushed_batch is None:
                result = _load(table, rows, through_batch)
            elif state.pushed_batch <= through_batch:
                result = _apply(table, rows, through_batch, recount=recount)
        except psycopg.IntegrityError as error:
            raise LorelineError(
                f"collection {collection.vector_collection} cannot hold a chunk that was pushed "
                f"({error.diag.message_primary}; {error.diag.message_detail})",
                "give each chunk an id of its own, a text, an embedding and its readers",
            ) from error
        if state.status != "served":
            table.build_indexes(collection.hnsw_m, collection.hnsw_ef_construction)
        if (state.status, state.is_default) != ("served", collection.is_default):
            _serve(connection, settings, collection)
    drop_retired(connection, settings)
    return result


def retire(connection: psycopg.Connection, settings: Settings, vector_collection: str) -> None:
    """Take a collection out of search and of `vector_rows`; `drop_retired` removes its table."""
    statement = _in_schema(
        settings,
        """
        update {serving}.collections
        set status = 'retired', is_default = false, retired_at = now()
        where vector_collection = %s and status <> 'retired'
        """,
    )
    with connection.transaction():
        connection.execute(statement, [vector_collection])


def retire_others(
    connection: psycopg.Connection, settings: Settings, kept: Iterable[str]
) -> list[str]:
    """Retire every collection that is not among `kept`, and return their names."""
    names = set(kept)
    others = [
        state.vector_collection
        for state in states(connection, settings)
        if state.status != "retired" and state.vector_collection not in names
    ]
    for name in others:
        retire(connection, settings, name)
    return others


def drop_retired(
    connection: psycopg.Connection, settings: Settings, older_than: timedelta = KEEP_RETIRED
) -> list[str]:
    """Drop the tables of collections retired that long ago, and return their names.

    One that somebody still reads or pushes is left for the next time.
    """
    overdue = _in_schema(
        settings,
        """
        select vector_collection
        from {serving}.collections
        where status = 'retired' and pushed_batch is not null and retired_at <= now() - %s
        """,
    )
    with connection.transaction():
        names = [row[0] for row in connection.execute(overdue, [older_than]).fetchall()]
    return [name for name in names if _drop_if_unused(connection, settings, name)]


def _drop_if_unused(
    connection: psycopg.Connection, settings: Settings, vector_collection: str
) -> bool:
    try:
        with connection.transaction():
            connection.execute("set local lock_timeout = '1s'")
            connection.execute(
                "select pg_advisory_xact_lock(hashtextextended(%s, 0))",
                [_lock_name(settings, vector_collection)],
            )
            state = _find(connection, settings, vector_collection)
            if state is None or state.status != "retired" or state.pushed_batch is None:
                return False
            _table(connection, settings, state).drop()
    except psycopg.errors.LockNotAvailable:
        return False
    return True


def _in_schema(settings: Settings, statement: str) -> Composed:
    return SQL(statement).format(serving=Identifier(f"{settings.prefix}serving"))


def _lock_name(settings: Settings, vector_collection: str) -> str:
    return f"{settings.prefix}serving.{vector_collection}"


def _find(
    connection: psycopg.Connection, settings: Settings, vector_collection: str
) -> CollectionState | None:
    known = {state.vector_collection: state for state in states(connection, settings)}
    return known.get(vector_collection)


def _table(
    connection: psycopg.Connection,
    settings: Settings,
    state: CollectionState,
    progress: Progress | None = None,
) -> ChunkTable:
    return ChunkTable(
        connection=connection,
        schema=f"{settings.prefix}serving",
        number=state.table_number,
        vector_collection=state.vector_collection,
        dimensions=state.dimensions,
        storage=state.storage,
        text_search_config=state.text_search_config,
        report=progress or (lambda step, chunks: None),
    )


@contextmanager
def _sole_writer(
    connection: psycopg.Connection, settings: Settings, collection: Collection
) -> Iterator[None]:
    """Hold the lock of the collection; when this process dies, Postgres frees it."""
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        raise LorelineError(
            "a push needs a connection without an open transaction", "commit or roll back first"
        )
    lock = [_lock_name(settings, collection.vector_collection)]
    autocommit = connection.autocommit
    connection.autocommit = True
    try:
        connection.execute("select pg_advisory_lock(hashtextextended(%s, 0))", lock)
        yield
    finally:
        if connection.info.transaction_status is TransactionStatus.IDLE:
            connection.execute("select pg_advisory_unlock(hashtextextended(%s, 0))", lock)
            connection.autocommit = autocommit
        else:
            connection.close()


def _registered(
    connection: psycopg.Connection, settings: Settings, collection: Collection
) -> CollectionState:
    """The collection's state; its row is made when it is new."""
    names = (
        "vector_collection",
        "embedding_model",
        "chunking_strategy",
        "config_hash",
        "dimensions",
        "text_search_config",
        "storage",
    )
    identity = [getattr(collection, name) for name in names]
    statement = _in_schema(
        settings,
        """
        insert into {serving}.collections (
            vector_collection, embedding_model, chunking_strategy, config_hash, dimensions,
            text_search_config, storage
        )
        values (%s, %s, %s, %s, %s, %s, %s)
        on conflict (vector_collection) do nothing
        """,
    )
    # A collection that was made before these were kept gets them with its next push.
    describe = _in_schema(
        settings,
        """
        update {serving}.collections
        set
            embedding_config_hash = %(embedding_config_hash)s,
            chunking_config_hash = %(chunking_config_hash)s,
            question_embedding = %(question_embedding)s::json
        where
            vector_collection = %(vector_collection)s
            and (embedding_config_hash, chunking_config_hash, question_embedding::text)
            is distinct from (
                %(embedding_config_hash)s, %(chunking_config_hash)s, %(question_embedding)s::text
            )
        """,
    )
    try:
        connection.execute("select %s::regconfig", [collection.text_search_config])
    except psycopg.errors.UndefinedObject as error:
        raise LorelineError(
            f"Postgres has no text search configuration {collection.text_search_config!r}",
            "choose one of `select cfgname from pg_ts_config`",
        ) from error
    connection.execute(statement, identity)
    state = _find(connection, settings, collection.vector_collection)
    if state is None or [getattr(state, name) for name in names] != identity:
        raise LorelineError(
            f"collection {collection.vector_collection} is there with another configuration",
            "give each configuration a name of its own",
        )
    connection.execute(describe, asdict(collection))
    return state


def _load(table: ChunkTable, rows: Iterable[pa.RecordBatch], through_batch: int) -> PushResult:
    with table.connection.transaction():
        result = table.load(whole_documents(rows, ROWS_PER_COPY))
        table.complete(through_batch)
    return result


def _apply(
    table: ChunkTable, rows: Iterable[pa.RecordBatch], through_batch: int, *, recount: bool
) -> PushResult:
    result = PushResult()
    last = CHUNK_SCHEMA.empty_table()
    for documents in whole_documents(rows, ROWS_PER_SWAP):
        with table.connection.transaction():
            result += table.swap(last)
        last = documents
    with table.connection.transaction():
        result += table.swap(last)
        if recount:
            table.recount()
        table.complete(through_batch)
    return result


def _serve(connection: psycopg.Connection, settings: Settings, collection: Collection) -> None:
    """Switch to the collection: from this snapshot on it is searched, and its elders are not."""
    with connection.transaction():
        for statement in (
            # Two switches at once would wait for each other's rows.
            "lock table {serving}.collections in share row exclusive mode",
            """
            update {serving}.collections
            set status = 'retired', is_default = false, retired_at = now()
            where
                status = 'served'
                and embedding_model = %(embedding_model)s
                and chunking_strategy = %(chunking_strategy)s
                and vector_collection <> %(vector_collection)s
            """,
            """
            update {serving}.collections
            set is_default = false
            where is_default and %(is_default)s and vector_collection <> %(vector_collection)s
            """,
            """
            update {serving}.collections
            set
                status = 'served',
                is_default = %(is_default)s,
                built_at = case when status = 'served' then built_at else now() end,
                retired_at = null
            where vector_collection = %(vector_collection)s
            """,
        ):
            connection.execute(_in_schema(settings, statement), asdict(collection))
