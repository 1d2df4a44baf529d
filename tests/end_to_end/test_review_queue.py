"""From traffic to what people are asked, and from what they say back into the tables."""

import json

import pytest

from loreline.postgres import connect
from loreline.review.store import Store
from loreline.review.verdicts import Verdict
from tests.end_to_end.forest import (
    assistant,
    call,
    chat,
    event,
    system,
    tool,
    user,
)
from tests.end_to_end.lakehouse import temporary_lakehouse
from tests.reviewing import add_reviewers

BUILD = ("--changed", "--select", "+review_items", "--exclude-resource-type", "unit_test")


@pytest.fixture
def judged(stack, tmp_path):
    """A lakehouse of one test."""
    with temporary_lakehouse(stack, tmp_path / "judged") as lakehouse:
        yield lakehouse


def tell(lakehouse, *events):
    lakehouse.land_events(events)
    lakehouse.build(*BUILD)


def content(lakehouse, kind):
    """What reviewers are shown, by item."""
    return {
        item: json.loads(shown)
        for item, shown in lakehouse.execute(
            "select queue_item_id, content::text from {review}.items"
            " where kind = %s and withdrawn_at is null",
            kind,
        )
    }


@pytest.mark.soak
def test_what_people_say_of_traffic_reaches_the_models(judged):
    asked = [system("Be brief."), user("What is it?")]
    calls = assistant(None, tool_calls=[call("c1", "search", '{"q": "it"}')])
    looked = [user("Look it up."), calls, tool("c1", "It is 42.")]
    tell(
        judged,
        chat("one", asked, assistant("A thing."), at=0, session="a"),
        chat("other", asked, assistant("It is a thing."), at=1, session="a"),
        chat("t1", looked[:1], calls, at=10, session="b"),
        chat("t2", looked, assistant("It is 42."), at=20, session="b"),
        event("feedback.ranked", 30, tenant="t", turn_id="one", rank=0, labeller="x"),
        event("feedback.ranked", 30, tenant="t", turn_id="other", rank=1, labeller="x"),
    )
    # The pair was ranked by somebody, so that nobody is asked, until somebody differs.
    assert content(judged, "pair") == {}
    shown = content(judged, "trajectory")
    assert len(shown) == 3
    looked_up = next(c for c in shown.values() if len(c["sides"][0]["messages"]) == 4)
    assert [m["role"] for m in looked_up["sides"][0]["messages"]] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]
    called = looked_up["sides"][0]["messages"][1]["tool_calls"][0]
    assert called["function"]["name"] == "search"
    assert any(c["context"] == [{"role": "system", "content": "Be brief."}] for c in shown.values())

    tell(
        judged,
        event("feedback.scored", 40, tenant="t", turn_id="one", score=0.1, labeller="y"),
        event("feedback.scored", 40, tenant="t", turn_id="other", score=0.9, labeller="y"),
    )
    (pair,) = content(judged, "pair").values()
    assert pair["context"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is it?"},
    ]
    assert [side["messages"][0]["content"] for side in pair["sides"]] == [
        "A thing.",
        "It is a thing.",
    ]

    add_reviewers(judged.settings, "ann")
    with connect(judged.settings, autocommit=True) as connection:
        store = Store(connection, judged.settings)
        while item := store.take("ann"):
            verdict = (
                Verdict(preferred="b", strength=2)
                if item.kind == "pair"
                else Verdict(score=4, categories=["overlong"])
            )
            store.label(item.queue_item_id, "ann", item.content_sha256, verdict)
    judged.command("ingest", "review")
    judged.build(*BUILD)
    assert judged.query(
        "select category, labeller_version, count(*) from {lake}evaluation.cluster_category_labels"
        " where labeller = 'human' and not is_withdrawn group by all"
    ) == [("overlong", "ann", 3)]
    assert judged.query(
        "select labeller, preferred from {lake}evaluation.preference_labels order by all"
    ) == [("human", "b"), ("rank", "a"), ("reward", "b")]
    assert judged.query("select preferred from {lake}evaluation.preference_consensus") == [("b",)]
    assert judged.query(
        "select status, count(*) from {lake}evaluation.human_sample_queue group by all"
    ) == [("judged", 4)]

    # A conversation that was judged goes on: its label stays, and its new end is asked for.
    more = [*looked, assistant("It is 42."), user("Thanks.")]
    tell(judged, chat("t3", more, assistant("Welcome."), at=60, session="b"))
    assert judged.query(
        "select units.superseded_by is not null, count(*)"
        " from {lake}evaluation.cluster_category_labels as labels"
        " inner join {lake}evaluation.trajectory_units as units"
        " on labels.subject_id = units.trajectory_id"
        " where labels.labeller = 'human' and not labels.is_withdrawn group by all order by all"
    ) == [(False, 2), (True, 1)]
    assert judged.query(
        "select status, count(*) from {lake}evaluation.human_sample_queue"
        " where kind = 'trajectory' group by all order by all"
    ) == [("judged", 3), ("open", 1)]

    with connect(judged.settings, autocommit=True) as connection:
        store = Store(connection, judged.settings)
        while store.undo("ann"):
            pass
    judged.command("ingest", "review")
    judged.build(*BUILD)
    assert (
        judged.query(
            "select 1 from {lake}evaluation.cluster_category_labels"
            " where labeller = 'human' and not is_withdrawn"
        )
        == []
    )
    # What is left: a rank against a score, which weighs less.
    assert judged.query("select preferred from {lake}evaluation.preference_consensus") == [("a",)]
