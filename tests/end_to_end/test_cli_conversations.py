"""`loreline sessions`, `tree`, `node` and `diff`, over a few conversations."""

import json

import pytest

from loreline.cli.conversations import aligned, in_columns, side_by_side, tree_lines
from tests.end_to_end.forest import assistant, call, chat, system, tool, user
from tests.end_to_end.lakehouse import temporary_lakehouse
from tests.end_to_end.test_forest import CONVERSATIONS

HOSTILE = "before \x1b[31mred\x1b[0m \u202eafter"


def long_session():
    """Twelve turns in a row, then ten answers to the same question."""
    history = [system("Be brief."), user("question 0")]
    for n in range(12):
        yield chat(f"t{n}", history, assistant(f"answer {n}"), at=n, session="long")
        history = [*history, assistant(f"answer {n}"), user(f"question {n + 1}")]
    for n in range(10):
        yield chat(f"r{n}", history, assistant(f"try {n}"), at=100 + n, session="long")


@pytest.fixture(scope="module")
def lakehouse(stack, tmp_path_factory):
    asked = assistant(None, tool_calls=[call("c1", "search", '{"query": "x"}')])
    events = [
        chat(
            "h1", [user(HOSTILE)], asked, session="hostile", request={"tools": [{"name": HOSTILE}]}
        ),
        chat(
            "h2",
            [user(HOSTILE), asked, tool("c1", HOSTILE)],
            assistant(HOSTILE),
            at=1,
            session="hostile",
        ),
        chat(
            "h3",
            [user(HOSTILE), asked, tool("c1", HOSTILE)],
            at=2,
            session="hostile",
            kind="failed",
            error=HOSTILE,
            request={"model": "other"},
        ),
        *long_session(),
    ]
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("talk")) as lakehouse:
        lakehouse.land_events(events)
        lakehouse.build(*CONVERSATIONS)
        yield lakehouse


def run(lakehouse, *arguments):
    done = lakehouse.command(*arguments)
    assert done.exit_code == 0, done.errors
    return done.output


def test_sessions_are_listed_the_latest_first(lakehouse):
    found = json.loads(run(lakehouse, "sessions", "--json"))
    assert [(row["session_id"], row["turn_count"], row["branch_count"]) for row in found] == [
        ("long", 22, 9),
        ("hostile", 3, 1),
    ]
    assert "hostile" in run(lakehouse, "sessions")
    assert json.loads(run(lakehouse, "sessions", "-k", "1", "--json")) == found[:1]
    assert json.loads(run(lakehouse, "sessions", "--tenant", "nobody", "--json")) == []


def test_a_tree_folds_long_lines_and_many_siblings(lakehouse):
    lines = run(lakehouse, "tree", "long").splitlines()
    assert len(lines) == 2 + 1 + 2 + 6 + 1
    assert "⋮  8 turns that follow each other" in lines[2]
    assert lines[-1].endswith("… 4 more: 4 retry")
    assert "answer 11" in lines[4]
    assert "continuation" in lines[5]
    assert len(run(lakehouse, "tree", "long", "--all").splitlines()) == 22


def test_a_node_is_shown_with_what_was_said(lakehouse):
    nodes = json.loads(run(lakehouse, "tree", "long", "--json"))
    (third,) = [node for node in nodes if node["turn_id"] == "t2"]
    shown = json.loads(run(lakehouse, "node", third["branch_node_id"][:10], "--json"))
    said = [(message["role"], message["content"]) for message in shown["messages"]]
    assert said == [
        ("system", "Be brief."),
        ("user", "question 0"),
        ("assistant", "answer 0"),
        ("user", "question 1"),
        ("assistant", "answer 1"),
        ("user", "question 2"),
        ("assistant", "answer 2"),
    ]
    assert "── system" in run(lakehouse, "node", third["branch_node_id"])


