"""The client of the SQL function `serving.search`, which any Postgres client can call as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from loreline.errors import LorelineError
from loreline.settings import Settings

PUBLIC = ("public",)

# The function reads no more of a question; what is longer need not be sent.
MOST_QUERY_CHARACTERS = 2_000

Filter = str | datetime | Sequence[str] | None


@dataclass(frozen=True)
class Hit:
    """A chunk that a search found.

    Attributes:
        chunk_index: its place among the chunks of its version, from 0.
        start_char: its first character in the version's body, from 1.
        end_char: its last one.
        score: at most 1; comparable within one search.
        dense_rank: place among the chunks nearest to the query's embedding, from 1, if it is there.
        lexical_rank: place among the chunks that hold the query's words, likewise.
        rerank_score: how well it answers, as a cross-encoder sees it, if one was asked.
    """

    chunk_id: str
    doc_id: str
    document_version_id: str
    title: str | None
    url: str | None
    text: str
    heading_path: list[str] | None
    source: str | None
    container: str | None
    author_id: str | None
    source_updated_at: datetime | None
    chunk_index: int
    start_char: int
    end_char: int
    score: float
    dense_rank: int | None
    lexical_rank: int | None
    rerank_score: float | None = None


def search(
    connection: psycopg.Connection,
    settings: Settings,
    query_text: str | None,
    query_embedding: np.ndarray | None,
    principals: Sequence[str] = PUBLIC,
    k: int = 10,
    filters: Mapping[str, Filter] | None = None,
    collection: str | None = None,
    dense_weight: float = 0.5,
) -> list[Hit]:
    """The `k` chunks that answer best, best first, among those that the principals may read.

    Args:
        connection: any; one statement, one snapshot.
        settings: says which schema is searched.
        query_text: the question as words, or None: then only embeddings are compared.
        query_embedding: its embedding, shape (dimensions,), or None: then only words are.
        principals: who asks; what is public is always searched too.
        k: at most 1,000.
        filters: `source`, `container`, `author` (a text or several), `since` (from then on) and
            `until` (before then), each an instant or its ISO text, in UTC unless it says otherwise.
        collection: a served collection; None is the default one.
        dense_weight: what the embeddings count where both are asked for, 0 to 1.

    Raises:
        LorelineError: no such collection is served, there is no such filter, a filter's value is no
            instant, or the embedding has other dimensions than the collection.
    """
    statement = SQL(
        "select * from {}.search(%s, %s::text::vector, %s::text[], %s, %s, %s, %s)"
    ).format(Identifier(f"{settings.prefix}serving"))
    parameters = [
        None if query_text is None else _readable(query_text[:MOST_QUERY_CHARACTERS]),
        None if query_embedding is None else str([float(x) for x in query_embedding]),
        # A name that Postgres cannot hold is nobody's: mending it could make it somebody else's.
        [principal for principal in principals if _readable(principal) == principal],
        k,
        Jsonb({name: _as_json(value) for name, value in (filters or {}).items()}),
        collection,
        dense_weight,
    ]
    try:
        with connection.cursor(row_factory=class_row(Hit)) as cursor:
            return cursor.execute(statement, parameters).fetchall()
    except (psycopg.errors.UndefinedObject, psycopg.DataError) as error:
        raise LorelineError(
            error.diag.message_primary or str(error),
            error.diag.message_hint or "change the query",
        ) from error
    except (psycopg.errors.InvalidSchemaName, psycopg.errors.UndefinedFunction) as error:
        raise LorelineError("Postgres has no search function", "run `loreline upgrade`") from error


def _readable(text: str) -> str:
    """A text as Postgres can hold it: without NUL and without halves of surrogate pairs."""
    return text.replace("\0", " ").encode("utf-8", "replace").decode()


def _as_json(value: Filter) -> str | list[str] | None:
    if isinstance(value, datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, str) else list(value)
