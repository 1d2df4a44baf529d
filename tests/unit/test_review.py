"""What the review page makes of messages, verdicts and keys."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.cli.text import visible
from loreline.errors import LorelineError
from loreline.review.categories import Category, check_keys
from loreline.review.messages import PREVIEW_CHARACTERS, complete_text, pieces, shown, spoken
from loreline.review.verdicts import Verdict, VerdictError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
FIELDS = ("role", "content", "name", "tool_calls", "refusal", "function_call", "model")
MESSAGE = st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON))


def said(message):
    """The texts of a message, with what stands over them."""
    (one,) = shown([message])
    return [(b.title, "".join(p.text for p in b.pieces)) for b in one.blocks]


@given(st.text(st.characters(codec=None)))
def test_a_text_cut_into_pieces_is_the_visible_text(text):
    cut = pieces(text)
    assert "".join(piece.text for piece in cut) == visible(text.replace("\r\n", "\n"))
    assert all(a.is_escape != b.is_escape for a, b in pairwise(cut))


def test_what_was_typed_and_what_was_escaped_are_told_apart():
    assert [(p.text, p.is_escape) for p in pieces("\\x1b\x1b")] == [
        ("\\x1b", False),
        ("\\x1b", True),
    ]


@given(st.lists(MESSAGE, max_size=4))
def test_any_message_is_shown(messages):
    for message, one in zip(messages, shown(messages), strict=True):
        for block in one.blocks:
            whole = complete_text(message, block.number)
            assert whole.startswith("".join(piece.text for piece in block.pieces))
        assert isinstance(spoken(message)[1], str)


def test_parts_and_calls_are_texts_of_their_own():
    call = {"id": "c1", "function": {"name": "find", "arguments": '{"a": [1]}'}}
    picture = {"type": "image_url", "image_url": {"url": "http://x"}}
    message = {
        "role": "assistant",
        "content": [{"type": "text", "text": "one"}, "two", picture],
        "tool_calls": [call, {"function": {"name": "odd", "arguments": "not json"}}],
    }
    texts = said(message)
    assert texts[0][1].startswith('one\ntwo\n{\n  "type": "image_url"')
    assert texts[1:] == [
        ("calls find", '{\n  "a": [\n    1\n  ]\n}'),
        ("calls odd", "not json"),
    ]
    assert said({"role": "assistant", "tool_calls": '[{"function": {"name": "f"}}]'}) == [
        ("calls f", "")
    ]


def test_nothing_tells_who_wrote():
    message = {"role": "assistant", "name": "qwen", "model": "qwen", "id": "run-7", "content": "x"}
    assert said(message) == [("", "x")]
    assert said({"role": "tool", "name": "find", "tool_call_id": "c1", "content": "3"}) == [
        ("find", "3")
    ]
    assert "qwen" not in str(shown([message]))


def test_a_long_text_is_cut_and_says_by_how_much():
    (one,) = shown([{"role": "user", "content": "x" * (PREVIEW_CHARACTERS + 7)}])
    (block,) = one.blocks
    assert (len(block.pieces[0].text), block.hidden) == (PREVIEW_CHARACTERS, 7)


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("pair", Verdict(preferred="a", strength=1)),
        ("pair", Verdict(preferred="tie", comment="x")),
        ("trajectory", Verdict(score=1, categories=[])),
        ("trajectory", Verdict(score=5, categories=["overlong"])),
    ],
)
def test_a_whole_verdict_is_taken(kind, verdict):
    verdict.check(kind, {"overlong"})


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        ("pair", Verdict()),
        ("pair", Verdict(preferred="a")),
        ("pair", Verdict(preferred="left", strength=1)),
        ("pair", Verdict(preferred="a", strength=4)),
        ("pair", Verdict(preferred="tie", strength=1)),
        ("pair", Verdict(preferred="tie", score=3)),
        ("pair", Verdict(preferred="tie", categories=["overlong"])),
        ("trajectory", Verdict(categories=["overlong"])),
        ("trajectory", Verdict(score=0)),
        ("trajectory", Verdict(score=3, categories=["unknown"])),
        ("trajectory", Verdict(score=3, preferred="a")),
        ("trajectory", Verdict(score=3, comment="x" * 10_001)),
    ],
)
def test_half_a_verdict_is_not(kind, verdict):
    with pytest.raises(VerdictError):
        verdict.check(kind, {"overlong"})


@pytest.mark.parametrize("keys", ["s", "", "H", "1", "hh", "é"])
def test_a_key_is_a_free_letter(keys):
    with pytest.raises(LorelineError, match="has the key"):
        check_keys([Category("x", "X", "", keys)])


def test_no_two_categories_share_a_key():
    with pytest.raises(LorelineError, match="category x has the key 'h'"):
        check_keys([Category("x", "X", "", "h"), Category("y", "Y", "", "h")])


def test_the_categories_of_the_project_have_keys():
    import csv

    from loreline.settings import PROJECT_ROOT

    with (PROJECT_ROOT / "seeds" / "label_categories.csv").open() as file:
        found = [Category(r["category"], r["title"], "", r["key"]) for r in csv.DictReader(file)]
    check_keys(found)
    assert {each.category for each in found} == {
        *("tool_helped", "tool_misuse", "hallucination", "good_recovery", "overlong"),
        *("underspecified", "stable_high_quality"),
    }
