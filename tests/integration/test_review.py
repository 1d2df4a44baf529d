"""Items, reviewers and labels in a real Postgres."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pyarrow as pa
import pytest

from loreline.cli import main
from loreline.errors import LorelineError
from loreline.postgres import connect
from loreline.review.items import ITEM_SCHEMA, Changes, put_items, states
from loreline.review.reviewers import Reviewers
from loreline.review.store import ItemGoneError, Store
from loreline.review.verdicts import Verdict
from loreline.settings import Settings
from tests.reviewing import add_reviewers, in_review, pair, put, rows, trajectory

GOOD = Verdict(score=4, categories=["tool_helped"])
FIRST = Verdict(preferred="a", strength=2)


@pytest.fixture
def connection(settings: Settings) -> Iterator[psycopg.Connection]:
    with connect(settings, autocommit=True) as connection:
        yield connection


@pytest.fixture
def store(settings: Settings, connection: psycopg.Connection) -> Store:
    add_reviewers(settings, "ann", "bob", "cleo")
    return Store(connection, settings)


def taken(store: Store, reviewer: str) -> str | None:
    item = store.take(reviewer)
    return item and item.queue_item_id


def label(store: Store, reviewer: str, verdict: Verdict = GOOD) -> str:
    item = store.take(reviewer)
    assert item
    store.label(item.queue_item_id, reviewer, item.content_sha256, verdict)
    return item.queue_item_id


def test_a_push_touches_only_what_changed_and_withdraws_what_is_gone(settings):
    items = [trajectory("one"), trajectory("two"), pair("three")]
    assert put(settings, *items) == Changes(added=3, changed=0, unchanged=0, withdrawn=0)
    pushed = "select queue_item_id, xmin::text from {}.items order by 1"
    before = rows(settings, pushed)
    assert put(settings, *items) == Changes(added=0, changed=0, unchanged=3, withdrawn=0)
    assert rows(settings, pushed) == before
    changed = pair("three", a="another answer")
    assert put(settings, items[0], changed) == Changes(0, changed=1, unchanged=1, withdrawn=1)
    assert put(settings, *items[:2], changed) == Changes(0, changed=1, unchanged=2, withdrawn=0)
    assert put(settings) == Changes(0, 0, 0, withdrawn=3)


def test_an_item_that_is_gone_keeps_its_labels_and_itself(settings, store, connection):
    put(settings, trajectory("one"))
    label(store, "ann")
    put(settings, trajectory("two"))
    held = states(connection, settings)
    assert [(s.queue_item_id, s.is_withdrawn, s.labels) for s in held] == [
        ("one", True, 1),
        ("two", False, 0),
    ]
    assert taken(store, "bob") == "two"


def test_what_is_no_item_is_refused_and_nothing_changes(settings):
    put(settings, trajectory("one"))
    bad = [
        {**trajectory("x"), "kind": "image"},
        {**trajectory("x"), "pair_id": "p"},
        {**trajectory("x"), "leaf_node_ids": ["another"]},
        {**trajectory("x"), "content": '{"context": []}'},
        {**trajectory("x"), "content": "{"},
        {**trajectory("x"), "reason": None},
        {**pair("x"), "pair_id": None},
    ]
    for item in bad:
        with pytest.raises(LorelineError, match="item x cannot be reviewed"):
            put(settings, trajectory("two"), item)
    with pytest.raises(LorelineError, match="refused an item"):
        put(settings, trajectory("two"), trajectory("two"))
    assert rows(settings, "select queue_item_id, withdrawn_at from {}.items") == [("one", None)]


def test_null_characters_and_lone_surrogates_arrive_as_they_are(settings, store):
    said = {"role": "user", "content": "a\x00b\ud800c\x1b"}
    put(settings, trajectory("one", said))
    assert store.take("ann").sides == [[said]]


def test_items_come_by_priority_and_each_is_open_for_one(settings, store):
    put(settings, trajectory("low", priority=0.1), trajectory("high", priority=9), pair("mid"))
    assert taken(store, "ann") == "high"
    assert taken(store, "ann") == "high"
    assert taken(store, "bob") == "mid"
    assert taken(store, "cleo") == "low"
    add_reviewers(settings, "dan")
    assert taken(store, "dan") is None
    assert label(store, "ann") == "high"
    assert taken(store, "ann") is None


def test_many_who_take_at_once_get_different_items(settings, store):
    names = [f"reviewer-{n}" for n in range(12)]
    add_reviewers(settings, *names)
    put(settings, *(trajectory(f"item-{n:02}") for n in range(40)))
    got: dict[str, list[str]] = {name: [] for name in names}
    gate = threading.Barrier(len(names))

    def work(name: str) -> None:
        with connect(settings, autocommit=True) as connection:
            own = Store(connection, settings)
            gate.wait()
            while item := own.take(name):
                got[name].append(item.queue_item_id)
                own.label(item.queue_item_id, name, item.content_sha256, GOOD)

    threads = [threading.Thread(target=work, args=[name]) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    judged = [item for items in got.values() for item in items]
    assert sorted(judged) == [f"item-{n:02}" for n in range(40)]
    assert rows(settings, "select count(*) from {}.labels") == [(40,)]


def test_a_lock_runs_out_unless_it_is_renewed(settings, store, connection):
    put(settings, trajectory("one"))
    item = store.take("ann")
    assert store.renew("one", "ann")
    assert not store.renew("one", "bob")
    _expire(connection, settings)
    assert not store.renew("one", "ann")
    # Nobody else has taken it: what ann has written is not lost.
    store.label("one", "ann", item.content_sha256, GOOD)
    assert rows(settings, "select reviewer from {}.labels") == [("ann",)]


def test_who_was_away_too_long_cannot_judge_what_somebody_else_has_open(
    settings, store, connection
):
    put(settings, trajectory("one"))
    item = store.take("ann")
    _expire(connection, settings)
    assert taken(store, "bob") == "one"
    assert taken(store, "ann") is None
    with pytest.raises(ItemGoneError, match="somebody else has that item open"):
        store.label("one", "ann", item.content_sha256, GOOD)
    label(store, "bob")
    with pytest.raises(ItemGoneError, match="others have finished"):
        store.label("one", "ann", item.content_sha256, GOOD)
    assert rows(settings, "select reviewer from {}.labels") == [("bob",)]


def test_a_verdict_on_what_has_changed_meanwhile_is_not_taken(settings, store):
    put(settings, pair("one"))
    seen = store.take("ann")
    put(settings, pair("one", a="something else"))
    with pytest.raises(ItemGoneError, match="has changed"):
        store.label("one", "ann", seen.content_sha256, FIRST)
    label(store, "ann", FIRST)
    assert rows(settings, "select count(*) from {}.labels") == [(1,)]


def test_a_push_under_way_holds_up_only_who_judges_what_it_changes(settings, store, connection):
    put(settings, pair("one"), pair("two"), pair("three"))
    seen = store.take("ann")
    changed = pa.Table.from_pylist(
        [pair("one", a="another answer"), pair("two"), pair("three")], schema=ITEM_SCHEMA
    )
    outcome = []

    def judge_it() -> None:
        with connect(settings, autocommit=True) as connection:
            try:
                own = Store(connection, settings)
                own.label(seen.queue_item_id, "ann", seen.content_sha256, FIRST)
            except ItemGoneError as error:
                outcome.append(str(error))

    assert seen.queue_item_id == "one"
    thread = threading.Thread(target=judge_it)
    # Rather an error than a test that waits for itself.
    connection.execute("set lock_timeout = '20s'")
    with connect(settings) as pushing, pushing.transaction():
        put_items(pushing, settings, changed.to_batches())
        other = store.take("bob")
        store.label(other.queue_item_id, "bob", other.content_sha256, FIRST)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive()
    thread.join()
    assert outcome == ["that item has changed since it was shown: look at it again"]
    assert rows(settings, "select reviewer from {}.labels") == [("bob",)]


def test_a_verdict_that_is_sent_twice_is_kept_once(settings, store):
    put(settings, trajectory("one"), trajectory("two"))
    item = store.take("ann")
    for _ in range(2):
        store.label(item.queue_item_id, "ann", item.content_sha256, GOOD)
    assert rows(settings, "select count(*) from {}.labels") == [(1,)]


def test_an_item_wants_labels_of_so_many_reviewers(settings, store, connection):
    store = Store(connection, replace(settings, review_labels="2"))
    put(settings, trajectory("one"))
    label(store, "ann")
    assert taken(store, "ann") is None
    assert store.progress("ann").open == 1
    label(store, "bob")
    assert taken(store, "cleo") is None
    assert (store.progress("cleo").done, store.progress("cleo").open) == (1, 0)


@pytest.mark.parametrize("value", ["0", "many", "", "-1", "1.5"])
def test_a_setting_that_is_no_number_is_refused(settings, connection, value):
    with pytest.raises(LorelineError, match="LORELINE_REVIEW_LABELS"):
        Store(connection, replace(settings, review_labels=value))


def test_an_undo_withdraws_the_label_and_opens_the_item_again(settings, store):
    put(settings, trajectory("one"), trajectory("two"))
    assert not store.undo("ann")
    label(store, "ann", Verdict(score=2, categories=["overlong"], comment="hm"))
    assert taken(store, "ann") == "two"
    assert store.undo("ann")
    again = store.take("ann")
    assert again.queue_item_id == "one"
    assert again.before == Verdict(score=2, categories=["overlong"], comment="hm")
    assert taken(store, "bob") == "two"
    label(store, "ann", Verdict(score=5, categories=[]))
    assert rows(
        settings, "select score, withdrawn_at is null from {}.label_states order by label_number"
    ) == [(2, False), (5, True)]
    assert store.progress("ann").mine == 1


def test_an_undo_takes_back_the_last_thing_be_it_a_label_or_a_skip(settings, store):
    put(settings, *(trajectory(name) for name in ("one", "three", "two")))
    label(store, "ann")
    store.skip(taken(store, "ann"), "ann")
    label(store, "ann")
    assert taken(store, "ann") is None
    assert store.progress("ann").skipped == 1
    for name in ("two", "three", "one"):
        assert store.undo("ann")
        assert taken(store, "ann") == name
    assert not store.undo("ann")
    assert store.progress("ann").mine == 0


def test_an_undo_waits_for_who_has_the_item_open(settings, store, connection):
    store = Store(connection, replace(settings, review_labels="2"))
    put(settings, trajectory("one"))
    label(store, "ann")
    assert taken(store, "bob") == "one"
    with pytest.raises(ItemGoneError, match="somebody else"):
        store.undo("ann")
    label(store, "bob")
    assert store.undo("ann")


def test_what_was_skipped_goes_to_others_and_comes_back_on_demand(settings, store):
    put(settings, trajectory("one"))
    store.skip(taken(store, "ann"), "ann")
    assert taken(store, "ann") is None
    assert taken(store, "bob") == "one"
    store.skip("one", "bob")
    store.show_skipped("ann")
    assert taken(store, "ann") == "one"


def test_the_order_of_a_pair_is_drawn_once_per_reviewer_and_kept(settings, store):
    put(settings, *(pair(f"item-{n:02}") for n in range(40)))
    orders = []
    for reviewer in ("ann", "bob"):
        for _ in range(20):
            item = store.take(reviewer)
            first = item.sides[0][0]["content"]
            assert first == f"the answer of {'b' if item.is_swapped else 'a'}"
            assert store.take(reviewer).is_swapped == item.is_swapped
            store.label(item.queue_item_id, reviewer, item.content_sha256, FIRST)
            assert store.undo(reviewer)
            assert store.take(reviewer).is_swapped == item.is_swapped
            label(store, reviewer, FIRST)
            orders.append(item.is_swapped)
    assert set(orders) == {True, False}
    kept = rows(
        settings,
        "select bool_and(l.is_swapped = v.is_swapped), count(*) from"
        " {0}.label_states as l join {0}.views as v using (queue_item_id, reviewer)"
        " where withdrawn_at is null",
    )
    assert kept == [(True, 40)]


def test_nobody_is_left_with_an_item_that_was_judged_elsewhere(settings, store, connection):
    put(settings, trajectory("one", priority=3), trajectory("two", priority=2), trajectory("three"))
    elsewhere = (
        "insert into {0}.labels (queue_item_id, kind, leaf_node_ids, content_sha256, reviewer,"
        " origin, score) select queue_item_id, kind, leaf_node_ids, content_sha256, %s,"
        " 'argilla', 3 from {0}.items where queue_item_id = %s"
    )
    item = store.take("ann")
    in_review(connection, settings, elsewhere, "argilla:7", "one")
    with pytest.raises(ItemGoneError, match="others have finished"):
        store.label("one", "ann", item.content_sha256, GOOD)
    item = store.take("ann")
    assert item.queue_item_id == "two"
    in_review(connection, settings, elsewhere, "ann", "two")
    store.label("two", "ann", item.content_sha256, GOOD)
    assert taken(store, "ann") == "three"
    assert rows(settings, "select count(*) from {}.labels") == [(2,)]


def test_labels_are_only_added_to(settings, store, connection):
    put(settings, trajectory("one"))
    label(store, "ann")
    for statement in (
        "update {}.labels set score = 1",
        "delete from {}.labels",
        "truncate {}.labels cascade",
        "delete from {}.items",
    ):
        with pytest.raises(psycopg.Error):
            in_review(connection, settings, statement)
    assert rows(settings, "select score from {}.labels") == [(4,)]


def test_only_hashes_of_tokens_and_logins_are_kept(settings, connection):
    reviewers = Reviewers(connection, settings)
    token = reviewers.add("ann")
    session = reviewers.log_in(token)
    assert reviewers.who(session) == "ann"
    dump = str(rows(settings, "select * from {}.reviewers")) + str(
        rows(settings, "select * from {}.sessions")
    )
    assert token not in dump
    assert session not in dump
    assert reviewers.log_in(token + "x") is None
    assert reviewers.log_in("") is None
    assert reviewers.who("") is None
    reviewers.log_out(session)
    assert reviewers.who(session) is None


def test_who_is_removed_can_do_nothing_any_more_and_may_come_back(settings, connection, store):
    reviewers = Reviewers(connection, settings)
    put(settings, trajectory("one"))
    token = reviewers.add("dan")
    session = reviewers.log_in(token)
    label(store, "dan")
    reviewers.remove("dan")
    assert reviewers.who(session) is None
    assert reviewers.log_in(token) is None
    found = {r.reviewer: (r.is_active, r.labels) for r in reviewers.all()}
    assert found["dan"] == (False, 1)
    with pytest.raises(LorelineError, match="nobody called dan"):
        reviewers.remove("dan")
    with pytest.raises(LorelineError, match="ann reviews already"):
        reviewers.add("ann")
    assert reviewers.log_in(reviewers.add("dan"))
    assert reviewers.log_in(token) is None


@pytest.mark.parametrize("name", ["", " ", "a b", "a\n", "-x", "<b>", "x" * 101])
def test_a_name_that_will_not_do_is_refused(settings, connection, name):
    with pytest.raises(LorelineError, match="no name for a reviewer"):
        Reviewers(connection, settings).add(name)


def test_the_command_adds_lists_and_removes_reviewers(settings, connection, capsys):
    assert main(["reviewer", "add", "ann"]) == 0
    token = capsys.readouterr().out.strip()
    assert Reviewers(connection, settings).log_in(token)
    assert main(["reviewer", "add", "ann"]) == 1
    assert main(["reviewer", "remove", "ann"]) == 0
    capsys.readouterr()
    assert main(["reviewer", "list", "--json"]) == 0
    listed = capsys.readouterr().out
    assert token not in listed
    (ann,) = json.loads(listed)
    assert (ann["reviewer"], ann["is_active"], ann["labels"]) == ("ann", False, 0)


def _expire(connection, settings):
    in_review(connection, settings, "update {}.locks set expires_at = now() - interval '1 s'")


def test_serve_listens_here_and_stops_when_it_is_told(settings):
    put(settings, trajectory("one"))
    command = [sys.executable, "-c", "from loreline.cli import main; raise SystemExit(main())"]
    server = subprocess.Popen(
        [*command, "serve", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        address = server.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/review", address)
        with urllib.request.urlopen(address) as answer:
            assert answer.url == f"{address}/login"
            assert "uvicorn" not in str(answer.headers).lower()
        port = address.split(":")[2].split("/")[0]
        second = subprocess.run(
            [*command, "serve", "--port", port], capture_output=True, text=True, timeout=120
        )
        assert second.returncode == 1
        assert f"cannot listen on 127.0.0.1 port {port}" in second.stderr
    finally:
        server.send_signal(signal.SIGINT)
        said = server.communicate(timeout=60)[1]
    assert server.returncode in (0, 130)
    # The seed was never built here.
    assert "no categories to choose from" in said
    assert "Traceback" not in said
