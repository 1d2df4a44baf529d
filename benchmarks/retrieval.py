"""How often a search finds the paragraph that answers a question: dense, lexical and both.

    python -m benchmarks.retrieval [--json FILE]

XQuAD's 1,190 questions over its 240 paragraphs, each a document with the title of its article. A
paragraph counts where its best chunk does. The reference is the cosine similarity of whole
paragraphs, without an index. Every strategy of the seed `chunking_strategies` is compared with the
default one: the difference over the same questions, and the middle 95 % of it over samples of them
(paired bootstrap, from a fixed seed).
"""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass, fields

import numpy as np
import psycopg
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from benchmarks.corpus import XQuad, embed, strategies
from benchmarks.sandbox import Measurement, arguments, postgres_of_its_own, show
from loreline.knowledge.chunking import Chunk, ChunkingConfiguration, chunk, sentence_texts
from loreline.knowledge.tokens import load_tokenizer
from loreline.postgres import connect
from loreline.serving.collections import CHUNK_SCHEMA, Collection, push
from loreline.serving.search import search
from loreline.settings import Settings

CHUNKS_PER_SEARCH = 100

SAMPLES = 10_000
SEED = 20240101


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


def outcomes(ranks: np.ndarray) -> np.ndarray:
    """What each question adds to the four figures of `Quality`, shape (questions, 4)."""
    return np.stack([*(ranks <= k for k in (1, 5, 10)), 1 / ranks], axis=1).astype(float)


def differences(ranks: np.ndarray, of_default: np.ndarray) -> np.ndarray:
    """Difference of each figure to the default's, and its 95 % interval: shape (3, 4).

    The same questions are drawn for both, with replacement, again and again.
    """
    each = outcomes(ranks) - outcomes(of_default)
    count = len(each)
    drawn = np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), SAMPLES)
    return np.vstack([each.mean(axis=0), np.percentile(drawn @ each / count, [2.5, 97.5], axis=0)])


def cut_paragraphs(
    xquad: XQuad, configuration: ChunkingConfiguration | None, settings: Settings
) -> list[list[Chunk]]:
    """The chunks of each paragraph; whole paragraphs without a configuration."""
    if configuration is None:
        return [[Chunk(0, text, 1, len(text), 0)] for text in xquad.paragraphs]
    tokenizer = load_tokenizer(configuration.tokenizer)
    known: dict[str, np.ndarray] = {}
    if configuration.algorithm == "semantic":
        listed = (
            sentence_texts(text, configuration, tokenizer, title)
            for text, title in zip(xquad.paragraphs, xquad.titles, strict=True)
        )
        sentences = list(dict.fromkeys(text for texts in listed for text in texts))
        known = dict(zip(sentences, embed(sentences, settings), strict=True))
    return [
        chunk(
            text,
            configuration,
            tokenizer,
            title,
            lambda texts: np.stack([known[text] for text in texts]),
        )
        for text, title in zip(xquad.paragraphs, xquad.titles, strict=True)
    ]


def bare_quality(xquad: XQuad, settings: Settings) -> Quality:
    """Cosine similarity of whole paragraphs, every one compared."""
    similarities = embed(xquad.questions, settings) @ embed(xquad.paragraphs, settings).T
    answers = similarities[np.arange(len(xquad.questions)), xquad.answers_in]
    return Quality.of((similarities > answers[:, None]).sum(axis=1) + 1)


def push_paragraphs(
    connection: psycopg.Connection,
    settings: Settings,
    collection: Collection,
    paragraphs: list[list[Chunk]],
) -> None:
    """Push the chunks of every paragraph as a document whose id is its number."""
    chunks = [(number, piece) for number, pieces in enumerate(paragraphs) for piece in pieces]
    embeddings = embed([piece.embedded_text for _, piece in chunks], settings)
    rows = [
        {
            "chunk_id": f"{number:04d}/{piece.chunk_index}",
            "doc_id": f"{number:04d}",
            "document_version_id": "1",
            "chunk_index": piece.chunk_index,
            "text": piece.text,
            "text_hash": hashlib.sha256(piece.embedded_text.encode()).hexdigest(),
            "allowed_principals": ["public"],
            "embedding": embedding,
        }
        for (number, piece), embedding in zip(chunks, embeddings, strict=True)
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


def ranks_by_strategy(settings: Settings, xquad: XQuad) -> dict[tuple[str, str], np.ndarray]:
    """The rank of each question's answer, for every strategy and way of searching."""
    modes = {
        "dense": {"with_text": False, "with_embedding": True},
        "lexical": {"with_text": True, "with_embedding": False},
        "hybrid": {"with_text": True, "with_embedding": True},
    }
    ranks = {}
    with connect(settings, autocommit=True) as connection:
        for configuration in (None, *strategies()):
            strategy = configuration.chunking_strategy if configuration else "whole paragraphs"
            name = f"xquad {strategy}"
            digest = hashlib.sha256(name.encode()).hexdigest()
            collection = Collection(name, "all-minilm-l6-v2", strategy, digest, 384)
            paragraphs = cut_paragraphs(xquad, configuration, settings)
            push_paragraphs(connection, settings, collection, paragraphs)
            for mode, options in modes.items():
                ranks[strategy, mode] = answer_ranks(
                    connection, settings, xquad, collection, **options
                )
    return ranks


def measurements(ranks: dict[tuple[str, str], np.ndarray], bare: Quality) -> list[Measurement]:
    """Every figure; those of the hybrid search have to be above the reference."""
    return [
        Measurement(
            name=f"{strategy}, {mode}: {figure.name}",
            value=getattr(Quality.of(found), figure.name),
            reference=getattr(bare, figure.name),
            target=1.0 if mode == "hybrid" else None,
        )
        for (strategy, mode), found in ranks.items()
        for figure in fields(Quality)
    ]


def show_differences(ranks: dict[tuple[str, str], np.ndarray], default: str) -> None:
    """Print each strategy's figures with the difference to the default's and its interval."""
    names = [figure.name for figure in fields(Quality)]
    table = Table("strategy", "search", *names, title=f"difference to {default} [95 % interval]")
    for (strategy, mode), found in ranks.items():
        figures = astuple(Quality.of(found))
        compared = differences(found, ranks[default, mode]).T
        cells = [
            f"{figure:.3f}\n{difference:+.3f} \\[{low:+.3f}, {high:+.3f}]"
            for figure, (difference, low, high) in zip(figures, compared, strict=True)
        ]
        table.add_row(strategy, mode, *cells)
    Console(width=160).print(table)


def main() -> None:
    """Measure and show."""
    options = arguments(__doc__).parse_args()
    xquad, default = XQuad.load(), strategies()[0].chunking_strategy
    with postgres_of_its_own() as settings:
        ranks = ranks_by_strategy(settings, xquad)
        found = measurements(ranks, bare_quality(xquad, settings))
    show("Retrieval on XQuAD (reference: bare MiniLM)", found, options.json)
    show_differences(ranks, default)


if __name__ == "__main__":
    main()
