"""What each way of cutting is for: windows, messages with their speaker, breakpoints, contexts."""

from __future__ import annotations

import hashlib
import time
from itertools import pairwise

import numpy as np
import pytest

from loreline.embedding import DEFAULT_MODEL
from loreline.knowledge.chunking import (
    ALGORITHMS,
    Chunk,
    ChunkingConfiguration,
    chunk,
    sentence_texts,
)
from loreline.knowledge.messages import messages
from loreline.knowledge.sentences import breakpoints, sentences
from loreline.knowledge.tokens import Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return load_tokenizer(DEFAULT_MODEL)


def cut(body: str, algorithm: str, max_tokens: int = 64, title: str = "", **parameters) -> list:
    vectors = parameters.pop("vectors", None)
    configuration = ChunkingConfiguration("tested", algorithm, max_tokens, **parameters)
    return chunk(body, configuration, load_tokenizer(DEFAULT_MODEL), title, vectors)


def test_fixed_tokens_fills_every_chunk_and_repeats_words(minilm):
    body = "\n\n".join(f"Sentence number {n} is here." for n in range(60))
    chunks = cut(body, "fixed_tokens", 40, overlap_tokens=10)
    assert all(c.token_count == 40 for c in chunks[:-1])
    for before, after in pairwise(chunks):
        repeated = body[after.start_char - 1 : before.end_char]
        assert 8 <= minilm.count(repeated) - minilm.special_tokens <= 10


def test_fixed_tokens_repeats_where_there_are_no_spaces(minilm):
    chunks = cut("数据仓库保存着每一个版本的历史记录" * 30, "fixed_tokens", 40, overlap_tokens=10)
    for before, after in pairwise(chunks):
        assert before.end_char - after.start_char + 1 == 10


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("One. Two! three? Four.", ["One.", " Two! three?", " Four."]),
        ("e.g. this. “Yes.” No.", ["e.g. this.", " “Yes.”", " No."]),
        ("# Title\n\n- item\n- item\n", ["# Title\n\n", "- item\n", "- item\n"]),
        ("End.\r\n\r\n  Next.", ["End.\r\n\r\n", "  Next."]),
        ("\n\nFirst. Then", ["\n\nFirst.", " Then"]),
        ("一。二！三", ["一。", "二！", "三"]),
    ],
)
def test_sentences_end_at_marks_and_lines(body, expected):
    assert [body[start:end] for start, end in sentences(body)] == expected


def test_sentence_windows_hold_so_many_sentences_and_repeat_whole_ones():
    body = " ".join(f"Sentence number {n} is here." for n in range(9))
    chunks = cut(body, "sentence_windows", 64, window_sentences=4, overlap_tokens=8)
    numbers = [[int(word) for word in c.text.split() if word.isdigit()] for c in chunks]
    assert numbers == [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8]]


def test_a_sentence_window_shrinks_to_the_limit_and_a_long_sentence_is_cut():
    long = "Word " + "word " * 100 + "end. "
    body = "One is here. " * 2 + long + "Two is here. " * 3
    chunks = cut(body, "sentence_windows", 32, window_sentences=5, overlap_tokens=4)
    assert all(c.token_count <= 32 for c in chunks)
    assert chunks[0].text == "One is here. One is here."
    assert chunks[-1].text == "Two is here. Two is here. Two is here."
    assert len(chunks) == 6


SLACK = """\
**Ann Lee:** Is the till down?

**Bob:**

```
**Not a name:** in the midst of a line? till: **down:** yes
```

It is, since noon.

**Ann Lee:** Then I call them.\
"""


