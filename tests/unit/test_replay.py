"""What a replay asks: requests made of canonical messages, sets, and what calls may cost."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.calls.budget import Price, Prices
from loreline.conversations.canonical import Messages
from loreline.conversations.chat import chat_messages, tools_of
from loreline.conversations.requests import RequestReader
from loreline.errors import LorelineError
from loreline.replay.contexts import Node, added, moved
from loreline.replay.plan import Change, Step, Trajectory, estimated
from loreline.replay.sets import ReplaySet, read_set
from tests.end_to_end.forest import assistant, call, chat, system, tool, user

TEXTS = st.one_of(st.none(), st.text(max_size=8), st.just('[{"type": "text", "text": "x"}]'))
PARTS = st.just(
    [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": "u"}}]
)
ARGUMENTS = st.sampled_from(["{}", "", '{"b": 1.0, "a": [2]}', '"text"', '"1"', "no json", "7"])


@st.composite
def conversations(draw):
    """Well-formed histories: each tool's result answers a call of the answer before it."""
    messages = []
    for turn in range(draw(st.integers(1, 4))):
        if draw(st.booleans()):
            messages.append(system(draw(TEXTS) or "s"))
        messages.append({"role": "user", "content": draw(st.one_of(TEXTS, PARTS))})
        calls = [call(f"{turn}-{n}", "f", draw(ARGUMENTS)) for n in range(draw(st.integers(0, 3)))]
        messages.append(assistant(draw(TEXTS), **({"tool_calls": calls} if calls else {})))
        answered = draw(st.permutations([each["id"] for each in calls]))
        messages += [tool(call_id, draw(TEXTS)) for call_id in answered]
    return messages


def rows_of(messages):
    """The rows that the lake keeps of a history, and the system's messages with their places."""
    history = Messages().history(messages)
    names = ("role", "content", "name", "tool_calls")
    rows = [
        {
            **{name: getattr(step.message, name) for name in names},
            "tool_call_id": None if step.call is None else str(step.call),
            "message_hash": step.digest,
        }
        for step in history.steps
    ]
    texts = [{"position": n, "content": m.content, "name": m.name} for n, m in history.system]
    return rows, texts


@given(conversations())
def test_a_request_made_of_canonical_messages_has_the_hash_of_the_recorded_one(messages):
    rows, texts = rows_of(messages)
    again = chat_messages(rows, texts)
    read = [
        RequestReader().table([("r", "k", json.dumps(chat("t", each)))]).to_pylist()[0]
        for each in (messages, again)
    ]
    assert read[0]["request_hash"] == read[1]["request_hash"]
    assert read[0]["context_snapshot_id"] == read[1]["context_snapshot_id"]
    assert read[0]["system_hash"] == read[1]["system_hash"]
    # As an API wants them: each result names a call of the answer before it.
    offered = set()
    for message in again:
        if message["role"] == "tool":
            assert message["tool_call_id"] in offered
        elif message["role"] != "system":
            offered = {each["id"] for each in message.get("tool_calls", [])}
            assert message["content"] is not None or offered


def history_of(messages):
    """Rows of a history with what they are chained to."""
    rows, _ = rows_of(messages)
    steps = Messages().history(messages).steps
    return [{**row, "context_snapshot_id": step.end} for row, step in zip(rows, steps, strict=True)]


CALLS = [assistant(None, tool_calls=[call("1", "f")]), tool("1", "r")]


