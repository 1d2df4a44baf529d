"""How often a search finds the paragraph that answers a question: dense, lexical and both.

    python -m benchmarks.retrieval [--json FILE]

XQuAD's 1,190 questions over its 240 paragraphs, each paragraph a document. A paragraph counts where
its best chunk does. The reference is the cosine similarity of whole paragraphs, without an index.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import psycopg
import pyarrow as pa

from benchmarks.corpus import XQuad, embed
from benchmarks.sandbox import Measurement, arguments, postgres_of_its_own, show
from loreline.knowledge.chunking import ChunkingConfiguration, chunk
from loreline.knowledge.tokens import load_tokenizer
from loreline.postgres import connect
from loreline.serving.collections import CHUNK_SCHEMA, Collection, push
from loreline.serving.search import search
from loreline.settings import PROJECT_ROOT, Settings

CHUNKS_PER_SEARCH = 100

Chunking = Callable[[str], list[str]]


@dataclass(frozen=True)
class Quality:
    """Recall at 1, 5 and 10, and the mean reciprocal rank, over all questions."""

    recall_1: float
    recall_5: float
    recall_10: float
    mrr: float

    @classmethod
    def of(cls, ranks: np.ndarray) -> Quality:
        """From the rank of each question's answer, from 1; infinite where it was not found."""
        recalls = [float((ranks <= k).mean()) for k in (1, 5, 10)]
        return cls(*recalls, mrr=float((1 / ranks).mean()))


def chunkings() -> Iterator[tuple[str, Chunking]]:
    """Whole paragraphs, then every strategy of the seed `chunking_strategies`."""
    yield "whole paragraphs", lambda text: [text]
    with (PROJECT_ROOT / "seeds" / "chunking_strategies.csv").open() as file:
        for row in csv.DictReader(file):
            configuration = ChunkingConfiguration(
                chunking_strategy=row["chunking_strategy"],
                algorithm=row["algorithm"],
                max_tokens=int(row["max_tokens"]),
                overlap_tokens=int(row["overlap_tokens"]),
                tokenizer=row["tokenizer"],
                algorithm_version=int(row["algorithm_version"]),
            )
            yield configuration.chunking_strategy, _cut_by(configuration)


def _cut_by(configuration: ChunkingConfiguration) -> Chunking:
    tokenizer = load_tokenizer(configuration.tokenizer)
    return lambda text: [piece.text for piece in chunk(text, configuration, tokenizer)]


def bare_quality(xquad: XQuad, settings: Settings) -> Quality:
    """Cosine similarity of whole paragraphs, every one compared."""
    similarities = embed(xquad.questions, settings) @ embed(xquad.paragraphs, settings).T
    answers = similarities[np.arange(len(xquad.questions)), xquad.answers_in]
    return Quality.of((similarities > answers[:, None]).sum(axis=1) + 1)


def push_paragraphs(
    connection: psycopg.Connection,
    settings: Settings,
    xquad: XQuad,
    collection: Collection,
    cut: Chunking,
) -> None:
    """Push every paragraph as a document whose id is its number."""
    chunks = [
        (number, index, text)
        for number, paragraph in enumerate(xquad.paragraphs)
        for index, text in enumerate(cut(paragraph))
    ]
    texts = [text for _, _, text in chunks]
    rows = [
        {
            "chunk_id": f"{number:04d}/{index}",
            "doc_id": f"{number:04d}",
            "document_version_id": "1",
            "chunk_index": index,
            "text": text,
            "text_hash": hashlib.sha256(text.encode()).hexdigest(),
            "allowed_principals": ["public"],
            "embedding": embedding,
        }
        for (number, index, text), embedding in zip(chunks, embed(texts, settings), strict=True)
    ]
    table = pa.Table.from_pylist(rows, schema=CHUNK_SCHEMA)
    push(connection, settings, collection, table.to_batches(), through_batch=1)


def answer_ranks(
    connection: psycopg.Connection,
    settings: Settings,
    xquad: XQuad,
    collection: Collection,
    *,
    with_text: bool,
    with_embedding: bool,
) -> np.ndarray:
    """The rank of the answering paragraph among the distinct paragraphs that a search finds."""
    embeddings = embed(xquad.questions, settings)
    ranks = np.full(len(xquad.questions), np.inf)
    for number, (question, answer) in enumerate(
        zip(xquad.questions, xquad.answers_in, strict=True)
    ):
        hits = search(
            connection,
            settings,
            question if with_text else None,
            embeddings[number] if with_embedding else None,
            k=CHUNKS_PER_SEARCH,
            collection=collection.vector_collection,
        )
        paragraphs = list(dict.fromkeys(int(hit.doc_id) for hit in hits))
        if answer in paragraphs:
            ranks[number] = paragraphs.index(answer) + 1
    return ranks


def measure(settings: Settings) -> list[Measurement]:
    """Every strategy in every mode; the hybrid search has to be above the reference."""
    xquad = XQuad.load()
    bare = bare_quality(xquad, settings)
    modes = {
        "dense": {"with_text": False, "with_embedding": True},
        "lexical": {"with_text": True, "with_embedding": False},
        "hybrid": {"with_text": True, "with_embedding": True},
    }
    measurements = []
    with connect(settings, autocommit=True) as connection:
        for strategy, cut in chunkings():
            name = f"xquad {strategy}"
            digest = hashlib.sha256(name.encode()).hexdigest()
            collection = Collection(name, "all-minilm-l6-v2", strategy, digest, 384)
            push_paragraphs(connection, settings, xquad, collection, cut)
            for mode, options in modes.items():
                ranks = answer_ranks(connection, settings, xquad, collection, **options)
                quality = Quality.of(ranks)
                for figure in ("recall_1", "recall_5", "recall_10", "mrr"):
                    measurements.append(
                        Measurement(
                            name=f"{strategy}, {mode}: {figure}",
                            value=getattr(quality, figure),
                            reference=getattr(bare, figure),
                            target=1.0 if mode == "hybrid" else None,
                        )
                    )
    return measurements


def main() -> None:
    """Measure and show."""
    options = arguments(__doc__).parse_args()
    with postgres_of_its_own() as settings:
        show("Retrieval on XQuAD (reference: bare MiniLM)", measure(settings), options.json)


if __name__ == "__main__":
    main()
