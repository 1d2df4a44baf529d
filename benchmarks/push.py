"""Pushing a new collection against bare COPY, and what its vector index finds.

    python -m benchmarks.push [--chunks 100000] [--rounds 3] [--json FILE]

Rate: `push` up to its last row in Postgres against pgvector's own way to load a bare table, binary
COPY of the same rows; the two take turns and the best round of each counts. What follows (words,
keys, indexes) is timed for itself. Recall: the ten chunks that a search finds against the ten that
are nearest, over all chunks and under a filter that keeps one in a hundred.
"""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import psycopg
import pyarrow as pa
from pgvector.psycopg import register_vector

from benchmarks.corpus import SyntheticChunks, XQuad, embed
from benchmarks.sandbox import Measurement, arguments, postgres_of_its_own, show
from loreline.postgres import connect
from loreline.serving.collections import Collection, push
from loreline.serving.rows import COLUMNS
from loreline.serving.search import search
from loreline.settings import Settings

QUESTIONS = 300


def copy_seconds(
    connection: psycopg.Connection, batches: list[pa.RecordBatch], dimensions: int
) -> float:
    """Time to COPY the rows into a table of the same columns, without a key or an index."""
    register_vector(connection)
    columns = ", ".join(f"{column.name} {column.postgres_type}" for column in COLUMNS)
    names = ", ".join(column.name for column in COLUMNS)
    connection.execute("drop table if exists bare_copy")
    connection.execute(f"create table bare_copy ({columns})")
    started = time.perf_counter()
    with connection.cursor().copy(f"copy bare_copy ({names}) from stdin (format binary)") as copy:
        copy.set_types([column.postgres_type for column in COLUMNS])
        for batch in batches:
            table = pa.Table.from_batches([batch])
            vectors = batch["embedding"].flatten().to_numpy().reshape(-1, dimensions)
            values = [table[column.name].to_pylist() for column in COLUMNS[:-1]]
            for row in zip(*values, vectors, strict=True):
                copy.write_row(row)
    seconds = time.perf_counter() - started
    connection.execute("drop table bare_copy")
    return seconds


def push_seconds(
    connection: psycopg.Connection,
    settings: Settings,
    collection: Collection,
    batches: list[pa.RecordBatch],
) -> dict[str, float]:
    """Seconds from the start of a push to the end of each of its steps."""
    ends: dict[str, float] = {}
    started = time.perf_counter()

    def note(step: str, chunks: int) -> None:
        ends[step] = time.perf_counter() - started

    push(connection, settings, collection, batches, through_batch=1, progress=note)
    return ends


def recall(
    connection: psycopg.Connection,
    settings: Settings,
    queries: np.ndarray,
    chunk_ids: np.ndarray,
    embeddings: np.ndarray,
    filters: dict[str, str],
) -> float:
    """Share of the ten nearest chunks that a search among `chunk_ids` finds."""
    similarities = queries @ embeddings.T
    nearest = chunk_ids[np.argpartition(-similarities, 10, axis=1)[:, :10]]
    found = [
        [
            hit.chunk_id
            for hit in search(
                connection, settings, None, query, ["public", "group:private"], filters=filters
            )
        ]
        for query in queries
    ]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, nearest, strict=True)]))


def measure(settings: Settings, chunk_count: int, rounds: int) -> list[Measurement]:
    """Rates and recalls, with the targets that they have."""
    xquad = XQuad.load()
    chunks = SyntheticChunks(xquad, settings, chunk_count)
    batches = list(chunks.batches())
    table = pa.Table.from_batches(batches)
    embeddings = table["embedding"].combine_chunks().flatten().to_numpy()
    embeddings = embeddings.reshape(-1, chunks.dimensions)
    queries = embed(xquad.questions, settings)[:: len(xquad.questions) // QUESTIONS]
    bare, ours = [], []
    with connect(settings, autocommit=True) as connection:
        for number in range(rounds):
            collection = dataclasses.replace(
                chunks.collection, vector_collection=f"round {number}", config_hash=str(number)
            )
            bare.append(copy_seconds(connection, batches, chunks.dimensions))
            ours.append(push_seconds(connection, settings, collection, batches))
        chunk_ids = table["chunk_id"].to_numpy()
        is_rare = table["container"].to_numpy() == "rare"
        unfiltered = recall(connection, settings, queries, chunk_ids, embeddings, {})
        filtered = recall(
            connection,
            settings,
            queries,
            chunk_ids[is_rare],
            embeddings[is_rare],
            {"container": "rare"},
        )
    best = min(ours, key=lambda ends: ends["copied"])
    whole = min(max(ends.values()) for ends in ours)
    return [
        Measurement(
            "chunks/s copied", chunk_count / best["copied"], chunk_count / min(bare), target=0.9
        ),
        Measurement("chunks/s until served", chunk_count / whole),
        Measurement("recall@10 of the index", unfiltered, 1.0, target=0.98),
        Measurement("recall@10 under a filter of 1 %", filtered, 1.0, target=0.95),
    ]


def main() -> None:
    """Measure and show."""
    parser = arguments(__doc__)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with postgres_of_its_own() as settings:
        measurements = measure(settings, options.chunks, options.rounds)
        show(f"Push of {options.chunks:,} chunks", measurements, options.json)


if __name__ == "__main__":
    main()
