"""Issues of GitHub through its API: the example of a source in one package."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator

import pytest

from dlt_sources.live import load_live
from dlt_sources.live_sources import live_source
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.settings import Settings
from tests.simulators.api import Server, serving
from tests.simulators.github import GitHub


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(GitHub()) as running:
        yield running


@pytest.fixture
def github(settings: Settings, server: Server) -> Settings:
    return dataclasses.replace(
        settings,
        github_token="ghp_test",
        github_repositories="acme/till",
        github_url=server.url,
        github_rate="0",
    )


def ingest(settings: Settings, server: Server, **options):
    """Land what is new; the service's clock stands where its last change was."""
    server.clock_skew = server.service.now.timestamp() - time.time()
    fetching = live_source(settings, "github")
    assert fetching is not None
    return load_live(settings, "github", fetching, **options)


def landed(settings: Settings) -> dict[int, tuple[str, list[str]]]:
    """Title and comments of the issues that are there, by number."""
    with duck.connect(settings) as lake:
        rows = lake.execute(
            f"select payload from lake.{settings.prefix}raw_github.issues qualify row_number() over"
            " (partition by external_id order by observed_at desc) = 1 and not is_deleted"
        ).fetchall()
    found = [json.loads(payload) for (payload,) in rows]
    return {
        p["issue"]["number"]: (p["issue"]["title"], [c["body"] for c in p["comments"]])
        for p in found
    }


def test_issues_stay_what_they_are_at_github(github: Settings, server: Server) -> None:
    service = server.service
    assert isinstance(service, GitHub)
    for number in range(1, 251):
        service.write(number)
    service.write(7, pull_request={})
    for n in range(120):
        service.say(3, f"comment {n}")
    assert ingest(github, server).rows == 249
    assert landed(github)[3] == ("It is slow", [f"comment {n}" for n in range(120)])

    server.clear()
    again = ingest(github, server)
    assert (again.rows, again.snapshots) == (0, {})
    # However many issues there are: the repository, two lists, and what changed at the very end,
    # which has two pages of comments.
    assert len(server.asked) <= 8

    service.write(9, "It is fast now", state="closed")
    service.say(10, "I do not think so", touches=False)
    service.issues.pop(11)
    ingest(github, server, sweep=False)
    assert landed(github)[9][0] == "It is fast now"
    assert landed(github)[10][1] == ["I do not think so"]
    assert 11 in landed(github)

    service.issues[3]["comments_"].pop()
    swept = ingest(github, server, sweep=True)
    assert (swept.rows, swept.tombstones) == (2, 1)
    assert 11 not in landed(github)
    assert len(landed(github)[3][1]) == 119


def test_faults_on_the_way_change_nothing(github: Settings, server: Server) -> None:
    assert isinstance(server.service, GitHub)
    for number in range(1, 6):
        server.service.write(number)
        server.service.say(number, "yes")
    server.faults = {1: "500", 3: "cut", 5: "429", 6: "reset"}
    assert ingest(github, server).rows == 5
    assert len(landed(github)) == 5


def test_a_token_that_is_refused_is_said(github: Settings, server: Server) -> None:
    refused = dataclasses.replace(github, github_token="ghp_other")
    with pytest.raises(LorelineError, match="check LORELINE_GITHUB_TOKEN"):
        ingest(refused, server)
    nameless = dataclasses.replace(github, github_repositories="till")
    with pytest.raises(LorelineError, match="LORELINE_GITHUB_REPOSITORIES"):
        live_source(nameless, "github")
