"""Vectors of sentences reach the document that they belong to, in bounded steps."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loreline.errors import LorelineError
from loreline.knowledge import sentence_vectors
from loreline.knowledge.chunking import ChunkingConfiguration, chunk, sentence_texts
from loreline.knowledge.contexts import CONTEXTS
from loreline.knowledge.sentence_vectors import SentenceVectors, gather_sentences
from loreline.knowledge.tokens import load_tokenizer
from tests.unit.hostile_bodies import bodies

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
DOCUMENTS = "select document_version_id, title, body from documents order by document_version_id"


@pytest.fixture
def lake() -> duckdb.DuckDBPyConnection:
    return lake_of([(name, "", body) for name, body in BODIES.items()])


def lake_of(documents: list[tuple[str, str, str]]) -> duckdb.DuckDBPyConnection:
    """Versions, titles and bodies, and no vectors yet."""
    connection = duckdb.connect()
    connection.execute(
        "create table documents (document_version_id varchar, title varchar, body varchar)"
    )
    connection.executemany("insert into documents values (?, ?, ?)", documents)
    connection.execute(
        "create table embeddings (text_hash varchar, config_hash varchar, embedding float[])"
    )
    return connection


def vector(text: str) -> list[float] | None:
    """By the animal in it; none of a text that a model could not embed."""
    return [float("till" in text), float("cat" in text)] if "Word" not in text else None


def embed(
    lake: duckdb.DuckDBPyConnection,
    config_hash: str = "e",
    configuration: ChunkingConfiguration = CONFIGURATION,
) -> None:
    gather_sentences(lake, DOCUMENTS, configuration)
    found = lake.execute("select distinct text_hash, text from sentences").fetchall()
    lake.executemany(
        "insert into embeddings values (?, ?, ?)",
        [(text_hash, config_hash, vector(text)) for text_hash, text in found],
    )


def opened(
    lake: duckdb.DuckDBPyConnection, configuration: ChunkingConfiguration = CONFIGURATION
) -> SentenceVectors:
    return SentenceVectors(lake.cursor(), DOCUMENTS, configuration, "embeddings", "e", 2)


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
    assert next(vectors._found, None) is None


TITLES = st.sampled_from(("", "Of the till and of the cat " * 4)) | st.text(max_size=80)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(TITLES, bodies), max_size=4), st.sampled_from(CONTEXTS))
def test_whatever_is_in_front_of_a_chunk_the_vectors_are_those_of_the_sentences(texts, context):
    # What is said without an end is cut, and what a title takes decides where.
    texts = [("A title " * 30, "word " * 900), *texts, ("", "The till. The cat.")]
    documents = [(f"v{place}", *both) for place, both in enumerate(texts)]
    configuration = replace(CONFIGURATION, context=context)
    with lake_of(documents) as lake:
        embed(lake, configuration=configuration)
        vectors = opened(lake, configuration)
        tokenizer = load_tokenizer(configuration.tokenizer)
        for _, title, body in documents:
            alone = chunk(
                body,
                configuration,
                tokenizer,
                title,
                lambda texts: np.array([vector(text) or [np.nan] * 2 for text in texts]),
            )
            assert chunk(body, configuration, tokenizer, title, vectors) == alone
        assert next(vectors._found, None) is None


def test_other_sentences_than_those_that_were_gathered_are_not_cut(lake):
    embed(lake)
    with pytest.raises(AssertionError, match="other sentences"):
        opened(lake)(["The till is down.", "The till is up."])


def test_what_was_never_embedded_is_said(lake):
    embed(lake)
    lake.execute("delete from embeddings where embedding[2] = 1")
    with pytest.raises(LorelineError, match="loreline build --select sentence_embeddings"):
        opened(lake)(["The till is down."])
