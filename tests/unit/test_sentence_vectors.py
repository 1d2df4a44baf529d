"""Vectors of sentences reach the document that they belong to, in bounded steps."""

from __future__ import annotations

import hashlib

import duckdb
import numpy as np
import pytest

from loreline.errors import LorelineError
from loreline.knowledge import sentence_vectors
from loreline.knowledge.chunking import ChunkingConfiguration, chunk, sentence_texts
from loreline.knowledge.sentence_vectors import SentenceVectors, gather_sentences
from loreline.knowledge.tokens import load_tokenizer

CONFIGURATION = ChunkingConfiguration(
    "tested",
    "semantic",
    64,
    window_sentences=1,
    breakpoint_percentile=80,
    sentence_model="any",
)
BODIES = {
    "v3": "The till is down. The till is slow. The cat sleeps. The cat eats.",
    "v1": "One sentence alone.",
    "v2": "",
    "v4": "The cat sleeps. The till is down.\n\n" + "Word " * 300,
}
DOCUMENTS = "select document_version_id, body from documents order by document_version_id"


@pytest.fixture
def lake() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("create table documents (document_version_id varchar, body varchar)")
    connection.executemany("insert into documents values (?, ?)", list(BODIES.items()))
    connection.execute(
        "create table embeddings (text_hash varchar, config_hash varchar, embedding float[])"
    )
    return connection


def vector(text: str) -> list[float] | None:
    """By the animal in it; none of a text that a model could not embed."""
    return [float("till" in text), float("cat" in text)] if "Word" not in text else None


def embed(lake: duckdb.DuckDBPyConnection, config_hash: str = "e") -> None:
    gather_sentences(lake, DOCUMENTS, CONFIGURATION)
    found = lake.execute("select distinct text_hash, text from sentences").fetchall()
    lake.executemany(
        "insert into embeddings values (?, ?, ?)",
        [(text_hash, config_hash, vector(text)) for text_hash, text in found],
    )


def opened(lake: duckdb.DuckDBPyConnection) -> SentenceVectors:
    return SentenceVectors(lake.cursor(), DOCUMENTS, CONFIGURATION, "embeddings", "e", 2)


def test_the_sentences_of_documents_that_may_be_cut_are_gathered(lake):
    gather_sentences(lake, DOCUMENTS, CONFIGURATION)
    gather_sentences(lake, DOCUMENTS, CONFIGURATION)
    found = lake.execute("from sentences order by document_version_id, position").fetchall()
    tokenizer = load_tokenizer(CONFIGURATION.tokenizer)
    texts = {name: sentence_texts(body, CONFIGURATION, tokenizer) for name, body in BODIES.items()}
    assert [(name, text) for name, text, _, _ in found] == [
        (name, text) for name in ("v3", "v4") for text in texts[name]
    ]
    assert all(hashlib.sha256(text.encode()).hexdigest() == digest for _, text, digest, _ in found)


@pytest.mark.parametrize("at_a_time", [1, 3, 2_048])
def test_each_document_is_cut_by_its_own_vectors(lake, monkeypatch, at_a_time):
    monkeypatch.setattr(sentence_vectors, "SENTENCES_AT_A_TIME", at_a_time)
    embed(lake, "another")
    lake.execute("update embeddings set embedding = [9, 9]")
    embed(lake)
    vectors = opened(lake)
    tokenizer = load_tokenizer(CONFIGURATION.tokenizer)
    for name in sorted(BODIES):
        alone = chunk(
            BODIES[name],
            CONFIGURATION,
            tokenizer,
            vectors=lambda texts: np.array([vector(text) or [np.nan] * 2 for text in texts]),
        )
        assert chunk(BODIES[name], CONFIGURATION, tokenizer, vectors=vectors) == alone
    assert next(vectors._vectors, None) is None


def test_what_was_never_embedded_is_said(lake):
    embed(lake)
    lake.execute("delete from embeddings where embedding[2] = 1")
    with pytest.raises(LorelineError, match="loreline build --select sentence_embeddings"):
        opened(lake)(["The till is down."])
