"""From chunks to passages: joined where they overlap, widened, gathered by document."""

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.cli.search import Question, Shape, _shaped
from loreline.errors import LorelineError
from loreline.serving.answers import (
    MOST_CANDIDATES,
    Part,
    by_document,
    candidates,
    enough,
    passages,
    rerank,
)
from loreline.serving.search import Hit
from loreline.settings import Settings

BODY = " ".join(f"word{n:03d}" for n in range(200))


def part(version, index, first, last):
    return Part(version, index, first, last, BODY[first - 1 : last])


def hit(part, doc_id=None):
    moment = datetime(2026, 10, 1, tzinfo=UTC)
    return Hit(
        chunk_id=f"{part.document_version_id}/{part.chunk_index}",
        doc_id=doc_id or part.document_version_id,
        document_version_id=part.document_version_id,
        title=None,
        url=None,
        text=part.text,
        heading_path=None,
        source="notion",
        container=None,
        author_id=None,
        source_updated_at=moment,
        chunk_index=part.chunk_index,
        start_char=part.start_char,
        end_char=part.end_char,
        score=0.5,
        dense_rank=1,
        lexical_rank=None,
    )


def beside(*parts):
    """Neighbours among these parts."""

    def neighbours(hits, around):
        return [
            other
            for one in hits
            for other in parts
            if other.document_version_id == one.document_version_id
            and abs(other.chunk_index - one.chunk_index) <= around
        ]

    return neighbours


def test_what_overlaps_is_one_passage_at_the_place_of_the_best():
    first, second, other = part("a", 0, 1, 100), part("a", 1, 81, 180), part("b", 0, 1, 50)
    found = passages([hit(second), hit(other), hit(first)], 0, beside())
    assert [passage.chunk_ids for passage in found] == [("a/1", "a/0"), ("b/0",)]
    assert (found[0].start_char, found[0].end_char, found[0].text) == (1, 180, BODY[:180])


def test_what_only_touches_stays_apart():
    first, second = part("a", 0, 1, 100), part("a", 1, 101, 200)
    assert len(passages([hit(first), hit(second)], 0, beside())) == 2


def test_neighbours_widen_and_join():
    parts = [part("a", n, 96 * n + 1, 96 * n + 95) for n in range(6)]
    found = passages([hit(parts[1])], 1, beside(*parts))
    # The blank between chunks, which is in none of them, stays one.
    assert [passage.text for passage in found] == [BODY[:287]]
    assert (found[0].start_char, found[0].end_char) == (1, 287)
    found = passages([hit(parts[0]), hit(parts[3])], 1, beside(*parts))
    assert [passage.chunk_ids for passage in found] == [("a/0", "a/3")]
    found = passages([hit(parts[0]), hit(parts[5])], 1, beside(*parts))
    assert [passage.chunk_ids for passage in found] == [("a/0",), ("a/5",)]


def test_versions_are_never_joined():
    old, new = part("old", 0, 1, 100), part("new", 1, 50, 150)
    assert len(passages([hit(old, "d"), hit(new, "d")], 1, beside(old, new))) == 2


def test_documents_come_in_the_order_of_their_best():
    hits = [
        hit(part(name[0], int(name[1]), 300 * int(name[1]) + 1, 300 * int(name[1]) + 9))
        for name in ("b0", "a0", "b1", "b2", "c0")
    ]
    found = by_document(passages(hits, 0, beside()), k=2, per_document=2)
    assert [passage.hit.chunk_id for passage in found] == ["b/0", "b/1", "a/0"]


@given(
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 300)), min_size=1, max_size=12),
    st.integers(0, 3),
)
def test_any_hits_are_in_one_passage_each_and_texts_are_the_bodys(spans, around):
    parts = [
        part("a", n, first, min(first + length, len(BODY)))
        for n, (first, length) in enumerate(sorted(set(spans)))
    ]
    found = passages([hit(p) for p in parts[::2]], around, beside(*parts))
    assert sorted(chunk for passage in found for chunk in passage.chunk_ids) == sorted(
        hit(p).chunk_id for p in parts[::2]
    )
    for passage in found:
        said = BODY[passage.start_char - 1 : passage.end_char]
        # Here parts may leave out words, too.
        assert passage.text == said or (around and len(passage.text) == len(said))
    if not around:
        places = sorted((passage.start_char, passage.end_char) for passage in found)
        assert all(one[1] < other[0] for one, other in pairwise(places))


PAGE = """\
# Till

It takes cash. It takes cards. It is slow
on Mondays.

- restart it
- call the vendor

    till --fast


| a | b |
| 1 | 2 |\
"""


