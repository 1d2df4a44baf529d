"""What all calls of models share: several at once, within limits, and what they took."""

from __future__ import annotations

import threading
import time
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from loreline.calls.budget import Estimate, Limits, Meter, Outcome, check_budget, in_threads
from loreline.calls.endpoint import Reply, header
from loreline.errors import LorelineError

ONE = Estimate(6, 4, Decimal(1))


def test_each_item_is_worked_on_once_and_several_at_once():
    done, at_once, lock = Counter(), [], threading.Lock()
    under_way = set()

    def work(item):
        with lock:
            under_way.add(item)
            at_once.append(len(under_way))
        time.sleep(0.01)
        with lock:
            under_way.discard(item)
            done[item] += 1

    in_threads(iter(range(40)), work, 3, threading.Event())
    assert done == dict.fromkeys(range(40), 1)
    assert max(at_once) == 3


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt])
def test_a_failure_ends_the_work_and_what_is_under_way_is_finished(failure):
    begun, finished = [], []

    def work(item):
        begun.append(item)
        time.sleep(0.02)
        if item == 3:
            raise failure
        finished.append(item)

    stop = threading.Event()
    with pytest.raises(failure):
        in_threads(range(1_000), work, 2, stop)
    assert stop.is_set()
    assert sorted([*finished, 3]) == sorted(begun)
    assert len(begun) < 20


def test_what_cannot_be_read_ends_the_work():
    def items():
        yield 1
        raise LorelineError("the lake is gone")

    with pytest.raises(LorelineError, match="the lake is gone"):
        in_threads(items(), lambda item: None, 2, threading.Event())


def metered(tokens=100, cost=None):
    outcome = Outcome()
    return outcome, Meter(Limits(tokens, cost), outcome, lambda outcome: None)


@pytest.mark.parametrize(("tokens", "cost"), [(25, None), (1_000, Decimal("2.5"))])
def test_what_is_under_way_counts_as_spent(tokens, cost):
    outcome, meter = metered(tokens, cost)
    with meter.reserved(ONE) as first, meter.reserved(ONE) as second, meter.reserved(ONE) as third:
        assert (first, second, third) == (True, True, False)
    # Where they took nothing, there is room again; where they took much, none is left.
    with meter.reserved(ONE) as again:
        assert again
        meter.spend(20, Decimal(2))
    with meter.reserved(ONE) as late:
        assert not late
    assert outcome.calls == {"over_budget": 2}
    assert (outcome.tokens, outcome.cost) == (20, 2)


def test_a_call_that_failed_gives_its_room_back():
    _, meter = metered(10)
    for _ in range(3):
        with pytest.raises(ValueError), meter.reserved(ONE) as is_allowed:
            assert is_allowed
            raise ValueError


def test_estimates_are_held_against_the_limits():
    two = [("m", ONE)] * 2
    check_budget(two, Limits(20, Decimal(2)), less="ask less")
    with pytest.raises(LorelineError, match="2 calls may take 20 tokens, more than 19: raise"):
        check_budget(two, Limits(19), less="ask less")
    with pytest.raises(LorelineError, match=r"may cost 2\.000000 dollars, .* ask less"):
        check_budget(two, Limits(20, Decimal("1.5")), less="ask less")
    with pytest.raises(LorelineError, match="nobody knows what x costs"):
        check_budget([("x", Estimate(1, 1, None))], Limits(20, Decimal(1)), less="ask less")
    check_budget([("x", Estimate(1, 1, None))], Limits(20), less="ask less")


@pytest.mark.parametrize(
    ("response", "in_vain", "used"),
    [
        ({"usage": {"prompt_tokens": 3, "completion_tokens": 2}}, 0, (3, 2)),
        ({"usage": {"prompt_tokens": "3"}}, 0, (6, 4)),
        ({"usage": None}, 0, (6, 4)),
        ({}, 0, (0, 0)),
        ({}, 4, (24, 16)),
    ],
)
def test_tokens_that_a_call_took(response, in_vain, used):
    reply = Reply(response, None, None, datetime.now(UTC), 0.1, in_vain)
    assert reply.used(ONE) == used


def test_headers_hold_what_they_can():
    assert header(" a\nü ") == "%20a%0A%C3%BC%20"
