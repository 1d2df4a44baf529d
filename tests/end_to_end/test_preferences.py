"""Pairs of responses to one request, and who prefers which."""

import json
from collections import Counter, defaultdict
from itertools import combinations

import pytest

from tests.end_to_end.forest import (
    answers_of_trees,
    assistant,
    call,
    chat,
    event,
    rank_events,
    ranked,
    requests_for,
    sampling_requests,
    user,
)
from tests.end_to_end.lakehouse import temporary_lakehouse

BUILD = (
    "--changed",
    "--select",
    "+preference_consensus",
    "--exclude-resource-type",
    "unit_test",
)


@pytest.fixture(scope="module")
def pairs_lakehouse(stack, tmp_path_factory):
    """A lakehouse of these tests, each with a tenant of its own."""
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("pairs")) as lakehouse:
        yield lakehouse


@pytest.fixture
def tell(pairs_lakehouse):
    """A function that lands events and builds."""

    def landed(*events):
        pairs_lakehouse.land_events(events)
        pairs_lakehouse.build(*BUILD)

    return landed


def pairs_of(lakehouse, tenant, wanted=True):
    """Pairs of a tenant as turns and choices of either side, with the row of the pair."""
    with lakehouse.lake() as connection:
        result = connection.execute(
            lakehouse.with_names(
                "select one.turn_id || '/' || one.choice_index as turn_a,"
                " other.turn_id || '/' || other.choice_index as turn_b, pairs.*"
                " from {lake}evaluation.candidate_preference_pairs as pairs"
                " inner join {lake}conversations.conversation_links as one"
                " on pairs.node_a = one.branch_node_id"
                " inner join {lake}conversations.conversation_links as other"
                " on pairs.node_b = other.branch_node_id"
                " where pairs.tenant = $1 and pairs.is_wanted = $2"
            ),
            [tenant, wanted],
        )
        names = [column[0] for column in result.description]
        found = [dict(zip(names, row, strict=True)) for row in result.fetchall()]
    return {(row["turn_a"], row["turn_b"]): row for row in found}


def labels_of(lakehouse, tenant):
    """Labels of a tenant as (turn of one side, of the other, labeller, preferred)."""
    return lakehouse.query(
        "select one.turn_id, other.turn_id, labels.labeller, labels.preferred, labels.strength"
        " from {lake}evaluation.preference_labels as labels"
        " inner join {lake}evaluation.candidate_preference_pairs as pairs using (pair_id)"
        " inner join {lake}conversations.conversation_links as one"
        " on pairs.node_a = one.branch_node_id"
        " inner join {lake}conversations.conversation_links as other"
        " on pairs.node_b = other.branch_node_id"
        " where pairs.tenant = $1 order by all",
        tenant,
    )


def test_only_what_is_worth_comparing_is_paired(pairs_lakehouse, tell):
    """Two good answers; one repeated, one empty, one cut off, one failed; another question."""
    tenant = "worth"
    asked = [user("q")]
    cut = chat("cut", asked, assistant("an answer that is cut"), at=3, tenant=tenant)
    cut["data"]["response"]["choices"][0]["finish_reason"] = "length"
    tell(
        chat("one", asked, assistant("first"), assistant("another one"), at=0, tenant=tenant),
        chat("same", asked, assistant("first"), at=1, tenant=tenant),
        chat("empty", asked, assistant(" "), at=2, tenant=tenant),
        cut,
        chat("failed", asked, at=4, tenant=tenant, kind="failed"),
        chat("calls", asked, assistant(None, tool_calls=[call("1", "f")]), at=5, tenant=tenant),
        chat("else", [user("another")], assistant("first"), at=6, tenant=tenant),
        chat("theirs", asked, assistant("theirs"), at=7, tenant="another tenant"),
        chat("tools", asked, assistant("x"), at=8, tenant=tenant, request={"tools": [{"a": 1}]}),
    )
    found = pairs_of(pairs_lakehouse, tenant)
    assert found.keys() == {
        ("one/0", "one/1"),
        ("one/0", "calls/0"),
        ("one/1", "calls/0"),
    }
    pair = found["one/0", "one/1"]
    assert (pair["length_a"], pair["length_b"]) == (5, 11)


def test_replays_are_paired_with_originals_only_where_both_were_asked_the_same(
    pairs_lakehouse, tell
):
    tenant = "replays"
    asked = [user("q")]
    replay = {"is_replay": True, "replay_run_id": "run", "context_anchor_turn_id": "original"}
    model = {"model": "another"}
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}
    tell(
        chat("original", asked, assistant("first"), at=0, tenant=tenant),
        chat("again", asked, assistant("second"), at=1, tenant=tenant, **replay),
        chat("model", asked, assistant("third"), at=2, tenant=tenant, request=model, **replay),
        chat("tools", asked, assistant("fourth"), at=3, tenant=tenant, request=tools, **replay),
    )
    found = pairs_of(pairs_lakehouse, tenant)
    assert {pair: row["reason"] for pair, row in found.items()} == {
        ("original/0", "again/0"): "replay",
        ("original/0", "model/0"): "other model",
        ("again/0", "model/0"): "other model",
    }