def test_a_passage_is_as_long_as_its_part_of_the_body_and_keeps_its_lines():
    texts = ["# Till", "It takes cash.", "It takes cards.", "It is slow", "on Mondays."]
    texts += ["- restart it", "- call the vendor", "    till --fast", "| a | b |", "| 1 | 2 |"]
    places = [PAGE.index(text) + 1 for text in texts]
    parts = [
        Part("a", n, first, first + len(text) - 1, text)
        for n, (first, text) in enumerate(zip(places, texts, strict=True))
    ]
    (found,) = passages([hit(parts[4])], 9, beside(*parts))
    assert (found.start_char, found.end_char) == (1, len(PAGE))
    # A line end within a sentence is the one thing that cannot be told.
    assert found.text == PAGE.replace("slow\non", "slow on")


def found_in(names):
    """A search that has these documents' chunks, best first, and how often it was asked."""
    hits = [hit(part(name, n, 10 * n + 1, 10 * n + 5)) for n, name in enumerate(names)]
    asked = []

    def search(count):
        asked.append(count)
        return hits[:count]

    return search, asked


def documents_in(hits):
    return len({one.doc_id for one in hits})


def test_more_is_searched_for_where_one_document_fills_the_first_places():
    search, asked = found_in(["long"] * 150 + ["b", "c"])
    assert documents_in(enough(search, 3, documents_in)) == 3
    assert asked == [30, 120, 480]
    search, asked = found_in(["long"] * 5_000 + ["b"])
    assert documents_in(enough(search, 2, documents_in)) == 1
    assert asked == [30, 120, 480, 1_000]
    search, asked = found_in(["a", "b"])
    assert (documents_in(enough(search, 5, documents_in)), asked) == (2, [30])


def test_an_answer_says_that_there_might_be_more():
    def answered(names, **shape):
        question = Question("q", ("public",), 2, {}, shape=Shape(**shape))
        found, is_partial = _shaped(question, found_in(names)[0], beside(), Settings())
        return [passage.hit.doc_id for passage in found], is_partial

    assert answered(["a"] * 400 + ["b"], per_document=2) == (["a", "a", "b"], False)
    assert answered(["a"] * 5_000 + ["b"], per_document=1) == (["a"], True)
    assert answered(["a"], per_document=1) == (["a"], False)
    assert answered(["a"] * 400) == (["a", "a"], False)


def test_there_are_more_candidates_than_answers():
    assert candidates(1) < candidates(20) == 80
    assert candidates(100) == MOST_CANDIDATES and candidates(500) == 500


def test_the_shape_is_that_of_the_settings_unless_said_otherwise():
    settings = Settings(search_dense_weight="0.25", search_neighbors="2")
    assert Shape.of(settings) == Shape(0.25, 2, 0, False)
    assert Shape.of(settings, dense_weight=0.0, per_document=3) == Shape(0.0, 2, 3, False)
    assert Shape.of(Settings(reranker_model="m")).rerank
    assert not Shape.of(Settings(reranker_model="m"), rerank=False).rerank


@pytest.mark.parametrize("weight", ["2", "half", "nan"])
def test_a_setting_that_is_no_number_is_refused(weight):
    with pytest.raises(LorelineError, match="LORELINE_SEARCH_DENSE_WEIGHT is"):
        Shape.of(Settings(search_dense_weight=weight))


def test_reranking_needs_a_model():
    with pytest.raises(LorelineError, match="no re-ranking model is named"):
        Shape.of(Settings(), rerank=True)


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory):
    """A real cross-encoder that was never trained: two layers of BERT, always the same."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from loreline.embedding import DEFAULT_MODEL, model_folder

    folder = tmp_path_factory.mktemp("models") / "tiny-cross-encoder"
    words = AutoTokenizer.from_pretrained(model_folder(DEFAULT_MODEL, Settings()))
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), intermediate_size=64, num_labels=1, **shape)
    config.initializer_range = 1.0
    BertForSequenceClassification(config).save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def test_a_cross_encoder_orders_what_was_found_once_more(cross_encoder):
    from sentence_transformers import CrossEncoder

    settings = Settings(model_path=str(cross_encoder.parent), reranker_model=cross_encoder.name)
    hits = [hit(part("a", n, 40 * n + 1, 40 * n + 30)) for n in range(8)]
    ordered = rerank("Which word?", hits, settings)
    said = CrossEncoder(str(cross_encoder)).predict([("Which word?", one.text) for one in hits])
    expected = sorted(zip(said.tolist(), hits, strict=True), key=lambda pair: -pair[0])
    assert [one.chunk_id for one in ordered] == [one.chunk_id for _, one in expected]
    assert [one.rerank_score for one in ordered] == pytest.approx([score for score, _ in expected])
    assert [one.chunk_id for one in ordered] != [one.chunk_id for one in hits]


def test_a_cross_encoder_that_is_not_there_is_told_in_a_line(tmp_path):
    settings = Settings(reranker_model=str(tmp_path))
    with pytest.raises(LorelineError, match="cannot be loaded"):
        rerank("q", [hit(part("a", 0, 1, 10))], settings)
