"""Labels on their way from the review page into the lake and the models."""

from __future__ import annotations

import csv
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from dlt_sources import load
from loreline.errors import LorelineError
from loreline.postgres import connect
from loreline.review.categories import read_categories
from loreline.review.store import Store
from loreline.review.verdicts import Verdict
from tests.end_to_end.lakehouse import temporary_lakehouse
from tests.reviewing import add_reviewers, in_review, pair, put, trajectory

LABELS = ["--changed", "--select", "+human_eval_labels", "label_categories"]


@pytest.fixture(scope="module")
def lakehouse(stack, tmp_path_factory):
    with temporary_lakehouse(stack, tmp_path_factory.mktemp("review")) as lakehouse:
        yield lakehouse


@pytest.fixture(autouse=True)
def _nobody_else(lakehouse):
    """Each test has reviewers and items of its own, in a lakehouse that others have filled."""
    put(lakehouse.settings)


def said(lakehouse, statement, *parameters):
    with connect(lakehouse.settings, autocommit=True) as connection:
        return in_review(connection, lakehouse.settings, statement, *parameters).fetchall()


def judge(lakehouse, reviewer, *verdicts):
    """Judge the next items."""
    with connect(lakehouse.settings, autocommit=True) as connection:
        store = Store(connection, lakehouse.settings)
        for verdict in verdicts:
            item = store.take(reviewer)
            store.label(item.queue_item_id, reviewer, item.content_sha256, verdict)


def undo(lakehouse, reviewer):
    with connect(lakehouse.settings, autocommit=True) as connection:
        assert Store(connection, lakehouse.settings).undo(reviewer)


def test_labels_reach_the_model_and_so_do_undos(lakehouse):
    put(lakehouse.settings, pair("p1", priority=2), trajectory("t1"))
    add_reviewers(lakehouse.settings, "ann")
    comment = 'says "x"\n\u202e<b>'
    judge(
        lakehouse,
        "ann",
        Verdict(preferred="b", strength=3, comment=comment),
        Verdict(score=2, categories=["overlong", "tool_misuse"]),
    )
    done = lakehouse.command("ingest", "review", "--json")
    assert json.loads(done.output)[0]["landed"] == {"labels": 2}
    lakehouse.build(*LABELS)
    columns = (
        "kind, pair_id, leaf_node_ids, preferred, strength, categories, score, comment,"
        " is_withdrawn"
    )
    query = (
        f"select {columns} from {{lake}}evaluation.human_eval_labels where reviewer = 'ann'"
        " order by kind, labelled_at"
    )
    judged = [
        ("pair", "pair-p1", ["p1-a", "p1-b"], "b", 3, None, None, comment, False),
        ("trajectory", None, ["leaf-t1"], None, None, ["overlong", "tool_misuse"], 2, None, False),
    ]
    assert lakehouse.query(query) == judged

    undo(lakehouse, "ann")
    judge(lakehouse, "ann", Verdict(score=5, categories=[]))
    lakehouse.command("ingest", "review")
    lakehouse.build(*LABELS)
    assert lakehouse.query(query) == [
        judged[0],
        (*judged[1][:-1], True),
        ("trajectory", None, ["leaf-t1"], None, None, [], 5, None, False),
    ]
    verdicts = lakehouse.query(
        "select verdict from {lake}evaluation.human_eval_labels"
        " where reviewer = 'ann' and kind = 'pair'"
    )
    assert json.loads(verdicts[0][0]) == {
        "preferred": "b",
        "strength": 3,
        "categories": None,
        "score": None,
    }


def test_what_has_landed_lands_no_second_time_and_is_not_built_again(lakehouse):
    put(lakehouse.settings, trajectory("t2"))
    add_reviewers(lakehouse.settings, "bob")
    judge(lakehouse, "bob", Verdict(score=3))
    lakehouse.land("review", None)
    lakehouse.build(*LABELS)
    snapshots = lakehouse.snapshots()
    summary = lakehouse.land("review", None)
    assert (summary.rows, summary.outdated) == (0, 0)
    assert summary.unchanged > 0
    lakehouse.build(*LABELS)
    assert lakehouse.snapshots() == snapshots


