"""Tokens counted word by word lie where the tokenizer itself says that they do."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loreline.embedding import DEFAULT_MODEL
from loreline.knowledge import tokens
from loreline.knowledge.tokens import Tokenizer, load_tokenizer
from loreline.settings import PROJECT_ROOT
from tests.unit.hostile_bodies import EXTREME, bodies

# What BERT's normalizer drops, replaces, splits or takes apart, and its special tokens.
CHARACTERS = st.sampled_from(
    [
        *"ab Z9[]SEPMA\n\t\r.,!?-_'\u0301\u200b\xa0\u3000数한ﷺİßﬁ①½≠;\x0b\x0c\x1c\x85\ufffd😀",
        "\u2028",
        "\U0002f800",
        "[SEP]",
        "[MASK]",
    ]
)
texts = st.lists(CHARACTERS, max_size=200).map("".join)


@pytest.fixture
def minilm() -> Tokenizer:
    return load_tokenizer(DEFAULT_MODEL)


def assert_same_places(tokenizer: Tokenizer, text: str) -> None:
    exact, counted = tokenizer.token_offsets(text), tokenizer.counted_words(text)
    assert (counted.count, counted.additive) == (exact.count, exact.additive)
    assert [counted.start(token) for token in range(exact.count)] == list(exact.starts)
    for place in range(len(text) + 1):
        assert counted.before(place) == exact.before(place)
        assert counted.is_between_words(place) == exact.is_between_words(place)
        least = max(0, place - 20)
        assert counted.last_word_start(least, place) == exact.last_word_start(least, place)


@pytest.mark.parametrize("longest", [64, 3], ids=["whole stretches", "words of them"])
@pytest.mark.parametrize("block", [1 << 16, 90], ids=["one block", "many blocks"])
def test_any_text_has_its_tokens_where_the_tokenizer_finds_them(
    minilm, monkeypatch, longest, block
):
    monkeypatch.setattr(tokens, "LONGEST_STRETCH", longest)
    monkeypatch.setattr(tokens, "BLOCK_CHARACTERS", block)

    @settings(max_examples=120)
    @given(bodies | texts | st.text(max_size=200))
    def check(text):
        assert_same_places(minilm, text)

    check()


@pytest.mark.parametrize("name", EXTREME)
def test_hostile_texts_have_their_tokens_where_the_tokenizer_finds_them(minilm, name):
    text = EXTREME[name][:3_000]
    assert_same_places(minilm, text)
    assert minilm.length(text) + minilm.special_tokens == minilm.count(text)


def real_texts() -> list[str]:
    folder = Path(os.environ.get("LORELINE_REAL_DATA") or PROJECT_ROOT / "../shared/data")
    if not folder.is_dir():
        pytest.skip(f"no real input at {folder}: set LORELINE_REAL_DATA")
    articles = json.loads((folder / "xquad" / "xquad.en.json").read_text())["data"]
    paragraphs = [p["context"] for article in articles for p in article["paragraphs"]]
    return ["\n\n".join(paragraphs), *(f.read_text() for f in (folder / "irc").glob("*.raw.txt"))]


def test_real_texts_have_their_tokens_where_the_tokenizer_finds_them(minilm):
    for text in real_texts():
        exact, counted = minilm.token_offsets(text), minilm.counted_words(text)
        assert (counted.count, counted.additive) == (exact.count, exact.additive)
        assert [counted.start(token) for token in range(exact.count)] == list(exact.starts)
        for space in re.finditer(r"\s", text):
            assert counted.before(space.start()) == exact.before(space.start())


def test_what_is_remembered_is_bounded_and_forgotten_without_harm(monkeypatch):
    monkeypatch.setattr(tokens, "KNOWN_STRETCHES", 50)
    small = Tokenizer(load_tokenizer(DEFAULT_MODEL)._tokenizer)
    for number in range(40):
        text = " ".join(f"word{number}x{other}, again" for other in range(12))
        assert small.counted_words(text).count == small.token_offsets(text).count
        assert len(small._known) <= 50
