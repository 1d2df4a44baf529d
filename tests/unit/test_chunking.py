"""Chunks: exact offsets, limits that hold, nothing lost, Markdown's sections known."""

from __future__ import annotations

import hashlib
import unicodedata
from itertools import pairwise

import duckdb
import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from tokenizers import decoders, models, pre_tokenizers, processors, trainers

from loreline.embedding import DEFAULT_MODEL
from loreline.errors import LorelineError
from loreline.knowledge import tokens
from loreline.knowledge.chunking import (
    ALGORITHMS,
    Chunk,
    ChunkingConfiguration,
    chunk,
    sentence_texts,
)
from loreline.knowledge.sections import sections
from loreline.knowledge.tokens import Tokenizer, load_tokenizer
from tests.unit.hostile_bodies import EXTREME, bodies

# Each algorithm, bare and with all that may be put in front.
STRATEGIES = [*ALGORITHMS, *(f"{algorithm} in context" for algorithm in ALGORITHMS)]
TITLE = "Größe &\n数据 " + "handbook of everything " * 20

configurations = st.builds(
    lambda strategy, limit, overlap: configuration(strategy, limit, overlap),
    st.sampled_from(STRATEGIES),
    st.sampled_from((8, 9, 16, 40, 256)),
    st.sampled_from((0, 10, 50)),
)


def configuration(
    strategy: str = "recursive", max_tokens: int = 64, overlap_percent: int = 0
) -> ChunkingConfiguration:
    algorithm, _, in_context = strategy.partition(" ")
    if in_context or algorithm == "chat_messages":
        max_tokens = max(max_tokens, 32)
    return ChunkingConfiguration(
        "tested",
        algorithm,
        max_tokens,
        overlap_percent * max_tokens // 100,
        window_sentences=3 if algorithm in ("sentence_windows", "semantic") else None,
        breakpoint_percentile=70 if algorithm == "semantic" else None,
        sentence_model="any" if algorithm == "semantic" else None,
        context="title_and_path" if in_context else "none",
    )


def any_vectors(texts: list[str]) -> np.ndarray:
    """Two numbers made from each text, always the same; none from some."""
    numbers = np.array([list(hashlib.sha256(text.encode()).digest()[:2]) for text in texts], float)
    numbers[numbers[:, 0] == 7] = np.nan
    return numbers - 127.5


@pytest.fixture(scope="module")
def minilm() -> Tokenizer:
    return load_tokenizer(DEFAULT_MODEL)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    """A small tokenizer of GPT-2's kind: a word's tokens depend on the space before it, and one
    character may be several tokens."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["words of a small corpus, words again and again"] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return Tokenizer(tokenizer)


def assert_sound(body: str, config: ChunkingConfiguration, tokenizer: Tokenizer) -> None:
    asked: list[str] = []

    def vectors(texts: list[str]) -> np.ndarray:
        asked.extend(texts)
        return any_vectors(texts)

    chunks = chunk(body, config, tokenizer, TITLE, vectors)
    assert not asked or asked == sentence_texts(body, config, tokenizer, TITLE)
    assert chunks == chunk(body, config, tokenizer, TITLE, any_vectors)
    assert [c.chunk_index for c in chunks] == list(range(len(chunks)))
    covered = bytearray(len(body))
    for c in chunks:
        assert body[c.start_char - 1 : c.end_char] == c.text
        assert c.text.strip()
        assert c.token_count == tokenizer.count(c.embedded_text)
        assert c.context.startswith("Größe" if config.context != "none" else "")
        assert c.token_count <= config.max_tokens or len(c.text) == 1
        covered[c.start_char - 1 : c.end_char] = b"\1" * len(c.text)
    for before, after in pairwise(chunks):
        assert before.start_char < after.start_char
        assert before.end_char < after.end_char
        if not config.overlap_tokens:
            assert before.end_char < after.start_char
    lost = {character for character, seen in zip(body, covered, strict=True) if not seen}
    assert all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in lost), lost


@settings(max_examples=150)
@given(bodies, configurations)
def test_any_body_gives_exact_whole_and_limited_chunks(body, config):
    assert_sound(body, config, load_tokenizer(DEFAULT_MODEL))


@settings(max_examples=60)
@given(st.text(max_size=300), configurations)
def test_any_unicode_gives_exact_whole_and_limited_chunks(body, config):
    assert_sound(body, config, load_tokenizer(DEFAULT_MODEL))


def test_limits_hold_for_a_tokenizer_whose_words_depend_on_their_neighbours(byte_level):
    @settings(max_examples=80)
    @given(bodies, configurations)
    def check(body, config):
        assert_sound(body, config, byte_level)

    check()


def test_limits_hold_across_the_blocks_in_which_a_long_text_is_tokenized(minilm, monkeypatch):
    monkeypatch.setattr(tokens, "BLOCK_CHARACTERS", 100)

    @settings(max_examples=60)
    @given(bodies, configurations)
    def check(body, config):
        assert_sound(body * 3, config, minilm)

    check()


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", EXTREME)
def test_extreme_bodies(minilm, strategy, name):
    assert_sound(EXTREME[name], configuration(strategy, 256), minilm)


@pytest.mark.parametrize("body", ["", " ", "\n\n\t ", "\u200b\ufeff\u00ad", "\x00\x01"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_blank_body_has_no_chunk(minilm, strategy, body):
    assert chunk(body, configuration(strategy), minilm, TITLE, any_vectors) == []


def test_sql_finds_each_chunk_at_its_offsets(minilm):
    body = "Œuvre 👩\u200d👩\u200d👧 e\u0301té.\r\n\r\n\u200b数据 🇩🇪 \U0001f9c0 ende. " * 40
    chunks = chunk(body, configuration(max_tokens=24), minilm)
    assert len(chunks) > 20
    for c in chunks:
        found = duckdb.execute(
            "select substr(?, ?, ?)", [body, c.start_char, c.end_char - c.start_char + 1]
        ).fetchone()
        assert found == (c.text,)


HANDBOOK = """\
Owner: Ada