@pytest.mark.parametrize(
    ("before", "messages", "said"),
    [
        ([user("a"), assistant("b")], [user("a"), assistant("b"), user("c")], ["c"]),
        # The client asks to go on, without a word.
        ([user("a"), assistant("b")], [user("a"), assistant("b")], []),
        ([user("a"), assistant("b")], [user("a"), assistant("b"), user("c"), assistant("d")], "cd"),
        ([user("a"), CALLS[0]], [user("a"), *CALLS], ["r"]),
        # A turn between them was lost, and with it its answer; it is part of what was sent.
        (
            [user("a"), assistant("b")],
            [user("a"), assistant("b"), user("c"), assistant("d"), user("e")],
            "cde",
        ),
        # Cut at the front: the answer is known by itself.
        ([user("a"), assistant("b")], [assistant("b"), user("c")], ["c"]),
        # Not known at all: what was said last, with the beginning of an answer.
        ([user("a"), assistant("b")], [user("x"), assistant("y"), user("c"), assistant("d")], "cd"),
        ([], [user("x"), assistant("y"), user("c")], ["c"]),
    ],
)
def test_what_a_client_added_to_an_answer(before, messages, said):
    found = added(history_of(messages), history_of(before))
    assert [row["content"] for row in found] == list(said)


def test_the_systems_messages_move_with_what_they_stand_before():
    texts = [{"position": place, "content": str(place)} for place in (0, 3, 5)]
    # Non-system messages: 1 2 | 4 6, the first two of which are kept.
    assert [text["position"] for text in moved(texts, 4, 2, 4)] == [0, 3, 5]
    # Two more stand before what was added, or one of that is left out.
    assert [text["position"] for text in moved(texts, 4, 2, 6)] == [0, 5, 7]
    assert [text["position"] for text in moved(texts, 4, 2, 3)] == [0, 2, 4]


@pytest.mark.parametrize("text", ['[{"id":1,"name":"a"}]', '[{"type":"row","x":1}]', "[{", "[]"])
def test_text_that_looks_like_json_stays_text(text):
    rows, texts = rows_of([user("q"), CALLS[0], tool("1", text)])
    assert chat_messages(rows, texts)[2]["content"] == text


def test_an_old_function_call_is_asked_as_it_was():
    called = {
        "role": "assistant",
        "content": None,
        "function_call": {"name": "f", "arguments": "{}"},
    }
    messages = [user("q"), called, {"role": "function", "name": "f", "content": "r"}]
    again = chat_messages(*rows_of(messages))
    assert again == messages


def test_tools_are_offered_under_the_name_that_they_had():
    new, old = {"type": "function", "function": {"name": "f"}}, {"name": "f"}
    assert tools_of([new]) == {"tools": [new]}
    assert tools_of([old]) == {"functions": [old]}
    assert tools_of(None) == {}


def node(**others) -> Node:
    fields = {
        "branch_node_id": "n" * 32,
        "session_id": "s",
        "tenant": "",
        "theme_id": None,
        "turn_id": "t",
        "parent_node_id": None,
        "parent_turn_id": None,
        "parent_response_id": None,
        "model": "m",
        "system_hash": "0",
        "tools_hash": "0",
        "context_snapshot_id": "c",
        "response_snapshot_id": "r",
        "parameters": '{"n":2,"temperature":0.2,"top_p":1}',
        "prompt_tokens": 1_000,
        "completion_tokens": 50,
    }
    return Node(**{**fields, **others})


def test_a_call_takes_the_parameters_of_then_changed_and_one_answer_at_a_time():
    change = Change(parameters={"temperature": 0.9})
    assert change.parameters_of(node()) == {"temperature": 0.9, "top_p": 1}
    assert Change().parameters_of(node(parameters=None)) == {}
    assert Change().parameters_of(node(parameters='{"n":1}')) == {"n": 1}
    seeded = node(parameters='{"seed":7}')
    assert [Change().parameters_of(seeded, n)["seed"] for n in range(3)] == [7, 8, 9]
    newer = node(parameters='{"max_completion_tokens":9}')
    assert Change(parameters={"max_tokens": 5}).parameters_of(newer) == {"max_completion_tokens": 5}
    chosen = node(parameters='{"tool_choice":"required"}')
    assert Change().parameters_of(chosen) == {"tool_choice": "required"}
    assert Change(tools=[]).parameters_of(chosen) == {}


