"""Paths through the forest: each ends where nobody went on; a former end is kept."""

import random

import pytest

from tests.end_to_end.forest import (
    answers_of_list,
    answers_of_trees,
    assistant,
    call,
    chat,
    event,
    recorded_again,
    requests_for,
    tool,
    user,
)
from tests.end_to_end.lakehouse import temporary_lakehouse

BUILD = (
    "build",
    "--select",
    "+trajectory_units",
    "messages",
    "--exclude-resource-type",
    "unit_test",
)


@pytest.fixture(scope="module")
def paths(stack, tmp_path_factory):
    """A lakehouse of these tests, each with a tenant of its own."""
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("paths")) as lakehouse:
        yield lakehouse


@pytest.fixture
def tell(paths):
    """A function that lands events and builds."""

    def landed(*events):
        paths.land_events(events)
        paths.build(*BUILD)

    return landed


def trajectories(lakehouse, tenant, where="superseded_by is null"):
    """Trajectories of a tenant by the turn that they end in."""
    with lakehouse.lake() as connection:
        result = connection.execute(
            lakehouse.with_names(
                "select units.*, nodes.turn_id || '/' || nodes.choice_index as ends_in,"
                " (select list(path.turn_id order by path.depth)"
                "  from {lake}conversations.conversation_branch_nodes as path"
                "  where list_contains(units.node_ids, path.branch_node_id)) as turns"
                " from {lake}evaluation.trajectory_units as units"
                " inner join {lake}conversations.conversation_branch_nodes as nodes"
                " on units.leaf_node_id = nodes.branch_node_id"
                f" where units.tenant = $1 and {where}"
            ),
            [tenant],
        )
        names = [column[0] for column in result.description]
        found = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    return {row["ends_in"].removesuffix("/0"): row for row in found}


def texts(lakehouse, trajectory):
    """What is said on a path, from its first message to its last."""
    found = dict(
        lakehouse.query(
            "select message_hash, content from {lake}conversations.messages"
            " where list_contains($1, message_hash)",
            trajectory["message_hashes"],
        )
    )
    return [found[message] for message in trajectory["message_hashes"]]


def test_what_a_path_took_is_counted(paths, tell):
    """Two calls, one of which failed; a failed attempt; an answer that did not please."""
    tenant = "counted"
    calls = assistant(None, tool_calls=[call("c1", "search"), call("c2", "search")])
    first = [user("find it")]
    second = [*first, calls, tool("c1", "here"), tool("c2", "no")]
    third = [*second, assistant("found"), user("thanks")]
    tell(
        chat("a", first, calls, at=0, lasts=2, tenant=tenant),
        event(
            "llm.tool.completed",
            2,
            tenant=tenant,
            turn_id="a",
            tool_call_id="c1",
            name="search",
            result='"status":"failed" is only said here',
        ),
        event(
            "llm.tool.failed",
            3,
            tenant=tenant,
            turn_id="a",
            tool_call_id="c2",
            name="search",
            error="timeout",
        ),
        chat("b", second, at=4, tenant=tenant, kind="failed", error="busy"),
        chat("b", second, assistant("found"), at=5, tenant=tenant),
        chat("c", third, assistant("welcome"), at=7, lasts=1, tenant=tenant),
        chat("d", third, assistant("any time"), at=9, lasts=1, tenant=tenant),
    )
    found = trajectories(paths, tenant)
    assert found.keys() == {"c", "d"}
    path = found["d"]
    assert path["turns"] == ["a", "b", "d"]
    assert path["node_ids"][0] == path["root_node_id"] == found["c"]["root_node_id"]
    assert path["node_ids"][-1] == path["leaf_node_id"] == path["trajectory_id"]
    assert texts(paths, path) == ["find it", None, "here", "no", "found", "thanks", "any time"]
    counted = {
        "turn_count": 3,
        "message_count": 7,
        "tool_call_count": 2,
        "tool_error_count": 1,
        "retry_count": 2,
        "recovery_count": 2,
        "prompt_tokens": 21,
        "completion_tokens": 9,
        "total_tokens": 30,
        "duration_ms": 10_000,
        "model_ms": 3_500,
        "outcome": "completed",
    }
    assert {name: path[name] for name in counted} == counted
    assert found["c"]["retry_count"] == 1


ENDS = {
    "answered": ({"answers": [assistant("yes")]}, "completed"),
    "asks": ({"answers": [assistant(None, tool_calls=[call("1", "f")])]}, "awaiting_tools"),
    "broken": ({"answers": [], "kind": "failed"}, "failed"),
    "stopped": ({"answers": [assistant("ye")], "kind": "interrupted"}, "interrupted"),
    "too_long": ({"answers": [assistant("yes, b")], "finish_reason": "length"}, "cut_off"),
    "hidden": ({"answers": [assistant("")], "finish_reason": "content_filter"}, "cut_off"),
}


def test_how_a_path_ends(paths, tell):
    calls = []
    for name, (last, _) in ENDS.items():
        others = {key: value for key, value in last.items() if key != "answers"}
        calls.append(chat("a", [user("q")], *last["answers"], tenant=name, **others))
    tell(*calls)
    for name, (last, outcome) in ENDS.items():
        path = trajectories(paths, name)["a"]
        assert (path["outcome"], path["message_count"]) == (outcome, 1 + len(last["answers"]))


