"""What the search function finds, for whom, and that nothing typed into it breaks it."""

import math
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from loreline.errors import LorelineError
from loreline.postgres import connect
from loreline.serving.answers import highlighted, neighbours_served, passages
from loreline.serving.collections import Collection, push, states
from loreline.serving.search import search

DIMENSIONS = 16
MANY = 6_000
COLLECTION = Collection("c", "model", "sections", "1", DIMENSIONS, is_default=True)

EAST, NORTH, WEST = np.eye(DIMENSIONS, dtype=np.float32)[[0, 1, 0]] * [[1], [1], [-1]]


def push_chunks(connection, settings, texts, embeddings, collection=COLLECTION, **columns) -> None:
    """Push chunks, each a document of its own; `columns` replace what they are described by."""
    count = len(texts)
    moment = datetime(2024, 5, 1, tzinfo=UTC)
    rows = {
        "chunk_id": [f"chunk {number:05d}" for number in range(count)],
        "doc_id": [f"document {number:05d}" for number in range(count)],
        "document_version_id": ["1"] * count,
        "chunk_index": [0] * count,
        "text": texts,
        "text_hash": [""] * count,
        "title": [None] * count,
        "url": [None] * count,
        "heading_path": [[]] * count,
        "start_char": [1] * count,
        "end_char": [1] * count,
        "source": ["notion"] * count,
        "container": ["general"] * count,
        "author_id": ["ada"] * count,
        "created_at": [moment] * count,
        "source_updated_at": [moment] * count,
        "allowed_principals": [["public"]] * count,
        "embedding": [embedding.tolist() for embedding in embeddings],
    }
    push(connection, settings, collection, [pa.record_batch(rows | columns)], through_batch=1)