# Runbook

## When checkout is slow

Look at the graph of calls per checkout. It should be one.

```bash
# not a heading
kubectl rollout restart deploy/till
```

Then tell #incidents.

## Who to call

Ada by day.

## Where the keys are

In the safe.

Setext heading
==============

The end.
"""


def test_a_section_is_a_chunk_and_tiny_neighbours_share_one(minilm):
    chunks = chunk(HANDBOOK, configuration("markdown_sections", 128), minilm)
    assert [(c.heading_path, c.text) for c in chunks] == [
        ((), "Owner: Ada"),
        (
            ("Runbook", "When checkout is slow"),
            HANDBOOK[HANDBOOK.index("# Runbook") : HANDBOOK.index("## Who")].strip(),
        ),
        (
            ("Runbook",),
            "## Who to call\n\nAda by day.\n\n## Where the keys are\n\nIn the safe.",
        ),
        (("Setext heading",), "Setext heading\n==============\n\nThe end."),
    ]


def test_a_large_section_is_cut_and_each_part_keeps_the_path(minilm):
    body = "# A\n\n## B\n\n" + "A sentence about something. " * 60
    chunks = chunk(body, configuration("markdown_sections", 64), minilm)
    assert len(chunks) > 5
    assert {c.heading_path for c in chunks} == {("A", "B")}


def test_an_edit_changes_the_chunks_of_its_section_only(minilm):
    def texts(body: str) -> set[str]:
        return {c.text for c in chunk(body, configuration("markdown_sections", 64), minilm)}

    edited = HANDBOOK.replace("It should be one.", "It should be one, never two.")
    assert len(texts(edited) - texts(HANDBOOK)) == 1


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ("# A #\n", [("A",)]),
        ("# `code` and **bold** and [a link](https://e.org/x) \\# end", [
            ("code and bold and a link # end",)
        ]),
        ("#not a heading\n #nor this", [()]),
        ("- item\n  # part of the item\n", [()]),
        ("# A\n### C\n## B\n# D", [("A",), ("A", "C"), ("A", "B"), ("D",)]),
        ("```\n# x\n````\n# A", [("A",)]),
        ("````\n```\n# x\n````\n# A", [("A",)]),
        ("```sql\n-- a\n# x\n```sql\n# x\n```\n# A", [("A",)]),
        ("~~~\n```\n# x\n~~~\n# A", [("A",)]),
        ("```never closed\n# x", [()]),
        ("```code``` in a line\n# A", [("A",)]),
        ("- item\n\n      ```\n# x\n      ```\n# A", [("A",)]),
        ("A\n===\nB\n---\n", [("A",)]),
        ("\nA\n---\ntext", [("A",)]),
        ("---\ntitle: x\n---\n", [()]),
        ("- a\n---\n# B", [("B",)]),
        ("# A\r\ntext\r\n\r\nB\r\n---\r\n", [("A",), ("A", "B")]),
        ("# " + "long " * 100, [(("long " * 100)[:199],)]),
    ],
)  # fmt: skip
def test_headings(body, paths):
    found = [s.heading_path for s in sections(body)]
    assert (found if () in paths else found[1:]) == paths
    assert "".join(body[s.start : s.end] for s in sections(body)) == body


lines = st.sampled_from(
    ["", "text", "# One", "## Two #", "#no", "```", "```py", "~~~", "````", "- item", "> # quoted"]
)


@settings(max_examples=200)
@given(st.lists(lines, max_size=14).map("\n".join))
def test_headings_are_those_that_a_markdown_parser_finds(body):
    tokens_of_body = MarkdownIt().parse(body)
    expected = [
        token.map[0]
        for token in tokens_of_body
        if token.type == "heading_open" and token.level == 0 and token.markup.startswith("#")
    ]
    # One rule differs on purpose: a fence may be indented by any number of spaces.
    found = [body[: s.start].count("\n") for s in sections(body)][1:]
    assert found == expected


def test_cuts_at_the_strongest_boundary_that_fills_a_quarter(minilm):
    first, second = "One sentence here. " * 6, "Another sentence here. " * 6
    body = f"Tiny.\n\n{first.strip()}\n\n{second.strip()}"
    assert [c.text for c in chunk(body, configuration(max_tokens=40), minilm)] == [
        "Tiny.\n\n" + first.strip(),
        second.strip(),
    ]
    cut = chunk(first.strip(), configuration(max_tokens=16), minilm)
    assert [c.text for c in cut] == ["One sentence here. " * 2 + "One sentence here."] * 2


def test_the_next_chunk_repeats_whole_sentences(minilm):
    body = " ".join(f"Sentence number {n} is here." for n in range(30))
    chunks = chunk(body, configuration(max_tokens=40, overlap_percent=25), minilm)
    for before, after in pairwise(chunks):
        repeated = body[after.start_char - 1 : before.end_char]
        assert repeated and before.text.endswith(repeated) and after.text.startswith("Sentence")
        assert minilm.count(repeated) - minilm.special_tokens <= 10


def test_indentation_of_a_first_line_stays(minilm):
    body = "Code:\n\n" + "".join(f"    line_{n} = {n}\n" for n in range(60))
    chunks = chunk(body, configuration(max_tokens=40), minilm)
    assert all(c.text.startswith("    line_") for c in chunks[1:])


def test_the_limit_is_the_models_with_special_tokens(minilm):
    word_pieces = "word " * 500
    first = chunk(word_pieces, configuration(max_tokens=256), minilm)[0]
    assert first == Chunk(0, ("word " * 254).strip(), 1, 254 * 5 - 1, 256)


SEMANTIC = {
    "algorithm": "semantic",
    "window_sentences": 1,
    "breakpoint_percentile": 90,
    "sentence_model": "any",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"algorithm": "by_taste"}, "use fixed_tokens or recursive or markdown_sections"),
        ({"max_tokens": 4}, "allow 8 or more"),
        ({"overlap_tokens": 33}, "repeat none to half"),
        ({"overlap_tokens": -1}, "repeat none to half"),
        ({"algorithm_version": 99}, "this code has version"),
        ({"context": "author"}, "use none or title or title_and_path"),
        ({"context": "title", "max_tokens": 31}, "allow 32 or more"),
        ({"algorithm": "chat_messages", "max_tokens": 31}, "allow 32 or more"),
        ({"window_sentences": 3}, "leave it empty: only sentence_windows and semantic uses it"),
        ({"algorithm": "sentence_windows"}, "has no window_sentences"),
        ({"algorithm": "sentence_windows", "window_sentences": 0}, "use 1 to 100"),
        (SEMANTIC | {"breakpoint_percentile": None}, "has no breakpoint_percentile"),
        (SEMANTIC | {"breakpoint_percentile": 100}, "use 1 to 99"),
        (SEMANTIC | {"sentence_model": None}, "has no sentence_model"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(change, message):
    fields = {"chunking_strategy": "s", "algorithm": "recursive", "max_tokens": 64} | change
    with pytest.raises(LorelineError, match=message):
        ChunkingConfiguration(**fields)


def test_a_model_without_a_tokenizer_is_named(tmp_path):
    with pytest.raises(LorelineError, match="no tokenizer for"):
        load_tokenizer(str(tmp_path))
