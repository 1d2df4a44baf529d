"""Message lists keep what they say, and schemas nobody's keys but their own."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.datasets.messages import Shape, parsed

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"]), "content": TEXT | st.none()},
        optional={"name": TEXT, "tool_call_id": TEXT, "refusal": TEXT | st.none()},
    )
)


def through_arrow(*lists):
    """What a trainer gets: the messages of several rows, read back from one Arrow column."""
    rows = [parsed(json.dumps(messages)) for messages in lists]
    shape = Shape(set(), set())
    for row in rows:
        shape.widen(row)
    return pa.array(rows, shape.arrow_type()).to_pylist(), rows


@pytest.mark.parametrize(
    "text", [None, "", "plain", "[1]", "[[]]", '[{"content": "no role"}]', '{"role": "user"}', "[{"]
)
def test_what_lists_no_messages_is_text(text):
    assert parsed(text) is None


def test_null_content_is_an_empty_string():
    assert parsed('[{"role": "assistant", "content": null}]') == [
        {"role": "assistant", "content": ""}
    ]


def test_arguments_and_parts_stay_json_text():
    arguments = {"query": "é", "n": 1.0, "list": [1, None]}
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    as_text = {**call, "function": {"name": "f", "arguments": json.dumps(arguments)}}
    parts = [{"type": "text", "text": "a"}]
    [[first, second, third]], _ = through_arrow(
        [
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "assistant", "content": "", "tool_calls": [as_text]},
            {"role": "user", "content": parts},
        ]
    )
    assert json.loads(first["tool_calls"][0]["function"]["arguments"]) == arguments
    assert second["tool_calls"][0]["function"]["arguments"] == json.dumps(arguments)
    assert json.loads(third["content"]) == parts
    assert third["tool_calls"] is None


def test_columns_have_no_keys_that_no_message_has():
    (_, rows) = through_arrow([{"role": "user", "content": "a", "tool_calls": None}])
    assert rows == [[{"role": "user", "content": "a"}]]


@given(st.lists(MESSAGES, min_size=1, max_size=4))
def test_nothing_that_was_said_is_lost(lists):
    back, rows = through_arrow(*lists)
    for given_list, row, stored in zip(lists, rows, back, strict=True):
        for message, plain, read in zip(given_list, row, stored, strict=True):
            said = {key: value for key, value in message.items() if value is not None}
            assert plain == {"content": "", **said}
            assert {key: value for key, value in read.items() if value is not None} == plain