def test_messages_are_told_apart_by_their_speakers():
    found = list(messages(SLACK))
    assert [m.speaker for m in found] == ["Ann Lee", "Bob", "Ann Lee"]
    assert [SLACK[m.start : m.end].split("\n")[-1] or "-" for m in found][-1].endswith("call them.")
    assert "".join(SLACK[m.start : m.end] for m in found) == SLACK
    log = "[12:18] <|trey|> usual\n=== x has left\n12:19 <@b> no\nand\n<c> yes\n"
    assert [m.speaker for m in messages(log)] == ["|trey|", "", "b", "c"]
    quoted = "**Ann:** he wrote\n\n> <b> no\n<c> yes"
    assert [m.speaker for m in messages(quoted)] == ["Ann"]
    for nobody in ("No chat.\n\n**Bold:** it only looks like one.", "", "<b>bold</b>"):
        assert [m.speaker for m in messages(nobody)] == [""]


def chat(*lengths: int) -> str:
    lines = (f"**Name{n}:** " + f"m{n} " * words for n, words in enumerate(lengths))
    return "\n\n".join(line.strip() for line in lines)


def test_no_message_that_fits_is_cut():
    body = chat(3, 5, 2, 9, 1, 7, 7, 2, 12, 1, 1, 4)
    chunks = cut(body, "chat_messages", 40)
    assert len(chunks) > 2
    assert "\n\n".join(c.text for c in chunks) == body
    assert all(c.text.startswith("**Name") and c.context == "" for c in chunks)


def test_a_message_that_is_too_large_is_cut_and_each_part_names_its_speaker():
    chunks = cut(chat(3, 90, 3), "chat_messages", 40)
    parts = [c for c in chunks if "m1" in c.text]
    assert parts[0].text.startswith("**Name1:** m1") and parts[0].context == ""
    assert len(parts) == 3
    assert all(c.context == "Name1: " for c in parts[1:])
    assert [c.text[:9] for c in chunks if c not in parts] == ["**Name0:*", "**Name2:*"]


def test_whole_messages_are_repeated():
    chunks = cut(chat(4, 4, 4, 4, 4, 4), "chat_messages", 48, overlap_tokens=20)
    for before, after in pairwise(chunks):
        assert after.start_char < before.end_char
        assert after.text.startswith("**Name")


def test_breakpoints_lie_where_neighbours_differ_most():
    about_one, about_other = [1.0, 0.1], [0.1, 1.0]
    vectors = np.array([about_one] * 4 + [about_other] * 3 + [about_one] * 3)
    for group in (1, 2, 3):
        assert breakpoints(vectors, group, 75) == [4, 7]
    assert breakpoints(np.array([about_one] * 5), 2, 50) == []
    assert breakpoints(vectors[:1], 1, 50) == breakpoints(vectors[:0], 1, 50) == []
    vectors[2] = np.nan
    assert breakpoints(vectors, 2, 75) == [4, 7]
    assert breakpoints(np.full((4, 2), np.nan), 1, 50) == []


def test_breakpoints_are_the_same_however_many_gaps_are_compared_at_a_time(monkeypatch):
    vectors = np.random.default_rng(1).normal(size=(50, 3))
    whole = breakpoints(vectors, 3, 80)
    monkeypatch.setattr("loreline.knowledge.sentences.GAPS_AT_A_TIME", 7)
    assert breakpoints(vectors, 3, 80) == whole
    assert len(whole) == 10


def test_semantic_cuts_where_the_vectors_change():
    body = "The till is down. The till is slow. The cat sleeps. The cat eats. The cat is fat."

    def vectors(texts: list[str]) -> np.ndarray:
        return np.array([[1.0, 0.0] if "till" in text else [0.0, 1.0] for text in texts])

    chunks = cut(
        body,
        "semantic",
        window_sentences=1,
        breakpoint_percentile=80,
        sentence_model="any",
        vectors=vectors,
    )
    assert [c.text for c in chunks] == [
        "The till is down. The till is slow.",
        "The cat sleeps. The cat eats. The cat is fat.",
    ]


