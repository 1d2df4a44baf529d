"""Embeddings: in slices, in order, checked; nothing wrong is ever handed on."""

from __future__ import annotations

import hashlib
import socket
import struct
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.embedding import (
    DEFAULT_MODEL,
    SCHEMA,
    EmbeddingConfiguration,
    RejectedText,
    encode_slices,
    load_encoder,
    model_folder,
    vector_faults,
)
from loreline.errors import LorelineError
from loreline.settings import Settings

SMALL = EmbeddingConfiguration("small", "none", dimensions=4, max_tokens=8, batch_size=3)


@dataclass
class FakeEncoder:
    """Vectors that follow from the text alone; remembers what it was asked, and may misbehave."""

    configuration: EmbeddingConfiguration = SMALL
    vectors: dict[str, list[float]] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)

    def token_counts(self, texts: list[str]) -> list[int]:
        return [len(text.split()) + 2 for text in texts]

    def encode(self, texts: list[str]) -> np.ndarray:
        self.asked.append(texts)
        return np.array([self.vectors.get(text) or unit(text) for text in texts], np.float32)


def unit(text: str) -> list[float]:
    numbers = np.frombuffer(hashlib.sha256(text.encode()).digest()[:4], np.uint8) + 1.0
    return (numbers / np.linalg.norm(numbers)).tolist()


def pairs(*texts: str) -> list[tuple[str, str]]:
    return [(hashlib.sha256(text.encode()).hexdigest(), text) for text in texts]


def test_batches_hold_the_texts_in_their_order_with_pgvectors_digest():
    encoder = FakeEncoder()
    texts = pairs("a b c", "a", "a b", "", "a b c d", "b")
    done: list[int] = []
    batches = list(encode_slices(encoder, iter(texts), slice_size=4, progress=done.append))
    assert [batch.num_rows for batch in batches] == [4, 2]
    assert all(batch.schema == SCHEMA for batch in batches)
    rows = pa.Table.from_batches(batches).to_pylist()
    assert [row["text_hash"] for row in rows] == [text_hash for text_hash, _ in texts]
    for row, (_, text) in zip(rows, texts, strict=True):
        assert row["embedding"] == np.array(unit(text), np.float32).tolist()
        sent = struct.pack(">HH4f", 4, 0, *row["embedding"])
        assert row["vector_sha256"] == hashlib.sha256(sent).hexdigest()
    assert encoder.asked == [["a b c", "a b", "a"], [""], ["a b c d", "b"]], "longest first"
    assert sum(done) == 6


@given(
    st.lists(st.text(max_size=6), unique=True, max_size=30),
    st.integers(1, 7),
    st.integers(1, 5),
)
def test_slices_and_batches_change_nothing(texts, slice_size, batch_size):
    whole = encode_slices(FakeEncoder(), pairs(*texts), progress=ignore)
    cut = encode_slices(
        FakeEncoder(),
        pairs(*texts),
        slice_size=slice_size,
        batch_size=batch_size,
        progress=ignore,
    )
    table = pa.Table.from_batches(list(cut), schema=SCHEMA)
    assert table.equals(pa.Table.from_batches(list(whole), schema=SCHEMA))


def ignore(texts: int) -> None:
    pass


def test_only_one_slice_is_read_ahead():
    read: list[str] = []

    def texts():
        for name in "abcdef":
            read.append(name)
            yield from pairs(name)

    batches = encode_slices(FakeEncoder(), texts(), slice_size=2)
    next(batches)
    assert read == ["a", "b"]


@pytest.mark.parametrize(
    ("vector", "reason"),
    [
        ([float("nan"), 0, 0, 1], "a vector with values that are not finite"),
        ([float("inf"), 0, 0, 1], "a vector with values that are not finite"),
        ([0, 0, 0, 0], "a vector of length 0"),
        ([3, 0, 0, 4], "a vector of another length than 1"),
    ],
)
def test_a_bad_vector_is_set_aside_with_its_reason(vector, reason):
    encoder = FakeEncoder(vectors={"bad": vector})
    rejected: list[RejectedText] = []
    texts = pairs("one", "bad", "two")
    batches = list(encode_slices(encoder, texts, on_rejected=rejected.extend))
    assert batches[0].column("text_hash").to_pylist() == [texts[0][0], texts[2][0]]
    assert rejected == [RejectedText(texts[1][0], reason)]


def test_a_text_beyond_the_models_limit_is_rejected_and_not_cut_off():
    encoder = FakeEncoder()
    rejected: list[RejectedText] = []
    texts = pairs("short", "w " * 7)
    batches = list(encode_slices(encoder, texts, on_rejected=rejected.extend))
    assert [batch.num_rows for batch in batches] == [1]
    assert rejected == [RejectedText(texts[1][0], "9 tokens, of which the model reads 8")]
    assert encoder.asked == [["short"]]


def test_vectors_of_another_dimension_are_rejected():
    encoder = FakeEncoder(configuration=replace(SMALL, dimensions=5))
    rejected: list[RejectedText] = []
    assert list(encode_slices(encoder, pairs("a", "b"), on_rejected=rejected.extend)) == []
    assert {text.reason for text in rejected} == {"vectors of shape (2, 4), not (2, 5)"}


