"""Reading Linear through its API: its client, what a run asks for, and what answers may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from dlt_sources.api import ApiError, NotFoundError
from dlt_sources.linear.client import LinearApi
from dlt_sources.linear.deliveries import names
from dlt_sources.linear.live import OVERLAP, LinearLive, live_linear
from dlt_sources.linear.queries import KINDS, object_query, objects_query
from dlt_sources.linear.settings import TABLES
from dlt_sources.live_sources import LIVE_SOURCES
from loreline.errors import LorelineError
from loreline.settings import Settings
from tests.linear_changes import QUICK
from tests.simulators.api import Answer, Asked, Server, serving
from tests.simulators.lake import Killed, MemoryLake
from tests.simulators.linear import START, Linear

ISSUES = objects_query(KINDS["issues"])
AN_ID = "11111111-2222-4333-8444-555555555555"


@dataclasses.dataclass
class Place:
    """A workspace, its server, and what was landed of it."""

    linear: Linear
    server: Server
    settings: Settings

    def __post_init__(self) -> None:
        self.lake = MemoryLake(self.settings, batches_per_commit=1)

    def api(self, **told: Any) -> LinearApi:
        return LinearApi(self.settings, patience=QUICK, **told)

    def source(self) -> LinearLive:
        return LinearLive(self.settings, lambda settings, **told: self.api(**told))

    def land(self, **options: Any) -> int:
        self.lake.run(self.source(), **options)
        return self.lake.rows_landed

    def rows(self, table: str) -> dict[str, Any]:
        return self.lake.live(TABLES[table])

    def deliver(self, *named: str) -> int:
        return self.land(names=named)

    def requests(self, **options: Any) -> int:
        before = self.server.answered
        self.land(**options)
        return self.server.answered - before


@pytest.fixture
def place() -> Iterator[Place]:
    linear = Linear()
    with serving(linear) as server:
        yield Place(linear, server, settings_of(server))


def settings_of(server: Server, **others: str) -> Settings:
    address = {"linear_url": f"{server.url}/graphql", "linear_rate": "0"}
    return Settings(**{"linear_api_key": "lin_api_key", **address, **others})


# -- the client ----------------------------------------------------------------------------------


def ids_of(api: LinearApi) -> list[str]:
    answer = api.ask(ISSUES, first=1, filter={"id": {"in": [AN_ID]}})
    return [node["id"] for node in answer["issues"]["nodes"]]


def test_it_waits_where_linear_says_that_there_were_too_many_requests(place: Place) -> None:
    place.linear.troubles = {0: "RATELIMITED", 1: "RATELIMITED"}
    with place.api() as api:
        assert ids_of(api) == []
        assert api.requests == 3


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        # Whole again in an hour, and room for one request in 0.72 seconds.
        ({"requests-limit": "5000", "requests-remaining": "0"}, 0.72),
        ({"requests-remaining": "0"}, 3600),
        ({"requests-limit": "5000", "requests-remaining": "12"}, 1.0),
        ({}, 3600),
    ],
)
def test_how_long_it_waits(place: Place, headers: dict[str, str], seconds: float) -> None:
    told = {f"x-ratelimit-{name}": value for name, value in headers.items()}
    told |= {
        "date": "Mon, 23 Nov 2026 10:00:00 GMT",
        "x-ratelimit-requests-reset": "1795431600000",
    }
    body = {"errors": [{"message": "no", "extensions": {"code": "RATELIMITED"}}]}
    with place.api() as api:
        assert api.limited_for(400, told, body) == pytest.approx(seconds)
        assert api.limited_for(400, told, {"errors": [{"message": "no"}]}) is None


def test_it_waits_for_the_points_that_a_query_needs(place: Place) -> None:
    told = {
        "date": "Mon, 23 Nov 2026 10:00:00 GMT",
        "x-complexity": "5000",
        "x-ratelimit-requests-remaining": "100",
        "x-ratelimit-requests-reset": "1795431600000",
        "x-ratelimit-complexity-limit": "250000",
        "x-ratelimit-complexity-remaining": "1000",
        "x-ratelimit-complexity-reset": "1795431600000",
    }
    body = {"errors": [{"extensions": {"code": "RATELIMITED"}}]}
    with place.api() as api:
        assert api.limited_for(400, told, body) == pytest.approx(4000 / 250_000 * 3600)


def test_data_beside_errors_are_none(place: Place) -> None:
    place.linear.troubles = {0: "PARTIAL"}
    with place.api() as api, pytest.raises(ApiError, match="deadline exceeded"):
        ids_of(api)


def test_what_is_not_there_is_told_apart(place: Place) -> None:
    with place.api() as api, pytest.raises(NotFoundError):
        api.ask(object_query(KINDS["relations"]), id=AN_ID)


def test_a_wrong_key_is_named(place: Place) -> None:
    place.settings = settings_of(place.server, linear_api_key="wrong")
    with place.api() as api, pytest.raises(ApiError, match="check LORELINE_LINEAR_API_KEY"):
        ids_of(api)


def test_a_token_of_an_application_is_a_bearers(place: Place) -> None:
    place.settings = settings_of(place.server, linear_api_key="token")
    with place.api() as api:
        assert ids_of(api) == []


def test_a_rate_is_a_number(place: Place) -> None:
    place.settings = settings_of(place.server, linear_rate="fast")
    with pytest.raises(LorelineError, match="LORELINE_LINEAR_RATE is 'fast'"):
        place.api()


def test_it_is_registered() -> None:
    assert LIVE_SOURCES["linear"] is live_linear
    assert live_linear(Settings()) is None
    assert live_linear(Settings(linear_api_key="lin_api_key")) is not None


# -- deliveries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["create", "update", "remove"])
def test_a_delivery_names_its_object(action: str) -> None:
    body = {"action": action, "type": "Issue", "data": {"id": AN_ID}, "webhookTimestamp": 1}
    assert names(body) == [f"issues:{AN_ID}"]
    assert names({**body, "type": "IssueLabel"}) == [f"labels:{AN_ID}"]


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"type": "Issue"},
        {"type": "Issue", "data": None},
        {"type": ["Issue"], "data": {"id": AN_ID}},
        {"type": "Reaction", "data": {"id": AN_ID}},
        {"type": "Issue", "data": {"id": "') or true --"}},
        {"type": "Issue", "data": {"id": {"in": []}}},
    ],
)
def test_a_delivery_about_nothing_that_lands_names_nothing(body: Any) -> None:
    assert names(body) == []


def test_what_a_delivery_names_is_fetched_alone(place: Place) -> None:
    linear = place.linear
    team = linear.team("OPS")
    first, second = linear.issue(team, "Till is slow"), linear.issue(team, "Door is stuck")
    assert place.deliver(f"issues:{second}") == 2
    assert place.rows("issues").keys() == {second}
    linear.delete("issues", second)
    assert place.deliver(f"issues:{second}", f"issues:{AN_ID}", "issues:'--", "nothing") == 1
    assert place.rows("issues") == {}
    assert first not in place.lake.tables["issues"]


# -- how much is asked ---------------------------------------------------------------------------


def workspace(linear: Linear, issues: int) -> list[str]:
    person = linear.user("Ann")
    team = linear.team("OPS", members=[person], private=True)
    made = [linear.issue(team, f"Issue {n}") for n in range(issues)]
    for issue in made[: issues // 2]:
        linear.create("comments", body="Looking.", issue=issue, user=person)
        linear.create("relations", type="related", issue=issue, relatedIssue=made[-1])
    return made


@pytest.mark.parametrize("issues", [50, 2_000])
def test_nothing_new_is_one_request_whatever_there_is(place: Place, issues: int) -> None:
    workspace(place.linear, issues)
    place.land(sweep=True)
    assert place.requests() == 1
    assert place.land() == 0


def test_a_first_run_goes_through_lists_of_ids_and_then_what_they_name(place: Place) -> None:
    workspace(place.linear, 600)
    # The newest, three pages of lists, and issues, comments, users by their ids.
    assert place.requests(sweep=True) == 1 + 3 + 600 // 50 + 300 // 100 + 1
    assert len(place.rows("issues")) == 600


def test_a_run_that_was_killed_fetches_what_is_missing(place: Place) -> None:
    workspace(place.linear, 500)
    place.lake.dies_after = 6
    with pytest.raises(Killed):
        place.land(sweep=True)
    landed = len(place.rows("issues"))
    assert 0 < landed < 500
    lists, newest, users, comments = 3, 1, 0, 3
    missing = -(-(500 - landed) // 50)
    assert place.requests(sweep=True) == newest + lists + users + missing + comments
    assert len(place.rows("issues")) == 500


def test_lists_inside_of_an_issue_are_read_to_their_end(place: Place) -> None:
    linear = place.linear
    people = [linear.user(f"Person {n}") for n in range(300)]
    team = linear.team("OPS", members=people, private=True)
    labels = [linear.create("labels", name=f"label {n}") for n in range(60)]
    issue = linear.issue(team, "Till is slow", labels=labels)
    for n in range(120):
        linear.retitle(issue, f"Till is slow {n}")
        linear.create("comments", body=f"Try {n}.", issue=issue)
    place.land()
    [landed] = place.rows("issues").values()
    assert sorted(node["id"] for node in landed["labels"]["nodes"]) == sorted(labels)
    assert "pageInfo" not in landed["labels"]
    [landed_team] = place.rows("teams").values()
    assert len(landed_team["members"]["nodes"]) == 300
    assert len(place.rows("history")) == 121
    assert len(place.rows("comments")) == 120


def test_who_may_read_a_private_team_is_asked_each_time(place: Place) -> None:
    linear = place.linear
    ann, bob = linear.user("Ann"), linear.user("Bob")
    team = linear.team("HR", members=[ann, bob], private=True)
    place.land(sweep=True)
    linear.edit("teams", team, bumps=False, members=[ann])
    assert place.requests() == 1
    assert place.rows("teams")[team]["members"]["nodes"] == [{"id": ann}]


def test_what_is_committed_late_is_not_missed(place: Place) -> None:
    linear = place.linear
    team = linear.team("OPS")
    issue, late = linear.issue(team, "Till is slow"), linear.issue(team, "Door is stuck")
    place.server.clock_skew = (linear.now - START).total_seconds() - 1e8
    before = linear.objects["issues"][late]["updatedAt"]
    linear.now += OVERLAP / 2
    linear.retitle(issue, "Till is slower")
    place.land(sweep=True)
    # Changed in a transaction that had begun before, and ends only now.
    linear.edit("issues", late, title="Door is stuck again", bumps=False)
    moment = linear.now - OVERLAP / 4
    linear.objects["issues"][late]["updatedAt"] = moment.isoformat()
    linear._sorted.clear()
    assert before < moment.isoformat()
    place.land()
    assert place.rows("issues")[late]["title"] == "Door is stuck again"


def test_a_plan_asks_once(place: Place) -> None:
    workspace(place.linear, 300)
    plan = place.lake.plan(place.source(), sweep=True)
    assert place.server.answered == 1
    assert "more than 250 issues" in plan.what
    place.land(sweep=True)
    plan = place.lake.plan(place.source())
    assert (plan.requests, plan.objects) == (1, 0)


# -- what answers may hold -----------------------------------------------------------------------


class Hostile:
    """Linear, with its answers spoilt on their way."""

    def __init__(self, linear: Linear, spoil: Callable[[dict[str, Any]], None]) -> None:
        self.linear, self.spoil = linear, spoil

    def answer(self, asked: Asked) -> Answer:
        found = self.linear.answer(asked)
        if "data" in found.body:
            self.spoil(found.body["data"])
        return found


def spoilt(field: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def spoil(data: dict[str, Any]) -> None:
        for node in data.get("issues", {}).get("nodes", ())[:1]:
            if field in node:
                node[field] = value

    return spoil


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("title", 7, "wrong_type"),
        ("labels", {"nodes": 3, "pageInfo": {"hasNextPage": True}}, "wrong_type"),
        ("history", {"nodes": [None, 4, {"id": []}]}, "wrong_type"),
        ("description", ["no text"], "wrong_type"),
        ("id", {"a": 1}, "wrong_type"),
        ("id", None, "missing_id"),
        ("updatedAt", "yesterday", "wrong_type"),
    ],
)
def test_what_is_no_issue_is_set_aside(field: str, value: Any, reason: str) -> None:
    linear = Linear()
    team = linear.team("OPS")
    issues = [linear.issue(team, f"Issue {n}") for n in range(3)]
    with serving(linear) as server:
        place = Place(linear, server, settings_of(server))
        place.land(sweep=True)
        for issue in issues:
            linear.retitle(issue, "Another title")
        server.service = Hostile(linear, spoilt(field, value))
        place.land(sweep=True)
        assert reason in {reject.reason for reject in place.lake.rejects}
        # Nothing is gone because of it, and the others land.
        assert place.rows("issues").keys() == set(issues)
        titles = [issue["title"] for issue in place.rows("issues").values()]
        assert titles.count("Another title") >= (1 if field == "id" else 2)


@pytest.mark.parametrize(
    "connection",
    [
        None,
        [],
        {"nodes": []},
        {"nodes": None, "pageInfo": {"hasNextPage": False}},
        {"nodes": [], "pageInfo": {"hasNextPage": True, "endCursor": None}},
        {"nodes": [], "pageInfo": {"hasNextPage": True, "endCursor": "MHxh"}},
    ],
)
def test_a_list_without_an_end_deletes_nothing(connection: Any) -> None:
    linear = Linear()
    team = linear.team("OPS")
    issues = [linear.issue(team, f"Issue {n}") for n in range(3)]
    with serving(linear) as server:
        place = Place(linear, server, settings_of(server))
        place.land(sweep=True)
        server.service = Hostile(linear, lambda data: data.update(issues=connection))
        with pytest.raises(LorelineError, match="Linear's"):
            place.land(sweep=True)
        assert place.rows("issues").keys() == set(issues)


def test_the_clock_of_the_service_may_be_anywhere(place: Place) -> None:
    linear = place.linear
    issue = linear.issue(linear.team("OPS"), "Till is slow")
    for skew in (0, 1e8, -1e8, 0):
        place.server.clock_skew = skew
        place.land(sweep=skew == 0)
        linear.now += timedelta(minutes=10)
        linear.retitle(issue, f"Till is slow, {skew}")
        place.land()
        assert place.rows("issues")[issue]["title"] == f"Till is slow, {skew}"
