"""Text that others wrote cannot act on the terminal that it is shown in."""

from __future__ import annotations

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.cli.text import (
    excerpt,
    json_safe,
    one_line,
    shortened,
    visible,
    visible_in_color,
)

any_text = st.text(st.characters(codec=None))
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Zürich 日本 👩\u200d💻 می\u200cخواهم", "Zürich 日本 👩\u200d💻 می\u200cخواهم"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b31m", "\\x9b31m"),
        ("ring\x07 \r back\x08", "ring\\x07 \\x0d back\\x08"),
        ("invoice\u202efdp.exe", "invoice\\u202efdp.exe"),
        ("\u2028\ufeff\u200b", "\\u2028\\ufeff\\u200b"),
        ("\U000e0041", "\\U000e0041"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_would_act_is_shown(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(any_text)
def test_nothing_is_left_that_a_terminal_obeys(text: str) -> None:
    hostile = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    left = [c for c in visible(text) if unicodedata.category(c) in hostile]
    assert set(left) <= set("\n\t\u200c\u200d")


@given(any_text)
def test_a_line_is_a_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@given(documents)
def test_json_keeps_its_value_and_loses_what_acts(value: object) -> None:
    safe = json_safe(json.dumps(value, ensure_ascii=False, indent=2))
    assert json.loads(safe) == value
    assert not [c for c in safe if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n"]


def test_colours_may_stay_where_a_program_of_ours_sets_them() -> None:
    assert visible_in_color("\x1b[32mOK\x1b[0m \x1b[2J") == "\x1b[32mOK\x1b[0m \\x1b[2J"


def test_shortened_says_that_something_is_missing() -> None:
    assert shortened("12345", 5) == "12345"
    assert shortened("123 456", 5) == "123…"


def test_an_excerpt_is_where_the_words_are() -> None:
    text = (
        "First of all.\nNothing here. "
        + "Filler words stand here. " * 20
        + "Flags take effect at once."
    )
    assert excerpt(text, "How quickly do flags take effect?", 40) == "… Flags take effect at once."
    assert excerpt(text, "unheard of", 20) == "First of all.\nNothi…"
    assert excerpt("short", "query", 40) == "short"


@given(st.text(), st.text(), st.integers(min_value=2, max_value=50))
def test_an_excerpt_keeps_its_length(text: str, query: str, length: int) -> None:
    assert len(excerpt(text, query, length)) <= length + 2