def test_a_slice_of_one_and_the_same_vector_is_rejected():
    texts = [f"text {n}" for n in range(9)]
    encoder = FakeEncoder(vectors={text: [0.5] * 4 for text in texts})
    rejected: list[RejectedText] = []
    assert list(encode_slices(encoder, pairs(*texts), on_rejected=rejected.extend)) == []
    assert rejected[0].reason == "the same vector as the 8 other texts of its slice"
    two = encode_slices(encoder, pairs(*texts[:2]))
    assert sum(batch.num_rows for batch in two) == 2, "two texts may differ by case alone"


def test_rejections_that_nobody_takes_fail_after_the_others_were_handed_on():
    encoder = FakeEncoder(vectors={"bad": [0, 0, 0, 0]})
    handed_on = []
    with pytest.raises(LorelineError, match="1 of the texts got no usable vector from 'small'"):
        for batch in encode_slices(encoder, pairs("a", "bad", "b", "c"), slice_size=2):
            handed_on += batch.column("text_hash").to_pylist()
    assert len(handed_on) == 3


def test_what_a_half_cannot_hold_is_set_aside_where_halves_are_stored():
    vectors = np.array([[1, 2], [65_519, 0], [0, -65_520]], np.float32)
    reason = "a vector with values beyond what halfvec holds"
    assert vector_faults(vectors, normalize=False, storage="halfvec") == {2: reason}
    assert vector_faults(vectors, normalize=False) == {}
    encoder = FakeEncoder(replace(SMALL, normalize=False), vectors={"far": [1, 0, 0, 70_000]})
    (batch,) = encode_slices(encoder, pairs("far", "near"))
    assert [digest is None for digest in batch.column("halfvec_sha256").to_pylist()] == [
        True,
        False,
    ]


def test_lengths_are_not_checked_where_vectors_are_not_normalized():
    assert vector_faults(np.array([[3, 4]], np.float32), normalize=False) == {}


def test_a_row_of_the_seed_is_a_configuration():
    row = {"embedding_model": "m", "model": "x", "dimensions": 8, "status": "served"}
    assert EmbeddingConfiguration.from_row(row) == EmbeddingConfiguration("m", "x", dimensions=8)
    unset = EmbeddingConfiguration.from_row(row | {"query_prefix": None, "model_dimensions": None})
    assert unset == EmbeddingConfiguration.from_row(row)


def test_models_are_found_without_a_hub(tmp_path):
    settings = Settings(model_path=str(tmp_path))
    (tmp_path / "org" / "model").mkdir(parents=True)
    assert model_folder("org/model", settings) == str(tmp_path / "org" / "model")
    assert model_folder(str(tmp_path), settings) == str(tmp_path)
    assert model_folder("org/elsewhere", settings) == "org/elsewhere"
    assert model_folder(DEFAULT_MODEL, settings).endswith("model")


def test_the_default_model_encodes_without_a_network(monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("the default model asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    settings = Settings(target="local")
    encoder = load_encoder(EmbeddingConfiguration(), settings)
    texts = pairs("The baker has bread.", "Checkout is slow.", "How do I bake a loaf?")
    (batch,) = encode_slices(encoder, texts)
    vectors = np.stack(batch.column("embedding").to_numpy(zero_copy_only=False))
    assert vectors.shape == (3, 384)
    bread, checkout, loaf = vectors
    assert loaf @ bread > loaf @ checkout
    bare = encoder.model.encode([text for _, text in texts], normalize_embeddings=True)
    assert np.allclose(vectors, bare, atol=1e-5)

    prefixed = EmbeddingConfiguration(
        dimensions=64, model_dimensions=384, query_prefix="ask: ", passage_prefix="told: "
    )
    cut = load_encoder(prefixed, settings)
    expected = encoder.model.encode("told: Bread.", truncate_dim=64, normalize_embeddings=True)
    assert np.allclose(cut.encode(["Bread."])[0], expected, atol=1e-5)
    expected = encoder.model.encode("ask: Bread?", truncate_dim=64, normalize_embeddings=True)
    assert np.allclose(cut.encode_query("Bread?"), expected, atol=1e-5)
    assert cut.token_counts(["Bread."]) == encoder.token_counts(["told: Bread."])

    with pytest.raises(LorelineError, match="has 384 dimensions, its configuration says 383"):
        load_encoder(EmbeddingConfiguration(dimensions=383), settings)
    with pytest.raises(LorelineError, match="has 384 dimensions, its configuration says 64 of 768"):
        load_encoder(EmbeddingConfiguration(dimensions=64, model_dimensions=768), settings)
    with pytest.raises(LorelineError, match="its configuration says 400 of 384"):
        load_encoder(EmbeddingConfiguration(dimensions=400, model_dimensions=384), settings)
    with pytest.raises(LorelineError, match="reads 256 tokens, its configuration says 600"):
        load_encoder(EmbeddingConfiguration(max_tokens=600), settings)