@pytest.mark.soak
def test_labels_ties_and_contradictions_are_kept(pairs_lakehouse, tell):
    tenant = "labels"
    asked = [user("q")]
    tell(*(chat(t, asked, assistant(t * 3), at=n, tenant=tenant) for n, t in enumerate("abc")))
    assert labels_of(pairs_lakehouse, tenant) == []
    score = {"labeller": "reward-1"}
    tell(
        ranked("a", 1, 10, tenant),
        ranked("b", 0, 11, tenant),
        event("feedback.scored", 12, tenant=tenant, turn_id="a", score=0.9, **score),
        event("feedback.scored", 13, tenant=tenant, turn_id="b", score=0.4, **score),
        event("feedback.scored", 14, tenant=tenant, turn_id="c", score=0.4, **score),
    )
    assert labels_of(pairs_lakehouse, tenant) == [
        ("a", "b", "rank", "b", 1.0),
        ("a", "b", "reward", "a", 0.5),
        ("a", "c", "reward", "a", 0.5),
        ("b", "c", "reward", "tie", 0.0),
    ]
    together = {
        turn: (preferred, disputed)
        for turn, preferred, disputed in pairs_lakehouse.query(
            "select one.turn_id || other.turn_id, consensus.preferred, consensus.is_disputed"
            " from {lake}evaluation.preference_consensus as consensus"
            " inner join {lake}evaluation.candidate_preference_pairs as pairs using (pair_id)"
            " inner join {lake}conversations.conversation_links as one"
            " on pairs.node_a = one.branch_node_id"
            " inner join {lake}conversations.conversation_links as other"
            " on pairs.node_b = other.branch_node_id where pairs.tenant = $1",
            tenant,
        )
    }
    # People who ranked weigh twice what a score does.
    assert together == {"ab": ("b", True), "ac": ("a", False), "bc": ("undecided", False)}
    tell(ranked("b", 5, 60, tenant))
    assert ("a", "b", "rank", "a", 4.0) in labels_of(pairs_lakehouse, tenant)


@pytest.mark.soak
def test_ranks_of_real_trees(pairs_lakehouse, tell, real_data):
    """212 sets of ranked siblings, 754 pairs; the better rank is the one that is preferred."""
    file = real_data / "openassistant" / "trees.jsonl"
    answers = answers_of_trees(file)
    tell(*requests_for(answers, "trees"), *rank_events(file, "trees"))
    rank = {e["data"]["turn_id"]: e["data"]["rank"] for e in rank_events(file, "trees")}
    siblings = defaultdict(list)
    for answer in answers:
        if answer.identity in rank:
            siblings[json.dumps(answer.path)].append(answer.identity)
    sets = [members for members in siblings.values() if len(members) > 1]
    expected = {frozenset(pair) for members in sets for pair in combinations(members, 2)}
    assert (len(sets), len(expected)) == (212, 754)
    labels = labels_of(pairs_lakehouse, "trees")
    assert {frozenset((one, other)) for one, other, *_ in labels} == expected
    assert len(labels) == 754
    for one, other, labeller, preferred, strength in labels:
        assert labeller == "rank"
        assert rank[{"a": one, "b": other}[preferred]] == min(rank[one], rank[other])
        assert strength == abs(rank[one] - rank[other])


def test_equal_samplings_are_in_no_pair(pairs_lakehouse, tell, real_data):
    """100 prompts with 7 outputs, 88 of which equal another one of their prompt."""
    file = real_data / "openassistant" / "sampling_12b.json"
    events = sampling_requests(file, "sampling")
    tell(*events)
    outputs = defaultdict(Counter)
    for each in events:
        data = each["data"]
        text = data["response"]["choices"][0]["message"]["content"]
        outputs[data["request"]["messages"][0]["content"]][text] += 1
    assert [sum(count.values()) for count in outputs.values()] == [7] * 100
    assert sum(sum(count.values()) - len(count) for count in outputs.values()) == 88
    found = pairs_of(pairs_lakehouse, "sampling")
    kept = {turn for pair in found for turn in pair}
    distinct = [sum(len(text.strip()) > 1 for text in count) for count in outputs.values()]
    assert len(kept) == sum(each for each in distinct if each > 1)
    assert len(found) == sum(each * (each - 1) // 2 for each in distinct)
