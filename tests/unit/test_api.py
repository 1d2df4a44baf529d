"""The client of services: its pace, its patience, and what it takes for an answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from dlt_sources.api import Api, ApiError, NotFoundError, Patience, Waiting, retry_after
from loreline.errors import LorelineError
from tests.simulators.api import FAULTS, Answer, Asked, Server, serving

QUICK = Patience(timeout=0.3, total=5, first_wait=0.01, longest_wait=0.05)


class Echo:
    """Says what it was asked, and refuses what begins with a number."""

    def answer(self, asked: Asked) -> Answer:
        status = asked.path.strip("/")
        if status.isdigit():
            return Answer({"code": "no_way", "message": "because"}, int(status))
        return Answer({"path": asked.path, "query": asked.query, "body": asked.body})


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Echo()) as running:
        yield running


def client(server: Server, **options) -> Api:
    return Api("echo", server.url, {}, patience=QUICK, credential="ECHO_TOKEN", **options)


def test_it_asks_and_gets_json(server: Server) -> None:
    with client(server) as api:
        assert api.get("/a", page=2, left_out=None)["query"] == {"page": "2"}
        assert api.post("/b", {"x": 1})["body"] == {"x": 1}
    assert api.requests == 2
    assert abs(api.server_time.timestamp() - time.time()) < 2


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_that_passes_is_asked_again(server: Server, fault: str) -> None:
    server.faults = {0: fault, 1: fault}
    with client(server) as api:
        assert api.get("/a")["path"] == "/a"
        assert api.requests == 3


def test_it_gives_up_and_says_so(server: Server) -> None:
    server.faults = dict.fromkeys(range(1_000), "500")
    impatient = Patience(timeout=0.3, total=0.2, first_wait=0.01, longest_wait=0.05)
    with (
        Api("echo", server.url, {}, patience=impatient) as api,
        pytest.raises(LorelineError, match=r"echo did not answer GET /a \(status 500\)"),
    ):
        api.get("/a")


def test_what_asks_for_more_patience_than_there_is_is_not_waited_for(server: Server) -> None:
    server.faults, server.retry_after = {0: "429"}, 3600
    began = time.monotonic()
    with client(server) as api, pytest.raises(LorelineError, match="too many requests"):
        api.get("/a")
    assert time.monotonic() - began < 2


def test_what_would_be_refused_again_is_not_asked_again(server: Server) -> None:
    with client(server) as api:
        with pytest.raises(ApiError, match=r"refused the credentials .*: check ECHO_TOKEN"):
            api.get("/401")
        with pytest.raises(NotFoundError):
            api.get("/404")
        with pytest.raises(ApiError, match="no_way because") as caught:
            api.get("/400")
        assert (caught.value.status, caught.value.code) == (400, "no_way")
        assert api.requests == 3


def test_nobody_asks_while_the_service_wants_to_be_left_alone(server: Server) -> None:
    server.faults, server.retry_after = {0: "429"}, 0.4
    told: list[str] = []
    with client(server, told=told.append) as api:
        began = time.monotonic()
        first = threading.Thread(target=api.get, args=("/a",))
        first.start()
        while not server.asked and api.requests < 1:
            time.sleep(0.005)
        time.sleep(0.05)
        api.get("/b")
        first.join()
    assert time.monotonic() - began >= 0.4


def test_requests_keep_their_distance(server: Server) -> None:
    with client(server, rate=50) as api:
        began = time.monotonic()
        for _ in range(11):
            api.get("/a")
    assert time.monotonic() - began >= 10 / 50 * 0.9


def test_several_are_asked_at_once_and_answered_in_order(server: Server) -> None:
    server.latency = 0.02
    with client(server, at_once=4) as api:
        paths = [f"/{letter}" for letter in "abcdefghijklmnop"]
        assert [answer["path"] for answer in api.map(api.get, paths)] == paths


def test_who_waits_for_an_answer_is_told_so(server: Server) -> None:
    is_time = threading.Event()
    told = []
    with client(server) as api:
        for answer in api.map_or_wait(lambda _: is_time.wait(60), ["/a"]):
            told.append(isinstance(answer, Waiting))
            if len(told) == 3:
                is_time.set()
    assert told[:3] == [True] * 3
    assert (told[-1], answer) == (False, True)


def test_one_that_fails_ends_the_others(server: Server) -> None:
    with client(server) as api, pytest.raises(NotFoundError):
        list(api.map(api.get, ["/a", "/404", *["/b"] * 100]))
    assert api.requests < 50


def test_retry_after_holds_seconds_or_a_date() -> None:
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert retry_after({}) == 1.0
    assert retry_after({"retry-after": "soon"}) == 1.0
    assert retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0.0
