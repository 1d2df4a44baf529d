"""Linear through its API, against a simulator of it, into a real lake."""

from __future__ import annotations

import dataclasses
import json
import os
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import hypothesis
import hypothesis.stateful
import pytest

from dlt_sources.cursors import Cursors
from dlt_sources.landing import LoadSummary
from dlt_sources.linear.client import LinearApi
from dlt_sources.linear.live import LinearLive
from dlt_sources.linear.queries import KINDS, objects_query
from dlt_sources.linear.settings import TABLES
from dlt_sources.live import load_live, plan_live
from dlt_sources.pipeline import load
from loreline import postgres
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.settings import Settings
from tests.conftest import drop_namespaces
from tests.linear_changes import QUICK, LinearChanges
from tests.simulators.api import Server, serving
from tests.simulators.linear import START, Linear


@dataclasses.dataclass
class Place:
    """A workspace of Linear, its server, and the lake that it lands in."""

    linear: Linear
    server: Server
    settings: Settings
    lake: duckdb.DuckDBPyConnection

    def source(self) -> LinearLive:
        return LinearLive(
            self.settings, lambda settings, **told: LinearApi(settings, patience=QUICK, **told)
        )

    def land(self, **options: Any) -> LoadSummary:
        return load_live(self.settings, "linear", self.source(), **options)

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        found = self.lake.execute(statement.format(raw=f"lake.{self.settings.prefix}raw_linear"))
        return found.fetchall()

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """The newest row of each landed object that is not deleted: its payload."""
        found = self.query(
            f"select external_id, payload from {{raw}}.{table}"
            " qualify row_number() over (partition by external_id order by"
            " observed_at desc, source_updated_at desc nulls last, _batch desc, landed_at desc"
            ") = 1 and not is_deleted"
        )
        return {identity: json.loads(payload) for identity, payload in found}