def test_an_edit_asks_for_the_vector_of_its_sentence_only(minilm):
    configuration = ChunkingConfiguration(
        "tested",
        "semantic",
        64,
        window_sentences=3,
        breakpoint_percentile=90,
        sentence_model="any",
    )
    body = " ".join(f"Sentence number {n} is here." for n in range(40)) + " " + "word " * 200
    texts = sentence_texts(body, configuration, minilm)
    assert all(minilm.count(text) <= 64 for text in texts)
    edited = sentence_texts(body.replace("20 is", "20 was"), configuration, minilm)
    assert set(edited) - set(texts) == {"Sentence number 20 was here."}


PAGE = "# Handbook\n\n## Till\n\n" + "Call the vendor of it. " * 20 + "\n\n# End\n\nBye."


@pytest.mark.parametrize("algorithm", ["recursive", "markdown_sections", "fixed_tokens"])
def test_the_context_is_in_front_of_what_is_embedded_and_counts(minilm, algorithm):
    bare = cut(PAGE, algorithm, 48)
    titled = cut(PAGE, algorithm, 48, "Handbook", context="title")
    placed = cut(PAGE, algorithm, 48, "Handbook", context="title_and_path")
    assert {c.context for c in bare} == {""}
    assert {c.context for c in titled} == {"Handbook\n\n"}
    assert "Handbook > Till\n\n" in {c.context for c in placed}
    assert placed[-1].heading_path == ("End",) or algorithm == "fixed_tokens"
    for c in [*titled, *placed]:
        assert c.embedded_text == c.context + c.text
        assert c.text == PAGE[c.start_char - 1 : c.end_char]
        assert c.token_count == minilm.count(c.embedded_text) <= 48


def test_a_long_title_takes_a_quarter_of_a_chunk(minilm):
    for title in ("title " * 100, "数据" * 100, "x" * 5_000, "a\nb\u2028c " * 90):
        chunks = cut(PAGE, "recursive", 64, title, context="title")
        assert 0 < minilm.count(chunks[0].context) <= 16 + minilm.special_tokens
        assert "\n" not in chunks[0].context.rstrip("\n")


def test_another_title_changes_what_is_embedded_in_contexts_only():
    def embedded(title: str, context: str) -> list[Chunk]:
        return [c.embedded_text for c in cut(PAGE, "markdown_sections", 64, title, context=context)]

    assert embedded("One", "none") == embedded("Other", "none")
    assert not set(embedded("One", "title")) & set(embedded("Other", "title"))


def vectors_of_hashes(texts: list[str]) -> np.ndarray:
    return np.array([list(hashlib.sha256(text.encode()).digest()[:4]) for text in texts], float)


HURTFUL = {
    "no spaces": "数据仓库保存着每一个版本的历史记录",
    "distinct words": "",
    "underlines": "a\n---\n",
    "fences": "```\n",
    "headings": "# a\n",
    "half messages": "**Ann:** **Bob:**\n\n**",
    "marks and blanks": ".  ",
    "line ends": "\n \n",
    "quotes": ".\"')",
    "accents": "a\u0301\u0301\u0301",
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("name", HURTFUL)
def test_time_grows_with_the_length_of_a_body_made_to_hurt(algorithm, name):
    parameters = {
        "sentence_windows": {"window_sentences": 5},
        "semantic": {
            "window_sentences": 2,
            "breakpoint_percentile": 90,
            "sentence_model": "any",
            "vectors": vectors_of_hashes,
        },
    }

    def seconds(characters: int) -> float:
        pattern = HURTFUL[name] or "".join(f"{n:x} " for n in range(characters // 5))
        body = (pattern * (characters // len(pattern) + 1))[:characters]
        begun = time.process_time()
        cut(body, algorithm, context="title_and_path", **parameters.get(algorithm, {}))
        return time.process_time() - begun

    # Eight times the length: quadratic would be 64 times the time. What else the machine does only
    # ever slows one down, so that once is enough.
    assert any(seconds(80_000) < 24 * seconds(10_000) + 0.05 for _ in range(3))
