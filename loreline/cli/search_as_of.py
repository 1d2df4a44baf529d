"""Search in the lake as it was: its snapshots of that time, compared vector by vector."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

    from loreline.serving.answers import Neighbours
    from loreline.serving.search import Hit
    from loreline.settings import Settings

TABLES = {
    "collections": "serving.served_collections",
    "configurations": "embedding.embedding_configurations",
    "manifest": "serving.vector_manifest",
    "embeddings": "embedding.text_embeddings",
    "chunks": "knowledge.chunks",
    "documents": "knowledge.documents_current",
}

# Where both have a column, the collection's counts.
COLLECTIONS = """
select configurations.*, collections.*
from {collections} as collections
left join {configurations} as configurations
    on collections.embedding_config_hash = configurations.config_hash
order by collections.vector_collection
"""

NEAREST = """
with readable as (
    select
        manifest.chunk_id,
        manifest.document_version_id,
        manifest.text_hash,
        manifest.allowed_principals,
        documents.doc_id,
        documents.title,
        documents.url,
        documents.source,
        documents.container,
        documents.author_id,
        documents.source_updated_at
    from {manifest} as manifest
    inner join {documents} as documents on manifest.doc_id = documents.doc_id
    where
        manifest.vector_collection = $vector_collection
        and not manifest.is_deleted
        and list_has_any(manifest.allowed_principals, $principals)
        and ($source is null or documents.source = any($source))
        and ($container is null or documents.container = any($container))
        and ($author is null or documents.author_id = any($author))
        and ($since is null or documents.source_updated_at >= $since)
),

vectors as (
    select text_hash, any_value(embedding) as embedding
    from {embeddings}
    where config_hash = $config_hash
    group by text_hash
),

nearest as (
    select
        readable.*,
        list_cosine_similarity(vectors.embedding, $query::float[]) as score
    from readable
    inner join vectors on readable.text_hash = vectors.text_hash
    order by score desc nulls last, readable.chunk_id
    limit $k
)

select
    nearest.chunk_id,
    nearest.doc_id,
    nearest.document_version_id,
    nearest.title,
    nearest.url,
    chunks.text,
    chunks.heading_path,
    nearest.source,
    nearest.container,
    nearest.author_id,
    nearest.source_updated_at,
    chunks.chunk_index,
    chunks.start_char,
    chunks.end_char,
    nearest.score,
    row_number() over (order by nearest.score desc nulls last, nearest.chunk_id) as dense_rank,
    nearest.allowed_principals
from nearest
inner join {chunks} as chunks on nearest.chunk_id = chunks.chunk_id
order by dense_rank
"""


AROUND = """
with hits as (
    select document_version_id, config_hash, chunk_index
    from {chunks}
    where list_contains($chunk_ids, chunk_id)
)

select distinct
    near.document_version_id,
    near.chunk_index,
    near.start_char,
    near.end_char,
    near.text
from {chunks} as near
inner join hits
    on near.document_version_id = hits.document_version_id
    and near.config_hash = hits.config_hash
    and near.chunk_index between hits.chunk_index - $around and hits.chunk_index + $around