def test_the_same_replay_has_the_same_calls():
    def ids(change, repetition=0):
        trajectory = Trajectory(Step(node()), change, repetition)
        return trajectory.call_id(trajectory.first)

    changes = [
        Change(),
        Change("m"),
        Change("other"),
        Change("m", {"temperature": 0}),
        Change("m", tools=[]),
        Change("m", tools=[{"name": "f"}]),
        Change("m", system=""),
        Change("m", system="brief"),
    ]
    assert len({ids(change) for change in changes}) == len(changes)
    assert ids(Change("m", {"b": 1, "a": 2})) == ids(Change("m", {"a": 2, "b": 1}))
    assert ids(Change("m"), 0) != ids(Change("m"), 1)


def test_calls_are_estimated_from_what_was_taken_then():
    prices = Prices({"m": Price(Decimal(1), Decimal(4))})

    def estimate(change, **others):
        trajectory = Trajectory(Step(node(**others)), change, 0)
        return estimated(prices, trajectory, trajectory.first)

    plain = estimate(Change())
    assert (plain.prompt_tokens, plain.completion_tokens) == (1_000, 50)
    assert plain.cost == Decimal("0.0012")
    assert estimate(Change(parameters={"max_tokens": 300})).completion_tokens == 300
    assert estimate(Change(system="x" * 400)).prompt_tokens == 1_100
    assert estimate(Change("unpriced")).cost is None
    assert estimate(Change(), completion_tokens=None).completion_tokens > 0


def test_who_answers_is_never_guessed():
    trajectory = Trajectory(Step(node(model=None)), Change(), 0)
    with pytest.raises(LorelineError, match="names no model: say which with --model"):
        trajectory.model(trajectory.first)


SET = """
themes: [support-drafts, plans]
nodes: leaves
limit: 5
models: [a, b]
parameters: [{temperature: 0}, {temperature: 0.8, top_p: 0.95}]
repetitions: 3
subtree: true
system: brief.txt
tools: tools.json
"""


def test_a_set_is_models_times_parameters(tmp_path: Path):
    (tmp_path / "set.yaml").write_text(SET)
    (tmp_path / "brief.txt").write_text("Be brief.")
    (tmp_path / "tools.json").write_text('[{"name": "f"}]')
    found = read_set(tmp_path / "set.yaml")
    assert (found.themes, found.nodes, found.limit) == (["support-drafts", "plans"], "leaves", 5)
    assert (found.repetitions, found.subtree) == (3, True)
    asked = [(change.model, change.parameters) for change in found.changes()]
    assert asked == [
        ("a", {"temperature": 0}),
        ("a", {"temperature": 0.8, "top_p": 0.95}),
        ("b", {"temperature": 0}),
        ("b", {"temperature": 0.8, "top_p": 0.95}),
    ]
    assert {change.system for change in found.changes()} == {"Be brief."}
    assert ReplaySet(nodes=["x"]).changes() == [Change()]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[1, 2", "cannot be read"),
        ("- a", "is no set of replays"),
        ("nodes: [a]\nmodel: b", "there is no model: use themes, nodes"),
        ("nodes: [a]\nrepetitions: none", "repetitions is 'none': it is a whole number above 0"),
        ("nodes: [a]\nparameters: {temperature: 0}", "parameters is .*: it is a list of mappings"),
        ("nodes: [a]\nparameters: [{model: b}]", "parameters is .* without model, messages"),
        ("nodes: deepest\nthemes: [t]", "nodes is 'deepest': it is one of all, roots, leaves"),
        ("nodes: leaves", "does not say which nodes"),
        ("models: [a]", "does not say which nodes"),
        ("themes: [t]\nnodes: [a]", "does not say which nodes"),
        ("nodes: [a]\nsystem: nowhere.txt", "nowhere.txt cannot be read"),
    ],
)
def test_a_set_that_is_wrong_says_where(tmp_path: Path, text: str, complaint: str):
    (tmp_path / "set.yaml").write_text(text)
    with pytest.raises(LorelineError, match=complaint):
        read_set(tmp_path / "set.yaml")