@pytest.fixture
def connection(settings):
    with connect(settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def find(connection, settings):
    """Search, and return the numbers of the chunks found."""

    def find_chunks(*arguments, **options) -> list[int]:
        hits = search(connection, settings, *arguments, **options)
        return [int(hit.chunk_id.removeprefix("chunk ")) for hit in hits]

    return find_chunks


@pytest.fixture
def many(connection, settings):
    """So many chunks that indexes are used; every hundredth is rare, and so are its readers."""
    random = np.random.default_rng(7)
    embeddings = random.normal(size=(MANY, DIMENSIONS)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    is_rare = [number % 100 == 0 for number in range(MANY)]
    push_chunks(
        connection,
        settings,
        [f"alpha beta{' gamma' * rare} word{number % 50}" for number, rare in enumerate(is_rare)],
        embeddings,
        container=["rare" if rare else "common" for rare in is_rare],
        author_id=[f"person {number % 30}" for number in range(MANY)],
        allowed_principals=[["few"] if number % 100 == 1 else ["most"] for number in range(MANY)],
    )
    return embeddings


def test_halves_are_searched_through_their_index(connection, settings, find):
    random = np.random.default_rng(7)
    embeddings = random.normal(size=(MANY, DIMENSIONS)).astype(np.float32)
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    halves = replace(COLLECTION, storage="halfvec")
    push_chunks(connection, settings, ["alpha"] * MANY, embeddings, halves)
    query = embeddings[17]
    found = find(None, query, k=10)
    assert found[0] == 17
    assert len(set(found) & set(nearest(embeddings, query, range(MANY))[:10])) >= 9
    assert find("alpha", query, k=1) == [17]
    table = f"{settings.prefix}serving.chunks_1"
    plan = connection.execute(
        f"explain select chunk_id from {table} order by embedding <=> %s::text::vector limit 10",
        [str(query.tolist())],
    ).fetchall()
    assert "chunks_1_embedding" in str(plan)
    with pytest.raises(LorelineError, match="out of range"):
        find(None, query * np.float32(1e9))


def nearest(embeddings, query, numbers) -> list[int]:
    return sorted(numbers, key=lambda number: -float(embeddings[number] @ query))


def test_only_those_who_may_read_a_chunk_find_it(connection, settings, find):
    readers = [["public"], ["slack:C1"], ["ada", "slack:C2"], []]
    texts = ["a page for everybody", "page of C1", "page of ada and C2", "page of nobody"]
    push_chunks(connection, settings, texts, [EAST] * 4, allowed_principals=readers)
    for query in [("page", EAST), ("page", None), (None, EAST)]:
        assert sorted(find(*query)) == [0]
        assert sorted(find(*query, ["slack:C1"])) == [0, 1]
        assert sorted(find(*query, ["ada"])) == [0, 2]
        assert sorted(find(*query, ["slack:C2", "slack:C1"])) == [0, 1, 2]
        for stranger in ["slack:c1", "slack:C1\0", "", "%", "{ada}", "'}' or true --", "\ud800"]:
            assert find(*query, [stranger]) == [0]
        assert find(*query, []) == [0]
    schema = f"{settings.prefix}serving"
    for principals in ["null", "'{}'", "'{null}'", "default"]:
        named = "" if principals == "default" else f", principals => {principals}"
        query = f"select chunk_id from {schema}.search('page', null{named})"
        assert connection.execute(query).fetchall() == [("chunk 00000",)]


def test_a_role_that_may_only_read_can_search(connection, settings):
    push_chunks(connection, settings, ["a page"], [EAST])
    schema = f"{settings.prefix}serving"
    with psycopg.connect(settings.reader_postgres_url, autocommit=True) as reader:
        assert len(search(reader, settings, "page", EAST)) == 1
        assert len(reader.execute(f"select * from {schema}.vector_rows").fetchall()) == 1
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            reader.execute(f"delete from {schema}.collections")


def test_filters_keep_what_they_say(connection, settings, find):
    push_chunks(
        connection,
        settings,
        ["page"] * 4,
        [EAST] * 4,
        source=["notion", "slack", "slack", None],
        container=["general", "general", "it's", None],
        author_id=["ada", "ben", "ada", None],
        source_updated_at=[datetime(2024, month, 1, tzinfo=UTC) for month in (1, 2, 3)] + [None],
    )

    def kept(**filters) -> list[int]:
        return sorted(find("page", EAST, filters=filters))

    assert kept() == [0, 1, 2, 3]
    assert kept(source="slack") == [1, 2]
    assert kept(source=["slack", "notion"], author="ada") == [0, 2]
    assert kept(container="it's") == [2]
    assert kept(container=[]) == []
    assert kept(author=None) == [0, 1, 2, 3]
    assert kept(since="2024-02-01", until="2024-03-01T00:00:00Z") == [1]
    assert kept(since=datetime(2024, 2, 1, tzinfo=UTC)) == [1, 2]
    assert kept(source="x' or true --") == []


@pytest.mark.parametrize(
    ("query", "options", "message"),
    [
        (EAST, {"filters": {"sauce": "slack"}}, "there is no filter 'sauce': filters: source"),
        (EAST, {"filters": {"since": "yesteryear"}}, "yesteryear"),
        (EAST[:3], {}, "the query has 3 dimensions, collection c has 16: embed the query with"),
        (EAST, {"collection": "d"}, "the collection d is not served"),
    ],
)
def test_what_cannot_be_searched_for_is_said(connection, settings, query, options, message):
    push_chunks(connection, settings, ["page"], [EAST])
    with pytest.raises(LorelineError, match=message):
        search(connection, settings, "page", query, **options)


def test_words_and_meaning_add_up(connection, settings, find):
    texts = ["the invoice of march", "the bill of march", "a walk in march", "an invoice"]
    push_chunks(connection, settings, texts, [EAST, NORTH, WEST, NORTH])
    assert find("march invoices", EAST)[0] == 0
    assert find("march invoices", None)[0] == 0
    assert find("march invoices", None, k=2)[1] == 3
    assert find(None, NORTH, k=2) == [1, 3]
    (first, *_) = hits = search(connection, settings, "march invoices", EAST)
    assert (first.dense_rank, first.lexical_rank) == (1, 1)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(-1 <= hit.score <= 1 for hit in hits)


def test_titles_and_headings_are_searched_too(connection, settings, find):
    push_chunks(
        connection,
        settings,
        ["one", "two", "three"],
        [EAST] * 3,
        title=["Invoices", None, None],
        heading_path=[None, ["Finance", "Late invoices"], []],
    )
    assert sorted(find("invoice", None)) == [0, 1]


def test_a_chunk_without_direction_does_not_win(connection, settings):
    push_chunks(connection, settings, ["a page", "nothing"], [EAST, EAST * 0])
    hits = search(connection, settings, "page", EAST)
    assert [hit.chunk_id for hit in hits] == ["chunk 00000", "chunk 00001"]
    assert not any(math.isnan(hit.score) for hit in hits)


def test_a_question_without_words_or_embedding_finds_nothing(connection, settings, find):
    push_chunks(connection, settings, ["a page"], [EAST])
    assert find(None, None) == find("", None) == find("the of and", None) == find("xyz", None) == []
    assert find("", EAST) == find("the", EAST) == [0]
    assert find("page", EAST, k=0) == find("page", EAST, k=-1) == []


@examples(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.text(st.characters(codec=None), max_size=60))
@example("page & | ! <-> :* ' \" \\ \\' '' ( ) \0 \ud800")
@example("'page' \\'; drop table x; -- page:A* <2> page\\")
@example("page " * 50_000)
@example("x" * 100_000)
@example("https://page.example/a?b='c'&d=\\e page@example.com /a/page 'it''s'")
@example(" ".join(f"word{number}" for number in range(500)))
def test_any_text_can_be_asked_for(query_connection, text):
    connection, settings = query_connection
    for embedding in (EAST, None):
        hits = search(connection, settings, text, embedding, k=3)
        assert len(hits) == 3 or embedding is None


@pytest.fixture
def query_connection(connection, settings):
    texts = ["o'clock page", "page\\page 'quoted' page", "a@b.c /path/page", "x" * 2_000]
    push_chunks(connection, settings, texts, [EAST, NORTH, WEST, EAST])
    return connection, settings


def test_an_awkward_word_is_found(query_connection):
    connection, settings = query_connection
    for text in ["o'clock", "'quoted'", "a@b.c", "/path/page", "page\\page"]:
        assert search(connection, settings, text, None), text


def test_an_empty_collection_can_be_searched(connection, settings, find):
    push(connection, settings, COLLECTION, [], through_batch=1)
    assert find("page", EAST) == find("page", None) == find(None, EAST) == []


def test_k_chunks_come_back_when_k_match(many, find):
    query = many[5]
    rare = [number for number in range(MANY) if number % 100 == 0]
    private = [number for number in range(MANY) if number % 100 == 1]
    by_author = [number for number in range(MANY) if number % 30 == 3]
    authors = [f"person {number}" for number in range(15)]
    most = ["most"]
    for k in (1, 10, 60):
        assert find(None, query, most, k, {"container": "rare"}) == nearest(many, query, rare)[:k]
        assert find(None, query, ["few"], k) == nearest(many, query, private)[:k]
        assert (
            find(None, query, most, k, {"author": "person 3"})
            == nearest(many, query, by_author)[:k]
        )
        for text in ["alpha", "gamma word1", "nothing of it"]:
            assert set(find(text, query, most, k, {"container": "rare"})) <= set(rare)
            assert len(find(text, query, most, k, {"container": "rare"})) == k
            assert len(find(text, query, ["few"], k)) == k
            assert len(find(text, query, most, k)) == k
            half = find(text, query, most, k, {"author": authors})
            assert len(half) == k and all(number % 30 < 15 for number in half)
        assert len(find("alpha", None, ["few"], k)) == k
        assert len(find("gamma alpha", None, most, k, {"container": "rare"})) == k


def test_words_that_are_in_nearly_every_chunk_are_searched_for_as_well(many, find):
    everybody = ["most", "few"]
    assert len(find("alpha", None, everybody)) == 10
    assert len(find("beta alpha", None, everybody)) == 10
    assert all(number % 100 == 0 for number in find("alpha beta gamma", None, everybody))
    assert all(number % 50 == 7 for number in find("alpha word7", None, everybody))
    # One chunk in a hundred holds the rarer word; the others are found after it.
    assert len(find("gamma alpha", None, everybody, k=100)) == 100


def test_the_index_finds_nearly_what_is_nearest(many, find):
    queries = np.random.default_rng(8).normal(size=(30, DIMENSIONS)).astype(np.float32)
    everybody = ["most", "few"]
    found = [
        len(set(find(None, query, everybody)) & set(nearest(many, query, range(MANY))[:10]))
        for query in queries
    ]
    assert sum(found) >= 0.95 * 10 * len(queries)


# answers


def test_rankings_weigh_as_asked(connection, settings, find):
    push_chunks(connection, settings, ["east", "words words"], [EAST, NORTH])
    for weight, first in ((0.0, 1), (1.0, 0)):
        hits = search(connection, settings, "words", EAST, dense_weight=weight)
        assert hits[0].chunk_id.endswith(str(first))
        assert hits[0].score == pytest.approx(1.0 if weight else hits[0].score)
    both, dense, lexical = (
        {
            hit.chunk_id: hit.score
            for hit in search(connection, settings, "words", EAST, dense_weight=weight)
        }
        for weight in (0.25, 1.0, 0.0)
    )
    for chunk, score in both.items():
        assert score == pytest.approx(0.25 * dense[chunk] + 0.75 * lexical[chunk])


@pytest.mark.parametrize("weight", [-0.1, 1.1, math.nan])
def test_a_weight_that_is_none_is_refused(connection, settings, weight):
    push_chunks(connection, settings, ["page"], [EAST])
    with pytest.raises(LorelineError, match="the weight of the vectors is"):
        search(connection, settings, "page", EAST, dense_weight=weight)


def test_neighbours_are_of_the_version_and_for_the_reader(connection, settings):
    moved = {
        "doc_id": ["a"] * 4 + ["b"],
        "document_version_id": ["1"] * 5,
        "chunk_index": [0, 1, 2, 3, 0],
        "start_char": [1, 11, 21, 31, 1],
        "end_char": [10, 20, 30, 40, 10],
        "allowed_principals": [["ada"]] * 4 + [["public"]],
    }
    texts = [f"page number {n}"[:10] for n in range(5)]
    push_chunks(connection, settings, texts, [EAST] * 5, **moved)
    [state] = states(connection, settings)
    hits = search(connection, settings, "page", EAST, ["ada"])
    chosen = [next(hit for hit in hits if (hit.doc_id, hit.chunk_index) == ("a", 1))]
    neighbours = neighbours_served(connection, settings, state.table_number, ["ada"])
    assert [part.chunk_index for part in sorted(neighbours(chosen, 1), key=str)] == [0, 1, 2]
    # A permission that was revoked meanwhile counts for neighbours, too.
    stranger = neighbours_served(connection, settings, state.table_number, ["bo"])
    assert stranger(chosen, 1) == []


def test_the_words_of_a_question_are_found_in_a_passage(connection, settings):
    text = 'Failing payments were retried; a \x02fail\x03 ends "here" <b>&amp;</b>'
    push_chunks(connection, settings, [text], [EAST])
    [hit] = search(connection, settings, "Why did a payment fail?", EAST)
    [passage] = highlighted(
        connection, settings, "Why did a payment fail?", passages([hit], 0, lambda *_: ())
    )
    assert [passage.text[a:b] for a, b in passage.highlights] == ["Failing", "payments", "fail"]
    [bare] = highlighted(connection, settings, "the of", [passage])
    assert bare == passage