def test_two_nodes_are_shown_against_each_other(lakehouse):
    nodes = {n["turn_id"]: n for n in json.loads(run(lakehouse, "tree", "hostile", "--json"))}
    ids = [nodes[turn]["branch_node_id"] for turn in ("h2", "h3")]
    found = json.loads(run(lakehouse, "diff", *ids, "--json"))
    assert found["settings"]["model"] == ["m", "other"]
    assert found["settings"]["node_status"] == ["completed", "failed"]
    # Both were asked the same; the one that failed says nothing.
    assert found["messages"][0][1] in (" ", "⋮")
    assert ["── assistant", "<", ""] in found["messages"]
    shown = run(lakehouse, "diff", *ids)
    assert "other" in shown
    assert "── assistant " in shown
    same = [nodes["h1"]["branch_node_id"]] * 2
    assert "They are the same." in run(lakehouse, "diff", *same)


def test_a_forest_of_hundreds_of_branches_can_be_read():
    """A thousand turns, each answered twice; and sixty replays of four turns."""

    def node(name, parent, kind="continuation"):
        return {
            **{"branch_node_id": name, "parent_node_id": parent, "branch_kind": kind},
            **{"is_replay": False, "model": "m", "node_status": "completed", "error": None},
            **{
                "prompt_tokens": 1,
                "completion_tokens": 1,
                "response_text": "x",
                "tool_trace": None,
            },
        }

    line = [node("n0", None, "root")]
    for n in range(1, 1_000):
        line += [node(f"n{n}", f"n{n - 1}"), node(f"r{n}", f"n{n - 1}", "retry")]
    lines = list(aligned(tree_lines(line, fold=True), 100))
    assert len(lines) < 12
    assert "995 turns that follow each other" in "".join(lines)
    lines = list(aligned(tree_lines(line, fold=False), 100))
    assert len(lines) == len(line)
    assert max(map(len, lines)) <= 100

    replays = [node(f"{n}-{t}", f"{n}-{t - 1}" if t else None) for n in range(60) for t in range(4)]
    lines = list(aligned(tree_lines(replays, fold=True), 100))
    assert len(lines) == 6 * 4 + 1
    assert "… 54 more, with 162 below them" in lines[-1]

    forks = [node("f0", None, "root")]
    for n in range(1, 2_000):
        forks += [node(f"f{n}", f"f{n - 1}"), node(f"g{n}", f"f{n - 1}"), node(f"h{n}", f"g{n}")]
    assert len(list(tree_lines(forks, fold=False))) == len(forks)


def test_lines_side_by_side():
    left = ["a", "b", "c", "d", "e", "f", "g", "old", "h"]
    right = ["a", "b", "c", "d", "e", "f", "g", "new", "more", "h"]
    assert list(side_by_side(left, right)) == [
        ("5 equal lines", "⋮", "5 equal lines"),
        ("f", " ", "f"),
        ("g", " ", "g"),
        ("old", "|", "new"),
        ("", ">", "more"),
        ("h", " ", "h"),
    ]
    assert list(in_columns([("one two three", "|", "four")], 13)) == [
        "one   | four",
        "two   |",
        "three |",
    ]


def test_what_others_wrote_is_shown_and_not_obeyed(lakehouse):
    nodes = {n["turn_id"]: n for n in json.loads(run(lakehouse, "tree", "hostile", "--json"))}
    shown = [run(lakehouse, "tree", "hostile"), run(lakehouse, "sessions")]
    shown += [run(lakehouse, "node", node["branch_node_id"]) for node in nodes.values()]
    shown.append(run(lakehouse, "diff", *(nodes[t]["branch_node_id"] for t in ("h1", "h2"))))
    for text in shown:
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert any("\\x1b[31m" in text for text in shown)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("tree", "nothing"), "there is no session nothing"),
        (("node", "zz"), "there is no node zz"),
        (("node", ""), "several nodes begin with "),
    ],
)
def test_what_is_not_there_is_said_in_a_line(lakehouse, arguments, problem):
    done = lakehouse.command(*arguments)
    assert done.exit_code == 1
    assert problem in done.errors
    assert len(done.errors.splitlines()) == 1