def test_an_item_that_goes_on_or_away_keeps_its_label(lakehouse):
    put(lakehouse.settings, trajectory("t3"))
    add_reviewers(lakehouse.settings, "cleo")
    judge(lakehouse, "cleo", Verdict(score=1))
    longer = {**trajectory("t3"), "leaf_node_ids": ["later"]}
    content = json.loads(longer["content"])
    content["sides"][0]["leaf_node_id"] = "later"
    put(lakehouse.settings, {**longer, "content": json.dumps(content)})
    put(lakehouse.settings)
    lakehouse.land("review", None)
    lakehouse.build(*LABELS)
    found = lakehouse.query(
        "select leaf_node_ids, score from {lake}evaluation.human_eval_labels"
        " where reviewer = 'cleo'"
    )
    assert found == [(["leaf-t3"], 1)]


@contextmanager
def busy_reviewers(lakehouse, names: list[str]) -> Iterator[None]:
    """People who judge, take back and judge again, until the block ends.

    Others commit late, so that numbers of rows become visible out of their order.
    """
    stop = threading.Event()
    failures = []

    def work(name):
        chance = random.Random(name)
        try:
            with connect(lakehouse.settings, autocommit=True) as connection:
                store = Store(connection, lakehouse.settings)
                while not stop.is_set() and (item := store.take(name)):
                    store.label(
                        item.queue_item_id,
                        name,
                        item.content_sha256,
                        Verdict(score=chance.randint(1, 5)),
                    )
                    if chance.random() < 0.2:
                        store.undo(name)
                    time.sleep(chance.random() / 50)
        except Exception as error:
            failures.append(error)

    def commit_late():
        try:
            while not stop.is_set():
                with connect(lakehouse.settings) as connection:
                    in_review(
                        connection,
                        lakehouse.settings,
                        "insert into {0}.labels (queue_item_id, kind, leaf_node_ids,"
                        " content_sha256, reviewer, origin, score) select queue_item_id, kind,"
                        " leaf_node_ids, content_sha256, 'late', 'argilla', 3 from {0}.items"
                        " order by random() limit 1",
                    )
                    time.sleep(0.3)
                    connection.commit()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=[name]) for name in names]
    threads.append(threading.Thread(target=commit_late))
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


@pytest.mark.soak
def test_labels_written_while_they_land_and_are_built_come_once(lakehouse, monkeypatch):
    for name, value in lakehouse.settings.environment().items():
        monkeypatch.setenv(name, value)
    put(lakehouse.settings, *(trajectory(f"busy-{n:04}") for n in range(3_000)))
    names = ["dan", "eve", "fay"]
    add_reviewers(lakehouse.settings, *names)
    landed = []
    with busy_reviewers(lakehouse, names):
        building = None
        for _ in range(6):
            landed.append(load(lakehouse.settings, "review").rows)
            if building is None or not building.is_running():
                building = lakehouse.start_build(*LABELS)
        assert not building.result().faults
    landed.append(load(lakehouse.settings, "review").rows)
    lakehouse.build(*LABELS)
    assert sum(bool(rows) for rows in landed) >= 3, landed
    assert load(lakehouse.settings, "review").rows == 0

    states = dict(
        said(lakehouse, "select label_id::text, withdrawn_at is not null from {}.label_states")
    )
    assert len(states) > 50
    assert {*states.values()} == {True, False}
    built = lakehouse.query("select label_id, is_withdrawn from {lake}evaluation.human_eval_labels")
    assert len(built) == len(states)
    assert dict(built) == states
    twice = lakehouse.query(
        "select external_id, is_deleted from {lake}raw_review.labels"
        " group by all having count(*) > 1"
    )
    assert twice == []


def test_the_page_offers_the_categories_that_were_built(lakehouse):
    lakehouse.build(*LABELS)
    found = read_categories(lakehouse.settings)
    with (lakehouse.project / "seeds" / "label_categories.csv").open() as file:
        wanted = {row["category"]: row["key"] for row in csv.DictReader(file)}
    assert {each.category: each.key for each in found} == wanted


def test_a_review_is_in_postgres_and_nowhere_else(lakehouse):
    with pytest.raises(LorelineError, match="review is read from the stores"):
        load(lakehouse.settings, "review", "somewhere")
    with pytest.raises(LorelineError, match="slack is read from a file or folder"):
        load(lakehouse.settings, "slack")
    done = lakehouse.command("ingest", "review", "--from", "somewhere")
    assert (done.exit_code, "read from files" in done.errors) == (1, True)