"""


@dataclass(frozen=True)
class PastLake:
    """The tables that a search reads, each at the snapshot that was current at a time.

    Attributes:
        moment: that time.
        relations: what to write in SQL for each name of `TABLES`.
    """

    moment: datetime
    relations: Mapping[str, str]

    @classmethod
    def at(cls, catalog: Catalog, settings: Settings, moment: datetime) -> PastLake:
        """Find the snapshots of a time.

        Raises:
            LorelineError: the time lies before what is kept; it is said from when on it does not.
        """
        from loreline.lake.catalog import find_table

        relations = {}
        earliest = datetime.min.replace(tzinfo=UTC)
        for name, table_name in TABLES.items():
            full_name = settings.prefix + table_name
            table = find_table(catalog, full_name)
            if table is None or table.current_snapshot() is None:
                raise LorelineError("nothing was built yet", "run `loreline build`")
            snapshot_id, kept_since = snapshot_at(table, moment)
            earliest = max(earliest, kept_since)
            relations[name] = f"(from lake.{full_name} at (version => {snapshot_id}))"
        if moment < earliest:
            raise LorelineError(
                f"the lake does not reach back to {_shown(moment)}",
                f"it can answer from {_shown(earliest, up=True)} on",
            )
        return cls(moment, relations)

    def collection(self, connection: duckdb.DuckDBPyConnection, name: str | None) -> dict[str, Any]:
        """A collection that was served then, with its embedding configuration.

        Raises:
            LorelineError: there was none of this name.
        """
        rows = _records(connection, COLLECTIONS.format(**self.relations), {})
        wanted = [r for r in rows if (r["vector_collection"] == name if name else r["is_default"])]
        if not wanted:
            raise LorelineError(
                f"collection {name or '(default)'} was not served at {_shown(self.moment)}",
                f"there were {', '.join(r['vector_collection'] for r in rows) or 'none'}",
            )
        # The settings for questions, as far as they were kept with the collection at that time.
        return wanted[0] | json.loads(wanted[0].get("question_embedding") or "{}")

    def search(
        self,
        connection: duckdb.DuckDBPyConnection,
        collection: Mapping[str, Any],
        embedding: np.ndarray,
        principals: Sequence[str],
        k: int,
        filters: Mapping[str, Any],
    ) -> list[tuple[Hit, list[str]]]:
        """The `k` nearest chunks that the principals could read then, and who could read each.

        Every vector is compared: exact, and slower than the index by the number of chunks.
        """
        from loreline.serving.search import Hit

        since = filters.get("since")
        parameters = {
            "vector_collection": collection["vector_collection"],
            "config_hash": collection["embedding_config_hash"],
            "query": [float(x) for x in embedding],
            "principals": list(principals),
            "k": k,
            # The lake's times are UTC without saying so.
            "since": since.replace(tzinfo=None) if since else None,
            **{name: filters.get(name) for name in ("source", "container", "author")},
        }
        rows = _records(connection, NEAREST.format(**self.relations), parameters)
        return [(Hit(lexical_rank=None, **row), readers) for row, readers in map(_split, rows)]

    def neighbours(self, connection: duckdb.DuckDBPyConnection) -> Neighbours:
        """Chunks beside each other, as they were then."""
        from loreline.serving.answers import Part

        def neighbours(hits: Sequence[Hit], around: int) -> list[Part]:
            parameters = {"chunk_ids": [hit.chunk_id for hit in hits], "around": around}
            rows = _records(connection, AROUND.format(**self.relations), parameters)
            return [Part(**row) for row in rows]

        return neighbours


def snapshot_at(table: Table, moment: datetime) -> tuple[int, datetime]:
    """The snapshot that was current at a time, and since when the table's history is unbroken.

    DuckDB's own `at (timestamp => …)` gives an empty table for a time before the oldest snapshot,
    and an older state than the true one where snapshots in between have expired. So the history is
    followed back from the current snapshot, as far as each parent is still there.
    """
    snapshot = table.current_snapshot()
    assert snapshot is not None
    milliseconds = moment.timestamp() * 1000
    chosen = None
    while True:
        if chosen is None and snapshot.timestamp_ms <= milliseconds:
            chosen = snapshot
        parent_id = snapshot.parent_snapshot_id
        parent = table.snapshot_by_id(parent_id) if parent_id is not None else None
        if parent is None:
            break
        snapshot = parent
    kept_since = datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC)
    return (chosen or snapshot).snapshot_id, kept_since


def _records(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Mapping[str, Any]
) -> list[dict[str, Any]]:
    result = connection.execute(query, parameters or None)
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def _split(row: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    readers = row.pop("allowed_principals")
    return row, readers


def _shown(moment: datetime, *, up: bool = False) -> str:
    # Rounded up, so that the time which is named does have an answer.
    seconds = moment.replace(microsecond=0)
    if up and moment.microsecond:
        seconds = datetime.fromtimestamp(seconds.timestamp() + 1, UTC)
    return f"{seconds:%Y-%m-%d %H:%M:%S} UTC"