@pytest.fixture(scope="module")
def lakehouse(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A lakehouse for all tests here: making its tables takes longer than they do."""
    own = dataclasses.replace(
        stack,
        target="ci",
        namespace_suffix=f"t{uuid.uuid4().hex[:10]}",
        state_folder=str(tmp_path_factory.mktemp("linear") / "state"),
    )
    own.home.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("LORELINE_")]:
            patch.delenv(name)
        for name, value in own.environment().items():
            patch.setenv(name, value)
        postgres.upgrade(own)
        _make_tables(own)
        yield own
    drop_namespaces(own)


def _make_tables(settings: Settings) -> None:
    linear = Linear(now=next(_moments))
    with serving(linear) as server, duck.connect(settings) as lake:
        address = {"linear_url": f"{server.url}/graphql", "linear_rate": "0"}
        own = dataclasses.replace(settings, linear_api_key="lin_api_key", **address)
        ann = linear.user("Ann")
        team = linear.team("OPS", members=[ann])
        issue = linear.issue(team, "Till is slow", assignee=ann)
        other = linear.issue(team, "Door is stuck", labels=[linear.create("labels", name="bug")])
        linear.create("comments", body="Looking.", issue=issue)
        linear.create("relations", type="blocks", issue=issue, relatedIssue=other)
        linear.create("attachments", title="Log", issue=issue)
        linear.create("projects", name="Tills")
        linear.create("documents", title="Plan", issue=issue)
        linear.create("cycles", number=3, team=team)
        Place(linear, server, own, lake).land()


# Each test's workspace is younger than all before: what a cursor knows is of them.
_moments = iter(START + timedelta(days=day) for day in range(1_000))


@pytest.fixture
def place(lakehouse: Settings) -> Iterator[Place]:
    """A workspace of its own, and nothing landed that is not deleted."""
    linear = Linear(now=next(_moments))
    linear.rng.seed(linear.now.isoformat())
    with serving(linear, retry_after=0.01) as server, duck.connect(lakehouse) as lake:
        address = {"linear_url": f"{server.url}/graphql", "linear_rate": "0"}
        settings = dataclasses.replace(lakehouse, linear_api_key="lin_api_key", **address)
        found = Place(linear, server, settings, lake)
        found.land(sweep=True, allow_deletes=True)
        yield found


def test_what_there_is_lands_and_nothing_twice(place: Place) -> None:
    linear = place.linear
    ann, bob = linear.user("Ann"), linear.user("Bob")
    team = linear.team("OPS", members=[ann], private=True)
    labels = [linear.create("labels", name=f"label {n}") for n in range(60)]
    issue = linear.issue(team, "Till is slow", labels=labels, assignee=bob)
    other = linear.issue(team, "Door is stuck", parent=issue)
    for n in range(60):
        linear.create("comments", body=f"Try {n}.", issue=issue, user=ann)
    linear.create("relations", type="blocks", issue=issue, relatedIssue=other)
    linear.create("attachments", title="Log", issue=issue)
    linear.create("projects", name="Tills", lead=ann)
    linear.create("documents", title="Plan", issue=issue, content="1. Measure.")
    linear.create("cycles", number=3, team=team)

    first = place.land()
    assert (first.rows, first.quarantined, first.broken) == (60 + 60 + 2 * 3 + 6, {}, [])
    assert first.new_fields == {}
    for table in TABLES:
        assert place.rows(table).keys() == linear.objects[table].keys(), table
    versions = "select count(*) from {raw}.comments where not is_deleted group by external_id"
    assert {count for (count,) in place.query(versions)} == {1}

    again = place.land()
    assert (again.rows, again.snapshots) == (0, {})
    swept = place.land(sweep=True)
    assert (swept.rows, swept.snapshots) == (0, {})


def test_files_and_api_land_the_same_objects_in_any_order(place: Place, tmp_path: Path) -> None:
    linear = place.linear
    team = linear.team("OPS", members=[linear.user("Ann")])
    first = linear.issue(team, "Till is slow", labels=[linear.create("labels", name="bug")])
    linear.create("comments", body="Looking.", issue=first)
    place.land()
    assert load(place.settings, "linear", exported(place, tmp_path / "after")).rows == 0

    linear.retitle(first, "Till is slower")
    linear.create("comments", body="Found it.", issue=first)
    landed = load(place.settings, "linear", exported(place, tmp_path / "before"))
    assert landed.rows == 3
    assert place.land().rows == 0
    assert place.land(sweep=True).rows == 0


def exported(place: Place, folder: Path) -> Path:
    """What the API answers to the queries of the live route, as files."""
    folder.mkdir()
    with LinearApi(place.settings) as api:
        for table, kind in KINDS.items():
            if kind.filter and (ids := list(place.linear.objects[table])):
                data = api.ask(objects_query(kind), first=len(ids), filter={"id": {"in": ids}})
                (folder / f"{table}.json").write_text(json.dumps({"data": data}))
    return folder


def test_too_much_is_not_deleted_by_accident(place: Place) -> None:
    linear = place.linear
    teams = [linear.team("OPS"), linear.team("HR", private=True)]
    issues = [linear.issue(teams[n % 2], f"Issue {n}") for n in range(24)]
    place.land()
    linear.lost.add(teams[1])
    with pytest.raises(LorelineError, match="12 of 24 linear issues are gone, more than 15%"):
        place.land(sweep=True)
    assert place.rows("issues").keys() == set(issues)
    assert place.land(sweep=True, allow_deletes=True).tombstones == 1 + 12 + 12
    assert place.rows("issues").keys() == set(issues[::2])
    assert place.rows("history").keys() == {
        entry["id"] for entry in linear.objects["history"].values() if entry["issue"] in issues[::2]
    }
    linear.lost.clear()
    place.land(sweep=True)
    assert place.rows("issues").keys() == set(issues)
    assert place.rows("history").keys() == linear.objects["history"].keys()


def test_an_answer_in_part_is_not_landed_as_whole(place: Place) -> None:
    linear = place.linear
    team = linear.team("OPS")
    issues = {linear.issue(team, f"Issue {n}") for n in range(5)}
    place.land()
    swept_at = cursors(place.settings)["swept_at"]
    for issue in issues:
        linear.retitle(issue, "Another title")
    # The newest, the lists, what changed.
    for number in range(3):
        linear.asked, linear.troubles = 0, {number: "PARTIAL"}
        with pytest.raises(LorelineError, match="deadline exceeded"):
            place.land(sweep=True)
    assert place.rows("issues").keys() == issues
    assert cursors(place.settings)["swept_at"] == swept_at


def cursors(settings: Settings) -> dict[str, Any]:
    with postgres.connect(settings) as connection:
        query = postgres.in_schema(
            settings, "operations", "select name, value from {}.source_cursors"
        )
        return dict(connection.execute(query).fetchall())


def test_a_kill_between_commit_and_cursor_doubles_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    linear = place.linear
    team = linear.team("OPS")
    issue = linear.issue(team, "Till is slow")
    with monkeypatch.context() as patch:
        patch.setattr(Cursors, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            place.land()
    assert place.rows("issues").keys() == {issue}
    linear.asked = 0
    assert place.land().rows == 0
    assert linear.asked == 1


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


def test_a_delivery_lands_the_newest_version_and_what_is_gone(place: Place) -> None:
    linear = place.linear
    team = linear.team("OPS")
    issue, other = linear.issue(team, "Till is slow"), linear.issue(team, "Door is stuck")
    comment = linear.create("comments", body="Looking.", issue=issue)
    place.land()
    linear.retitle(issue, "Till is slower")
    linear.delete("comments", comment)
    linear.retitle(other, "Not named")
    names = {f"issues:{issue}": "delivery-1", f"comments:{comment}": "delivery-2"}
    done = place.land(deliveries=names)
    assert (done.rows, done.tombstones) == (3, 1)
    assert place.rows("issues")[issue]["title"] == "Till is slower"
    assert place.rows("comments") == {}
    found = place.query(
        "select landed_by, delivery_id from {raw}.issues where landed_by = 'webhook' union all"
        " select landed_by, delivery_id from {raw}.comments where landed_by = 'webhook'"
    )
    assert sorted(found) == [("webhook", "delivery-1"), ("webhook", "delivery-2")]
    assert place.land(deliveries=names).rows == 0


def test_a_plan_lands_nothing(place: Place) -> None:
    team = place.linear.team("OPS")
    for n in range(120):
        place.linear.issue(team, f"Issue {n}")
    settings = dataclasses.replace(place.settings, linear_rate="0.5")
    plan = plan_live(settings, "linear", LinearLive(settings))
    # A list, three pages of issues, a team.
    assert (plan.requests, plan.objects, plan.seconds) == (1 + 3 + 1, 121, 10.0)
    assert place.rows("issues") == {}


class InTheLake(LinearChanges):
    """The changes, landed in the lake of the tests."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.server = self.place.linear, self.place.server
        for table in list(self.linear.objects):
            self.linear.objects[table].clear()
        self.linear._sorted.clear()
        self.linear.lost.clear()
        self.place.land(sweep=True, allow_deletes=True)

    def land(self, *, sweep: bool, names: list[str] | None = None, stop: int | None = None) -> None:
        if stop is not None:
            self.server.faults |= dict.fromkeys(range(stop + 1, stop + 400), "500")
            self.may_fail = True
        deliveries = dict.fromkeys(names, "d") if names is not None else None
        summary = load_live(
            self.place.settings,
            "linear",
            self.place.source(),
            sweep=sweep,
            allow_deletes=True,
            deliveries=deliveries,
        )
        assert (summary.quarantined, summary.broken) == ({}, [])

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        return self.place.rows(table)


def run_changes(place: Place, examples: int, steps: int) -> None:
    InTheLake.place = place
    hypothesis.stateful.run_state_machine_as_test(
        InTheLake,
        settings=hypothesis.settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )


def test_any_sequence_of_changes_and_faults(place: Place) -> None:
    run_changes(place, examples=1, steps=20)


@pytest.mark.soak
def test_many_sequences_of_changes_and_faults(place: Place) -> None:
    run_changes(place, examples=40, steps=60)
