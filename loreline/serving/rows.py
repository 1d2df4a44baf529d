"""The rows that a push reads: their columns, cut at documents, and encoded for binary COPY."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.sql import SQL, Composable, Identifier
from psycopg.types import TypeInfo

from loreline.errors import LorelineError
from loreline.serving.fingerprints import STORAGES, vector_bytes


@dataclass(frozen=True)
class Column:
    """A column of a collection's table."""

    name: str
    arrow_type: pa.DataType
    postgres_type: str
    is_required: bool = False


_TEXTS = pa.list_(pa.string())
_INSTANT = pa.timestamp("us", "UTC")

# Between the two: what a chunk is described and filtered by. It changes without a new vector.
KEY = Column("chunk_id", pa.string(), "text", is_required=True)
ATTRIBUTES = (
    Column("doc_id", pa.string(), "text", is_required=True),
    Column("document_version_id", pa.string(), "text", is_required=True),
    Column("chunk_index", pa.int32(), "int4", is_required=True),
    Column("text_hash", pa.string(), "text", is_required=True),
    Column("title", pa.string(), "text"),
    Column("url", pa.string(), "text"),
    Column("heading_path", _TEXTS, "text[]"),
    Column("start_char", pa.int32(), "int4"),
    Column("end_char", pa.int32(), "int4"),
    Column("source", pa.string(), "text"),
    Column("container", pa.string(), "text"),
    Column("author_id", pa.string(), "text"),
    Column("created_at", _INSTANT, "timestamptz"),
    Column("source_updated_at", _INSTANT, "timestamptz"),
    Column("allowed_principals", _TEXTS, "text[]", is_required=True),
)
CONTENT = (
    Column("text", pa.string(), "text", is_required=True),
    Column("embedding", pa.list_(pa.float32()), "vector", is_required=True),
)
COLUMNS = (KEY, *ATTRIBUTES, *CONTENT)

# The columns that a push reads. Times without a zone are UTC. A document without live chunks is one
# row in which everything but `doc_id` is null.
CHUNK_SCHEMA = pa.schema([(column.name, column.arrow_type) for column in COLUMNS])


def stored_columns(storage: str) -> tuple[Column, ...]:
    """COLUMNS with the type of pgvector that holds the embeddings."""
    return tuple(
        replace(column, postgres_type=storage) if column.name == "embedding" else column
        for column in COLUMNS
    )


def whole_documents(batches: Iterable[pa.RecordBatch], least_rows: int) -> Iterator[pa.Table]:
    """Regroup rows, ordered by `doc_id`, into tables of CHUNK_SCHEMA that split no document.

    Args:
        batches: has the columns of CHUNK_SCHEMA, in any order, in types that cast to its types.
        least_rows: rows of a table, the last one aside; a long document makes it larger.

    Raises:
        LorelineError: a column is missing or of another type, or the rows are not in order.
    """
    pending = CHUNK_SCHEMA.empty_table()
    for batch in batches:
        pending = pa.concat_tables([pending, _as_chunks(batch)]).combine_chunks()
        if pending.num_rows < least_rows:
            continue
        doc_ids = pending["doc_id"]
        _check_order(doc_ids)
        last_document = pc.index(doc_ids, doc_ids[-1]).as_py()
        if last_document:
            yield pending.slice(0, last_document)
            pending = pending.slice(last_document)
    if pending.num_rows:
        _check_order(pending["doc_id"])
        yield pending


def live_rows(table: pa.Table) -> pa.Table:
    """The rows that are chunks, without those that stand for a document without any."""
    return table.filter(table["chunk_id"].is_valid())


def copy_cursor(connection: psycopg.Connection, storage: str) -> psycopg.Cursor:
    """A cursor that knows how to write embeddings of a type of pgvector.

    Raises:
        LorelineError: the database has no such type.
    """
    vector = TypeInfo.fetch(connection, storage)
    if vector is None:
        raise LorelineError(f"Postgres has no type {storage}", "run `loreline upgrade`")
    cursor = connection.cursor()
    vector.register(cursor)
    cursor.adapters.register_dumper(None, type("", (_EncodedVector,), {"oid": vector.oid}))
    return cursor


def copy_into(
    cursor: psycopg.Cursor, target: Composable, rows: pa.Table, dimensions: int, storage: str
) -> None:
    """COPY rows of CHUNK_SCHEMA into a Postgres table, through a cursor of `copy_cursor`.

    Raises:
        LorelineError: a row is one that the table cannot hold.
    """
    columns = [rows[column.name].to_pylist() for column in COLUMNS[:-1]]
    columns.append(_encoded_vectors(rows, dimensions, storage))
    names = SQL(", ").join(Identifier(column.name) for column in COLUMNS)
    statement = SQL("copy {} ({}) from stdin (format binary)").format(target, names)
    try:
        with cursor.copy(statement) as copy:
            copy.set_types([column.postgres_type for column in stored_columns(storage)])
            for row in zip(*columns, strict=True):
                copy.write_row(row)
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise LorelineError(
            f"Postgres refused a chunk of the documents {rows['doc_id'][0]} to "
            f"{rows['doc_id'][-1]} ({error.diag.message_primary or error})",
            "mend that chunk and push again",
        ) from error


class _EncodedVector(Dumper):
    format = Format.BINARY

    def dump(self, obj: bytes) -> bytes:
        return obj


def _as_chunks(batch: pa.RecordBatch) -> pa.Table:
    try:
        return pa.Table.from_batches([batch]).select(CHUNK_SCHEMA.names).cast(CHUNK_SCHEMA)
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise LorelineError(
            f"the rows to push are not chunks ({error})",
            f"send the columns {', '.join(CHUNK_SCHEMA.names)}",
        ) from error


def _check_order(doc_ids: pa.ChunkedArray) -> None:
    if doc_ids.null_count:
        raise LorelineError("a row to push names no document", "set doc_id on every row")
    if not pc.all(pc.less_equal(doc_ids[:-1], doc_ids[1:]), min_count=0).as_py():
        raise LorelineError("the rows to push are not ordered by document", "order them by doc_id")


def _encoded_vectors(rows: pa.Table, dimensions: int, storage: str) -> list[bytes | None]:
    """The embeddings as pgvector reads them; the format is `fingerprints.vector_bytes`'."""
    embeddings = rows["embedding"].combine_chunks()
    misfits = pc.and_kleene(
        rows["chunk_id"].is_valid(),
        pc.not_equal(pc.fill_null(pc.list_value_length(embeddings), 0), dimensions),
    )
    if pc.any(misfits, min_count=0).as_py():
        chunk_id = rows["chunk_id"].filter(misfits)[0]
        raise LorelineError(
            f"the embedding of chunk {chunk_id} has not {dimensions} dimensions",
            "push a collection with the embeddings of its own configuration",
        )
    matrix = embeddings.flatten().to_numpy(zero_copy_only=False).reshape(-1, dimensions)
    with np.errstate(over="ignore"):
        values = matrix.astype(STORAGES[storage])
    too_large = np.isinf(values).any(axis=1) & np.isfinite(matrix).all(axis=1)
    if too_large.any():
        chunk_id = live_rows(rows)["chunk_id"][int(too_large.argmax())]
        raise LorelineError(
            f"the embedding of chunk {chunk_id} has values beyond what {storage} holds",
            "normalize the vectors, or store them as vector",
        )
    header = vector_bytes(np.zeros(dimensions))[:4]
    encoded = (header + vector.tobytes() for vector in values)
    return [next(encoded) if is_chunk else None for is_chunk in embeddings.is_valid().to_pylist()]