def test_each_choice_is_an_end_with_its_own_answer(paths, tell):
    tell(chat("a", [user("q")], assistant("one"), assistant("two"), tenant="choices"))
    found = trajectories(paths, "choices")
    assert {end: texts(paths, path) for end, path in found.items()} == {
        "a": ["q", "one"],
        "a/1": ["q", "two"],
    }


def test_a_conversation_that_goes_on_keeps_its_former_end(paths, tell):
    tenant = "goes on"
    one = [user("q")]
    two = [*one, assistant("a"), user("r")]
    three = [*two, assistant("b"), user("s")]
    tell(chat("t1", one, assistant("a"), at=0, tenant=tenant))
    before = trajectories(paths, tenant)["t1"]
    tell(chat("t2", two, assistant("b"), at=10, tenant=tenant))
    tell(
        chat("t3", three, assistant("c"), at=20, tenant=tenant),
        chat("t4", three, assistant("d"), at=30, tenant=tenant),
    )
    assert trajectories(paths, tenant).keys() == {"t3", "t4"}
    former = trajectories(paths, tenant, "superseded_by is not null")
    assert former.keys() == {"t1", "t2"}
    # In the first way in which it went on.
    ends = {path["superseded_by"] for path in former.values()}
    assert ends == {trajectories(paths, tenant)["t3"]["trajectory_id"]}
    same = {name: before[name] for name in before if name not in ("_batch", "superseded_by")}
    assert {name: former["t1"][name] for name in same} == same


@pytest.mark.soak
def test_what_a_late_parent_takes_away_lets_a_path_end_again(paths, tell):
    """`b` seems to go on from `a`, until it is told that it went on from `c`, which came late."""
    tenant = "late parent"
    asked = [user("q"), assistant("a"), user("r")]
    tell(
        chat("a", [user("q")], assistant("a"), at=0, tenant=tenant, session="one"),
        chat("b", asked, assistant("b"), at=10, tenant=tenant, session="two", parent_turn_id="c"),
    )
    assert trajectories(paths, tenant).keys() == {"b"}
    tell(chat("c", [user("q")], assistant("a"), at=5, tenant=tenant, session="two"))
    found = trajectories(paths, tenant)
    assert found.keys() == {"a", "b"}
    assert found["b"]["turns"] == ["c", "b"]


def test_replays_end_no_original(paths, tell):
    tenant = "replayed"
    asked = [user("q"), assistant("a"), user("r")]
    replay = {"is_replay": True, "replay_run_id": "run", "context_anchor_turn_id": "b"}
    tell(
        chat("a", [user("q")], assistant("a"), at=0, tenant=tenant),
        chat("r", asked, assistant("other"), at=50, tenant=tenant, **replay),
    )
    found = trajectories(paths, tenant)
    assert found.keys() == {"a", "r"}
    assert [found[end]["is_replay"] for end in ("a", "r")] == [False, True]
    assert found["r"]["turns"] == ["a", "r"]


@pytest.mark.soak
def test_a_record_that_comes_late_changes_the_path(paths, tell):
    """The gateway first recorded that the request failed, then its answer."""
    tenant = "recorded late"
    failed = chat("a", [user("q")], at=0, tenant=tenant, kind="failed")
    tell(failed)
    assert trajectories(paths, tenant)["a"]["outcome"] == "failed"
    tell(chat("a", [user("q")], assistant("yes"), at=5, tenant=tenant))
    path = trajectories(paths, tenant)["a"]
    assert (path["outcome"], path["retry_count"]) == ("completed", 1)
    assert texts(paths, path) == ["q", "yes"]
    versions = recorded_again(failed, 60, model_snapshot_id="m@2")
    tell(versions)
    assert trajectories(paths, tenant)["a"]["_batch"] == path["_batch"]


@pytest.mark.soak
@pytest.mark.parametrize("answers_of", [answers_of_trees, answers_of_list])
def test_real_trees_in_any_number_of_builds(paths, tell, real_data, answers_of):
    """Every answer from which no other goes on ends a path, which is its path in the tree."""
    name = {answers_of_trees: "trees.jsonl", answers_of_list: "messages.json"}[answers_of]
    answers = answers_of(real_data / "openassistant" / name)
    events = requests_for(answers, name)
    random.Random(7).shuffle(events)
    third = len(events) // 3
    for part in (events[:third], events[third : 2 * third], events[2 * third :]):
        tell(*part)
    by_id = {answer.identity: answer for answer in answers}
    continued = {answer.parent for answer in answers}
    expected = {}
    for answer in answers:
        if answer.identity in continued:
            continue
        way = [answer]
        while way[-1].parent:
            way.append(by_id[way[-1].parent])
        expected[answer.identity] = [each.identity for each in reversed(way)]
    found = trajectories(paths, name)
    assert {end: path["turns"] for end, path in found.items()} == expected
    for end, path in random.Random(8).sample(sorted(found.items()), 20):
        said = [message["content"] for message in by_id[end].path] + [by_id[end].text]
        assert texts(paths, path) == said
