"""Canonical messages and the hashes of a request."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.conversations.canonical import EMPTY, Messages, canonical_json, chained
from loreline.conversations.requests import NO_ATTRIBUTE, SCHEMA, RequestReader
from tests.end_to_end.forest import assistant, call, chat, system, tool, user


def digest(message):
    return Messages().message(message).digest


def ends(history):
    """The hash of a history up to each of its messages."""
    return [step.end for step in history.steps]


def read(*events, reader=None):
    """Rows of events, as dictionaries."""
    named = [(f"r{n}", f"k{n}", json.dumps(event)) for n, event in enumerate(events)]
    return (reader or RequestReader()).table(named).to_pylist()


@pytest.mark.parametrize(
    ("said", "echoed"),
    [
        (assistant(None), assistant("")),
        (assistant("yes"), assistant([{"type": "text", "text": "yes"}])),
        (
            assistant("yes"),
            assistant([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "yes"}]),
        ),
        (assistant("yes", reasoning_content="hm", refusal=None), assistant("yes")),
        (assistant("yes", tool_calls=[]), assistant("yes")),
        (
            assistant(None, tool_calls=[call("a", "f", '{"x": 1, "y": [1.0]}')]),
            assistant("", tool_calls=[call("b", "f", '{ "y":[1],"x":1}')]),
        ),
        (
            assistant(None, tool_calls=[call("a", "f", "")]),
            assistant(None, tool_calls=[call("a", "f", "{}")]),
        ),
        ({"role": "developer", "content": "be brief"}, system("be brief")),
    ],
)
def test_what_clients_echo_is_equal(said, echoed):
    assert digest(said) == digest(echoed)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (user("a"), assistant("a")),
        (user("a"), user("a ")),
        (user("a"), {**user("a"), "name": "ada"}),
        (
            assistant(None, tool_calls=[call("a", "f", '{"x": 1}')]),
            assistant(None, tool_calls=[call("a", "f", '{"x": "1"}')]),
        ),
        (
            assistant(None, tool_calls=[call("a", "f"), call("b", "g")]),
            assistant(None, tool_calls=[call("a", "g"), call("b", "f")]),
        ),
        (user([{"type": "image_url", "image_url": {"url": "x"}}]), user("x")),
    ],
)
def test_what_says_something_else_differs(one, other):
    assert digest(one) != digest(other)


def test_results_of_parallel_calls_are_ordered_by_call():
    asked = assistant(None, tool_calls=[call("a", "f"), call("b", "g")])
    again = assistant(None, tool_calls=[call("x", "f"), call("y", "g")])
    one = Messages().history([asked, tool("a", "1"), tool("b", "2")])
    other = Messages().history([again, tool("y", "2"), tool("x", "1")])
    assert ends(one) == ends(other)
    swapped = Messages().history([asked, tool("a", "2"), tool("b", "1")])
    assert swapped.end != one.end


def test_the_system_is_no_part_of_the_history_and_keeps_its_positions():
    one = Messages().history([system("today"), user("a"), system("mind"), assistant("b")])
    assert ends(one) == ends(Messages().history([user("a"), assistant("b")]))
    assert [(position, m.content) for position, m in one.system] == [(0, "today"), (2, "mind")]


@pytest.mark.parametrize(
    "between",
    [{"role": "tool", "content": "2"}, tool("b", "2"), system("mind")],
)
def test_what_was_read_before_changes_no_hash(between):
    """A request goes on from another one in the middle of the results of parallel calls."""
    asked = assistant(None, tool_calls=[call("a", "f"), call("b", "g"), call("c", "h")])
    first = [user("q"), asked, tool("c", "3")]
    whole = [*first, between, tool("a", "1")]
    reader = Messages()
    reader.history(first)
    assert ends(reader.history(whole)) == ends(Messages().history(whole))


@pytest.mark.parametrize("fault", [{"finish_reason": "stop"}, "text"])
def test_what_an_unreadable_event_would_have_said_first_is_said_by_the_next(fault):
    bad = chat("1", [user("q"), assistant("a"), user("r")], assistant("b"))
    bad["data"]["response"]["choices"] = [fault]
    good = chat("2", [user("q"), assistant("a"), user("r"), assistant("b"), user("s")], at=1)
    refused, kept = read(bad, good)
    assert refused["problem"] == "a choice without a message"
    assert [m["content"] for m in kept["new_messages"]] == ["q", "a", "r", "b", "s"]
    assert len(kept["new_snapshots"]) == 5


def test_a_message_without_a_role_is_the_assistants_in_an_answer_only():
    bare = {"content": "a"}
    answered, asked = read(chat("1", [user("q")], bare), chat("2", [bare], at=1))
    assert answered["problem"] is None
    assert asked["problem"] == "a message without a role"


texts = st.text(max_size=8)
histories = st.lists(st.builds(user, texts) | st.builds(assistant, texts), max_size=8)


@given(histories, histories)
def test_a_history_is_a_chain(first, more):
    """Every beginning of a history has a hash of its own, which does not depend on what follows."""
    short, long = Messages().history(first), Messages().history(first + more)
    chain = ends(long)
    assert chain[: len(first)] == ends(short)
    assert long.end == EMPTY if not first + more else len(set(chain)) == len(chain)
    if more:
        assert chained(long.before(len(chain) - 1), long.steps[-1].digest) == long.end


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(json_values)
def test_canonical_json_survives_being_read_and_written(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


@given(st.lists(json_values, max_size=3))
def test_odd_messages_are_a_problem_and_no_error(messages):
    (row,) = read(chat("t", messages, assistant("a")))
    assert (row["problem"] is None) == (row["context_snapshot_id"] is not None)


@pytest.mark.parametrize(
    ("event", "problem"),
    [
        ({}, "data is no object"),
        ({"data": {"request": {"messages": "hi"}}}, "request.messages is no list"),
        ({"data": {"request": {"messages": []}}}, "neither time nor data.started_at is a time"),
        (chat("t", [{"content": "who?"}]), "a message without a role"),
        (chat("t", [], {"role": "assistant", "tool_calls": 5}), "tool_calls is no list"),
    ],
)
def test_what_cannot_be_read_says_why(event, problem):
    (row,) = read(event)
    assert row["problem"] == problem
    assert row["raw_dlt_id"] == "r0"
    assert not any(row[f.name] for f in list(SCHEMA)[5:])


def test_half_a_surrogate_pair_is_read():
    payload = json.dumps(chat("t", [user("?")], assistant("a"))).replace('"?"', '"\\ud83d"')
    (row,) = RequestReader().table([("r", "k", payload)]).to_pylist()
    assert row["problem"] is None
    assert "\N{REPLACEMENT CHARACTER}" in {m["content"] for m in row["new_messages"]}


def test_the_answer_is_where_the_next_request_goes_on():
    first, second = read(
        chat("1", [user("a")], assistant("b"), assistant("c")),
        chat("2", [user("a"), assistant("c"), user("d")], assistant("e"), at=1),
    )
    assert second["prefix_hashes"] == first["choices"][1]["post_hashes"]
    assert second["pair_hashes"] == first["choices"][1]["pair_hashes"]
    assert first["prefix_hashes"] == []


def test_a_prefill_is_echoed_as_one_message_or_two():
    before = [user("a"), assistant("b"), user("c")]
    first, prefilled, one, two = read(
        chat("1", before[:1], assistant("b")),
        chat("2", [*before, assistant("Sure,")], assistant(" here")),
        chat("3", [*before, assistant("Sure, here"), user("d")], assistant("e")),
        chat("4", [*before, assistant("Sure,"), assistant(" here"), user("d")], assistant("e")),
    )
    assert prefilled["prefix_hashes"][1] == first["choices"][0]["post_hashes"][0]
    two_messages, one_message = prefilled["choices"][0]["post_hashes"]
    assert one["prefix_hashes"] == [one_message]
    assert two["prefix_hashes"] == [two_messages]


def test_what_is_new_is_said_once_and_completely():
    events = []
    history = [system("be brief")]
    for n in range(5):
        history = [*history, user(f"q{n}")]
        events.append(
            chat(str(n), history, assistant(f"a{n}"), at=n, request={"tools": [{"n": 1}]})
        )
        history = [*history, assistant(f"a{n}")]
    found = read(*events, *events)
    messages = [m["content"] for row in found for m in row["new_messages"]]
    assert sorted(messages) == sorted(f"{kind}{n}" for kind in "qa" for n in range(5))
    snapshots = {s["context_snapshot_id"]: s for row in found for s in row["new_snapshots"]}
    assert len(snapshots) == sum(len(row["new_snapshots"]) for row in found) == 10
    for row in found:
        depth, at = 0, row["choices"][0]["response_snapshot_id"]
        while at != EMPTY:
            assert snapshots[at]["depth"] > 0
            at, depth = snapshots[at]["parent_snapshot_id"], depth + 1
        assert depth == snapshots[row["choices"][0]["response_snapshot_id"]]["depth"]
    kinds = [a["kind"] for row in found for a in row["new_attributes"]]
    assert sorted(kinds) == ["system", "tools"]


def test_a_reader_that_forgets_says_it_again():
    events = [chat(str(n), [user(f"q{n % 7}")], assistant("a"), at=n) for n in range(40)]
    found = read(*events, reader=RequestReader(remembered=1))
    said = {m["message_hash"] for row in found for m in row["new_messages"]}
    assert said == {digest(user(f"q{n}")) for n in range(7)} | {digest(assistant("a"))}


def test_settings_and_seed():
    one, seeded, warm, null = read(
        chat("1", [user("a")], request={"temperature": 0.2}),
        chat("2", [user("a")], request={"temperature": 0.2, "seed": 5}),
        chat("3", [user("a")], request={"temperature": 0.9}),
        chat("4", [user("a")], request={"temperature": 0.2, "top_p": None, "stream": True}),
    )
    assert one["sampling_hash"] == seeded["sampling_hash"] == null["sampling_hash"]
    assert one["sampling_hash"] != warm["sampling_hash"]
    assert json.loads(seeded["parameters"]) == {"temperature": 0.2, "seed": 5}
    assert one["system_hash"] == one["tools_hash"] == NO_ATTRIBUTE


def test_times_and_names_fall_back():
    event = chat(None, [user("a")], assistant("b"), session=None, at=10, lasts=2)
    del event["data"]["started_at"]
    (row,) = read(event)
    assert (row["ended_at"] - row["started_at"]).total_seconds() == 2
    assert row["started_at"].second == 10
    assert row["turn_id"] == "event:k0"
    assert row["session_id"] is None
    assert row["is_replay"] is False
