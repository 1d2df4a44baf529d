"""Linear through its API, against a simulator of it, into a real lake."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import pytest

from dlt_sources.api import Patience
from dlt_sources.landing import LoadSummary
from dlt_sources.linear.client import LinearApi
from dlt_sources.linear.live import LinearLive
from dlt_sources.live import load_live, plan_live
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.settings import Settings
from tests.simulators.api import Server, serving
from tests.simulators.linear import Linear

QUICK = Patience(timeout=0.3, total=5, first_wait=0.01, longest_wait=0.05)


@dataclasses.dataclass
class Place:
    """A workspace of Linear, its server, and the lake that it lands in."""

    linear: Linear
    server: Server
    settings: Settings

    def source(self) -> LinearLive:
        return LinearLive(
            self.settings, lambda settings, **told: LinearApi(settings, patience=QUICK, **told)
        )

    def land(self, **options: Any) -> LoadSummary:
        return load_live(self.settings, "linear", self.source(), **options)

    def requests(self, **options: Any) -> int:
        """How many requests a run makes."""
        before = self.server.answered
        self.land(**options)
        return self.server.answered - before

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """The newest row of each landed object that is not deleted: its payload."""
        with duck.connect(self.settings) as lake:
            found = lake.execute(
                f"select external_id, payload from lake.{self.settings.prefix}raw_linear.{table}"
                " qualify row_number() over (partition by external_id order by"
                " observed_at desc, source_updated_at desc nulls last, _batch desc, landed_at desc"
                ") = 1 and not is_deleted"
            ).fetchall()
        return {identity: json.loads(payload) for identity, payload in found}


@pytest.fixture
def place(settings: Settings) -> Iterator[Place]:
    linear = Linear()
    with serving(linear) as server:
        yield Place(
            linear,
            server,
            dataclasses.replace(
                settings,
                linear_api_key="lin_api_key",
                linear_url=f"{server.url}/graphql",
                linear_rate="0",
            ),
        )


def test_what_there_is_lands_and_nothing_twice(place: Place) -> None:
    linear = place.linear
    ann, bob = linear.user("Ann"), linear.user("Bob")
    team = linear.team("OPS", members=[ann], private=True)
    label = linear.create("labels", name="bug")
    issue = linear.issue(team, "Till is slow", labels=[label], assignee=bob)
    linear.create("comments", body="Looking.", issue=issue, user=ann)
    first = place.land()
    print(first)
    assert set(place.rows("issues")) == {issue}
    again = place.land()
    assert (again.rows, again.snapshots) == (0, {})
    print(again)
