"""Conversations made by hand, one tenant each, and the forest that they are.

An expected node is `turn` or `turn/choice`: its parent (None for a root), its kind, and how the
parent was found.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.end_to_end.forest import (
    Json,
    assistant,
    call,
    chat,
    event,
    recorded_again,
    system,
    tool,
    user,
)

Expected = dict[str, tuple[str | None, str, str]]


@dataclass(frozen=True)
class Case:
    """Events of a tenant of their own, and the nodes that they make."""

    events: list[Json]
    nodes: Expected


HI, HELLO = user("hi"), assistant("hello")
U1, A1, U2, A2, U3 = (
    user("one"),
    assistant("first"),
    user("two"),
    assistant("second"),
    user("three"),
)

CASES: dict[str, Case] = {}


def case(name: str, events: list[Json], nodes: Expected) -> None:
    """Note a case; its name is its tenant."""
    for recorded in events:
        recorded["data"]["tenant"] = name
    CASES[name] = Case(events, nodes)


case(
    "a deterministic replay, then the user goes on",
    [
        chat("t1", [U1], A1),
        chat(
            "r1", [U1], A1, at=10, is_replay=True, replay_run_id="run", context_anchor_turn_id="t1"
        ),
        chat("t2", [U1, A1, U2], A2, at=20),
    ],
    {
        "t1": (None, "root", "none"),
        "r1": (None, "retry", "none"),
        "t2": ("t1", "continuation", "exact"),
    },
)
case(
    "a later turn of a replay hangs from its own run",
    [
        chat("t1", [U1], A1),
        chat("r1", [U1], A1, at=10, is_replay=True, replay_run_id="run"),
        chat("q1", [U1], A1, at=11, is_replay=True, replay_run_id="other"),
        chat("r2", [U1, A1, U2], A2, at=20, is_replay=True, replay_run_id="run"),
        chat("p2", [U1, A1, U3], A2, at=21, is_replay=True, replay_run_id="third"),
    ],
    {
        "t1": (None, "root", "none"),
        "r1": (None, "retry", "none"),
        "q1": (None, "retry", "none"),
        "r2": ("r1", "continuation", "exact"),
        "p2": ("t1", "continuation", "exact"),
    },
)
case(
    "a lost first turn, and a later session like it",
    [
        chat("t2", [HI, HELLO, U2], A2, at=5, session="a"),
        chat("x1", [HI], HELLO, at=10, session="b"),
    ],
    {"t2": (None, "root", "none"), "x1": (None, "root", "none")},
)
case(
    "a conversation forked into another session",
    [
        chat("t1", [HI], HELLO, session="a"),
        chat("t2", [HI, HELLO, U2], A2, at=5, session="b"),
        chat("t3", [HI, HELLO, U2, A2, U3], A1, at=9, session="b"),
    ],
    {
        "t1": (None, "root", "none"),
        "t2": ("t1", "continuation", "exact"),
        "t3": ("t2", "continuation", "exact"),
    },
)
case(
    "two equal choices",
    [chat("t1", [U1], A1, A1, request={"n": 2}), chat("t2", [U1, A1, U2], A2, at=5)],
    {
        "t1/0": (None, "root", "none"),
        "t1/1": (None, "retry", "none"),
        "t2": ("t1/0", "continuation", "exact"),
    },
)
case(
    "ids that repeat",
    [
        chat("x", [U1], A1),
        chat("x", [U1, A1, U2], A2, at=5),
        chat("y", [U1, A1, U2, A2, U3], A1, at=9, parent_turn_id="x"),
    ],
    {
        "x": (None, "root", "none"),
        "x:1": ("x", "continuation", "exact"),
        "y": ("x:1", "continuation", "explicit"),
    },
)
case(
    "a record delivered twice",
    [chat("t1", [U1], A1), chat("t1", [U1], A1, source="another collector")],
    {"t1": (None, "root", "none")},
)
CALL_1 = assistant(None, tool_calls=[call("c1", "find")])
CALL_2 = assistant("", tool_calls=[call("c2", "read")])
case(
    "a window that slides inside a tool loop",
    [
        chat("t1", [U1], CALL_1),
        chat("t2", [U1, CALL_1, tool("c1", "found")], CALL_2, at=2),
        chat("t3", [tool("c1", "found"), CALL_2, tool("c2", "read it")], A1, at=4),
        chat("t4", [U1, CALL_1, tool("c1", "lost"), CALL_2, tool("c2", "read it")], A2, at=6),
    ],
    {
        "t1": (None, "root", "none"),
        "t2": ("t1", "continuation", "exact"),
        "t3": ("t2", "continuation", "truncated"),
        "t4": (None, "prompt_variant", "none"),
    },
)
case(
    "a summarised history",
    [
        chat("t1", [U1], A1),
        chat("t2", [U1, A1, U2], A2, at=2),
        chat("t3", [user("So far: one was first."), U2, A2, U3], A1, at=4),
        chat("x3", [user("So far: one was first."), U2, A2, U3], A1, at=5, session="elsewhere"),
    ],
    {
        "t1": (None, "root", "none"),
        "t2": ("t1", "continuation", "exact"),
        "t3": ("t2", "continuation", "truncated"),
        "x3": (None, "root", "none"),
    },
)
SURE, HERE = assistant("Sure,"), assistant(" here")
case(
    "prefill",
    [
        chat("t1", [U1], A1),
        chat("t2", [U1, A1, U2, SURE], HERE, at=2),
        chat("t3", [U1, A1, U2, assistant("Sure, here"), U3], A1, at=4),
        chat("t4", [U1, A1, U2, SURE, HERE, user("four")], A2, at=6),
        chat("p1", [user("five"), SURE], HERE, at=7, session="p"),
        chat("p2", [user("five"), assistant("Sure, here"), U3], A1, at=8, session="p"),
    ],
    {
        "t1": (None, "root", "none"),
        "t2": ("t1", "continuation", "exact"),
        "t3": ("t2", "continuation", "exact"),
        "t4": ("t2", "prompt_variant", "exact"),
        "p1": (None, "root", "none"),
        "p2": ("p1", "continuation", "exact"),
    },
)
case(
    "a title is made in the session",
    [
        chat("t1", [system("Help."), U1], A1),
        chat("title", [system("Write a title."), user("Title of: one")], assistant("One"), at=2),
        chat("t2", [system("Help."), U1, A1, U2], A2, at=4),
        chat("again", [system("Write a title."), user("Title of: two")], assistant("Two"), at=6),
    ],
    {
        "t1": (None, "root", "none"),
        "title": (None, "root", "none"),
        "t2": ("t1", "continuation", "exact"),
        "again": (None, "prompt_variant", "none"),
    },
)
CALLS = assistant(None, tool_calls=[call("c1", "a", '{"x": 1, "y": 2}'), call("c2", "b")])
ECHO = assistant("", tool_calls=[call("k1", "a", '{"y":2.0,"x":1}'), call("k2", "b", "")])
case(
    "parallel tool calls in another order",
    [
        chat("t1", [U1], CALLS),
        chat("t2", [U1, CALLS, tool("c1", "A"), tool("c2", "B")], A1, at=2),
        chat("t3", [U1, ECHO, tool("k2", "B"), tool("k1", "A")], A1, at=4),
        chat("t4", [U1, ECHO, tool("k2", "A"), tool("k1", "B")], A1, at=6),
    ],
    {
        "t1": (None, "root", "none"),
        "t2": ("t1", "continuation", "exact"),
        "t3": ("t1", "retry", "exact"),
        "t4": ("t1", "prompt_variant", "exact"),
    },
)
case(
    "a date in the system prompt",
    [
        chat("t1", [system("Today is Monday."), U1], A1),
        chat("t2", [system("Today is Tuesday."), U1, A1, U2], A2, at=5),
        chat("t3", [system("Today is Tuesday."), U1, A1, U2, A2, U3], A1, at=9),
    ],
    {
        "t1": (None, "root", "none"),
        "t2": ("t1", "continuation", "exact"),
        "t3": ("t2", "continuation", "exact"),
    },
)
case(
    "hi from two strangers",
    [
        chat("a1", [HI], HELLO, session="a"),
        chat("b1", [HI], HELLO, at=1, session="b"),
        chat("b2", [HI, HELLO, U1], A1, at=2, session="b"),
        chat("a2", [HI, HELLO, U1], A1, at=3, session="a"),
        chat("a3", [HI, HELLO, U1, A1, U2], A2, at=4, session="a"),
    ],
    {
        "a1": (None, "root", "none"),
        "b1": (None, "root", "none"),
        "b2": ("b1", "continuation", "exact"),
        "a2": ("a1", "continuation", "exact"),
        "a3": ("a2", "continuation", "exact"),
    },
)
case(
    "hi from two strangers without a session",
    [
        chat("a1", [HI], HELLO, session=None),
        chat("b1", [HI], assistant("welcome"), at=1, session=None),
        chat("b2", [HI, assistant("welcome"), U1], A1, at=2, session=None),
    ],
    {
        "a1": (None, "root", "none"),
        "b1": (None, "retry", "none"),
        "b2": ("b1", "continuation", "exact"),
    },
)
case(
    "records that were mended later",
    [
        chat("t1", [U1], A1, model_snapshot_id="m@1"),
        recorded_again(chat("t1", [U1], A1), 60, model_snapshot_id="m@2"),
        recorded_again(chat("t1", [U1], A1), 30, model_snapshot_id="m@3"),
        chat("t2", [U1, A1, U2], A2, at=2),
        chat("t2", [U1, A1, U2], A2, at=2, model_snapshot_id="m@4"),
    ],
    {"t1": (None, "root", "none"), "t2": ("t1", "continuation", "exact")},
)
case(
    "an edited earlier message",
    [
        chat("t1", [U1], A1),
        chat("t2", [U1, A1, U2], A2, at=2),
        chat("t3", [U1, A1, U3], A2, at=4),
        chat("t4", [U1, A1, U3, A2, U2], A1, at=6),
    ],
    {
        "t1": (None, "root", "none"),
        "t2": ("t1", "continuation", "exact"),
        "t3": ("t1", "prompt_variant", "exact"),
        "t4": ("t3", "continuation", "exact"),
    },
)
case(
    "a regenerated first answer",
    [
        chat("t1", [U1], A1),
        chat("t1b", [U1], A2, at=2),
        chat("t2", [U1, A2, U2], A1, at=4),
    ],
    {
        "t1": (None, "root", "none"),
        "t1b": (None, "retry", "none"),
        "t2": ("t1b", "continuation", "exact"),
    },
)
case(
    "an interrupted stream and its retry",
    [
        chat("t1", [U1], assistant("fir"), kind="interrupted"),
        chat("t1r", [U1], A1, at=2),
        chat("t2", [U1, A1, U2], A2, at=4),
        chat("f", [U1, A1, U2, A2, U3], at=6, kind="failed", error={"message": "busy"}),
        chat("f", [U1, A1, U2, A2, U3], A1, at=7),
    ],
    {
        "t1": (None, "root", "none"),
        "t1r": (None, "retry", "none"),
        "t2": ("t1r", "continuation", "exact"),
        "f": ("t2", "continuation", "exact"),
    },
)
case(
    "a parent that the client names",
    [
        chat("t1", [U1], A1, A2, request={"n": 2}),
        chat("t2", [U1, A2, U2], A1, at=2, parent_turn_id="t1"),
        chat("t3", [user("quite another")], A1, at=4, parent_turn_id="t1", session="b"),
        chat("t4", [U1, A1, U2], A1, at=6, parent_turn_id="nobody knows"),
    ],
    {
        "t1/0": (None, "root", "none"),
        "t1/1": (None, "retry", "none"),
        "t2": ("t1/1", "continuation", "explicit"),
        "t3": ("t1/0", "continuation", "explicit"),
        "t4": ("t1/0", "prompt_variant", "exact"),
    },
)
case(
    "named parents in a circle",
    [
        chat("a", [user("a")], A1, at=0, parent_turn_id="c"),
        chat("b", [user("a"), A1, user("b")], A2, at=2, parent_turn_id="a"),
        chat("c", [user("c")], A2, at=4, parent_turn_id="b"),
        chat("d", [user("c"), A2, user("d")], A1, at=6),
    ],
    {
        "a": ("c", "continuation", "explicit"),
        "b": ("a", "continuation", "explicit"),
        "c": (None, "root", "none"),
        "d": ("c", "prompt_variant", "exact"),
    },
)
case(
    "named parents in a circle that hashes lead back into",
    [
        chat("a", [user("a")], A1, at=0, parent_turn_id="b"),
        chat("b", [user("a"), A1, user("b")], A2, at=2, parent_turn_id="a"),
        chat("c", [user("a"), A1, user("b"), A2, U3], A2, at=4),
    ],
    {
        "a": (None, "root", "none"),
        "b": ("a", "continuation", "exact"),
        "c": ("b", "continuation", "exact"),
    },
)
case(
    "what differs says the kind",
    [
        chat("t1", [U1], A1, request={"temperature": 0.2}),
        chat("seed", [U1], A1, at=1, request={"temperature": 0.2, "seed": 5}),
        chat("warm", [U1], A1, at=2, request={"temperature": 0.9}),
        chat("other", [U1], A1, at=3, request={"model": "m2", "temperature": 0.9}),
        chat("tools", [U1], A1, at=4, request={"tools": [{"type": "x"}], "temperature": 0.2}),
        chat("system", [system("s"), U1], A1, at=5, request={"temperature": 0.2}),
        chat("named", [U1], A1, at=6, branch_kind="tool_variant", variant_config={"why": "asked"}),
    ],
    {
        "t1": (None, "root", "none"),
        "seed": (None, "retry", "none"),
        "warm": (None, "sampling_variant", "none"),
        "other": (None, "sampling_variant", "none"),
        "tools": (None, "tool_variant", "none"),
        "system": (None, "prompt_variant", "none"),
        "named": (None, "tool_variant", "none"),
    },
)
case(
    "replays of one context",
    [
        chat(
            "t1",
            [U1],
            assistant("first", tool_calls=[call("c1", "count")]),
            backend="vllm-a",
            model_snapshot_id="m@1",
        ),
        event("llm.tool.completed", 1, turn_id="t1", tool_call_id="c1", name="count", result="42"),
        chat("r2", [U1], A2, at=8, is_replay=True, context_anchor_turn_id="t1"),
        chat("r1", [U1], A1, at=6, is_replay=True, context_anchor_turn_id="t1"),
        chat("r3", [U1], A1, at=9, is_replay=True, context_anchor_turn_id="r1"),
        chat("later original", [U1], A2, at=20),
        chat(
            "t2",
            [U1, assistant("first", tool_calls=[call("k", "count")]), tool("k", "42"), U2],
            A2,
            at=10,
        ),
    ],
    {
        "t1": (None, "root", "none"),
        "r1": (None, "retry", "none"),
        "r2": (None, "retry", "none"),
        "r3": (None, "retry", "none"),
        "later original": (None, "retry", "none"),
        "t2": ("t1", "continuation", "exact"),
    },
)
TASKS = [
    {"index": 0, "sub_prompt": "look", "depends_on": []},
    {"index": 1, "sub_prompt": "write", "depends_on": [0], "assigned_model": "m2"},
]
LIST = user("Please:\n1. read the log\n2. find the cause")
case(
    "plans",
    [
        chat("told", [U1], A1),
        event("taskification.completed", 1, turn_id="told", taskify_rule_version="v7", tasks=TASKS),
        chat("again", [U1], A1, at=2),
        chat("listed", [LIST], A1, at=3, session="other"),
    ],
    {
        "told": (None, "root", "none"),
        "again": (None, "taskify_variant", "none"),
        "listed": (None, "root", "none"),
    },
)
case(
    "flows",
    [
        event("flow.node.started", 0, flow_id="f", node_id="boss", kind="orchestrator"),
        event("flow.node.completed", 9, flow_id="f", node_id="boss", kind="orchestrator"),
        event(
            "flow.node.started",
            1,
            flow_id="f",
            node_id="writer",
            parent_node_ids=["boss"],
            kind="worker",
        ),
        event(
            "flow.node.failed",
            3,
            flow_id="f",
            node_id="lookup",
            parent_node_ids=["boss"],
            kind="tool",
        ),
    ],
    {},
)
