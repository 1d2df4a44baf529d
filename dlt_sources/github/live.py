"""What is asked of GitHub's REST API: https://docs.github.com/en/rest/issues."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from dlt_sources.api import Api, NotFoundError, retry_after
from dlt_sources.github.settings import API_VERSION, ISSUES, OVERLAP_SECONDS, PER_PAGE
from dlt_sources.live import Batch, Plan, Run
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.sweeps import Sweep
from dlt_sources.versions import canonical_json
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any


class GitHubApi(Api):
    """GitHub's way of saying that there were too many requests."""

    def limited_for(self, status: int, headers: Mapping[str, str], body: Json) -> float | None:
        """Seconds until more may be asked: 403 or 429, with either of two headers."""
        if status not in (403, 429):
            return None
        if "retry-after" in headers:
            return retry_after(headers)
        if headers.get("x-ratelimit-remaining") == "0":
            return max(0.0, float(headers.get("x-ratelimit-reset", 0)) - time.time())
        return retry_after(headers, 60.0) if status == 429 else None


class GitHub:
    """Issues of some repositories.

    Args:
        token: a token that may read them.
        repositories: each as `owner/name`.
        url: of the API.
        rate: requests per second at most; 0 for as many as it answers.
    """

    def __init__(self, token: str, repositories: Sequence[str], url: str, rate: float) -> None:
        self._token = token
        self._repositories = repositories
        self._url = url
        self._rate = rate

    @classmethod
    def of(cls, settings: Settings) -> GitHub | None:
        """As the settings say; None where they name no token."""
        if not settings.github_token:
            return None
        repositories = settings.github_repositories.replace(",", " ").split()
        if not repositories or any(name.count("/") != 1 for name in repositories):
            raise LorelineError(
                f"LORELINE_GITHUB_REPOSITORIES is {settings.github_repositories!r}",
                "write owner/name, several with commas between them",
            )
        rate = settings.number("github_rate")
        return cls(settings.github_token, repositories, settings.github_url, rate)

    def fetch(self, run: Run) -> Iterator[Batch]:
        """Issues that changed, and comments; in a sweep all of them, and which are gone."""
        with self._api(run) as api:
            repositories = [api.get(f"/repos/{quote(name)}") for name in self._repositories]
            sweep = Sweep(run.landing, ISSUES)
            for repository in repositories:
                path = f"/repos/{quote(repository['full_name'])}"
                name = f"seen:{repository['id']}"
                began = api.server_time or datetime.now(UTC)
                since = None if run.sweeps else run.cursors.time(name)
                for issues in api.map(self._whole(api, repository), _changed(api, path, since)):
                    sweep.show(_shown(issue) for issue in issues)
                    yield Batch([(ISSUES, issue) for issue in issues])
                moment = began - timedelta(seconds=OVERLAP_SECONDS)
                yield Batch(cursors={name: moment.isoformat()})
            if run.sweeps:
                yield from _gone(api, run, sweep)

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        """Issues that are named `owner/name#number`."""
        with self._api(run) as api:
            for name in names:
                repository, _, number = name.partition("#")
                about = api.get(f"/repos/{quote(repository)}")
                issue = api.get(f"/repos/{quote(repository)}/issues/{int(number)}")
                yield Batch([(ISSUES, each) for each in self._whole(api, about)([issue])])

    def plan(self, run: Run) -> Plan:
        """One request for a hundred issues that changed, and one for each with comments."""
        with self._api(run) as api:
            open_issues = sum(
                api.get(f"/repos/{quote(name)}")["open_issues_count"] for name in self._repositories
            )
        if not run.sweeps:
            return Plan("what changed", 3 * len(self._repositories), self._rate, 0)
        return Plan("all issues, open ones counted", open_issues, self._rate, open_issues)

    def _api(self, run: Run) -> GitHubApi:
        return GitHubApi(
            "GitHub",
            self._url,
            {
                "authorization": f"Bearer {self._token}",
                "accept": "application/vnd.github+json",
                "x-github-api-version": API_VERSION,
            },
            rate=self._rate,
            credential="LORELINE_GITHUB_TOKEN",
            told=run.progress,
        )

    def _whole(self, api: Api, repository: Json) -> Any:
        """Gives issues as they are landed: with their repository, and all of their comments."""
        path = f"/repos/{quote(repository['full_name'])}/issues"
        about = {name: repository.get(name) for name in ("id", "full_name", "private")}

        def whole(issues: list[Json]) -> list[Observation | Reject]:
            found = []
            for issue in issues:
                if not isinstance(issue, dict) or "pull_request" in issue:
                    continue
                asked_at = datetime.now(UTC)
                is_commented = issue.get("comments")
                comments = (
                    list(_pages(api, f"{path}/{issue['number']}/comments")) if is_commented else []
                )
                found.append(
                    _observed({"repository": about, "issue": issue, "comments": comments}, asked_at)
                )
            return found

        return whole


def _changed(api: Api, path: str, since: datetime | None) -> Iterator[list[Json]]:
    """Lists of issues that changed, or whose comments did, since a moment; all without one."""
    told = since.isoformat() if since else None
    order = {"sort": "updated", "direction": "asc", "per_page": PER_PAGE, "since": told}
    yield from _lists(api, f"{path}/issues", state="all", **order)
    if since is None:
        return
    # An edited comment does not always make its issue a changed one.
    numbers = {
        int(comment["issue_url"].rsplit("/", 1)[-1])
        for comments in _lists(api, f"{path}/issues/comments", **order)
        for comment in comments
    }
    for number in sorted(numbers):
        yield [api.get(f"{path}/issues/{number}")]


def _lists(api: Api, path: str, **parameters: Any) -> Iterator[list[Json]]:
    page = 1
    while found := api.get(path, **parameters, page=page):
        yield found
        if len(found) < PER_PAGE:
            return
        page += 1


def _pages(api: Api, path: str) -> Iterator[Json]:
    for found in _lists(api, path, per_page=PER_PAGE):
        yield from found


def _observed(payload: Json, asked_at: datetime) -> Observation | Reject:
    issue = payload["issue"]
    identity, updated = issue.get("id"), issue.get("updated_at")
    origin = str(issue.get("html_url"))
    if not isinstance(identity, int):
        detail = f"the id is {identity!r}, not a number"
        return Reject("missing_id", detail, canonical_json(payload), origin, ISSUES.name)
    try:
        moment = datetime.fromisoformat(updated)
    except (TypeError, ValueError):
        detail = f"updated_at is {updated!r}, not a time"
        return Reject(
            "wrong_type", detail, canonical_json(payload), origin, ISSUES.name, str(identity)
        )
    return Observation(str(identity), payload, asked_at, moment, origin=origin)


def _shown(item: Observation | Reject) -> tuple[str, datetime | None]:
    if isinstance(item, Reject):
        return item.external_id or "", None
    return item.external_id, item.source_updated_at


def _gone(api: Api, run: Run, sweep: Sweep) -> Iterator[Batch]:
    """Tombstones of issues that no list shows, once GitHub says of each that it is not there."""
    run.rails.check("github", "issues", *sweep.count_absent())
    for identity, path in _addresses(run, list(sweep.absent())):
        asked_at = datetime.now(UTC)
        try:
            # What was transferred answers with its new address.
            is_there = str(api.get(path).get("id")) == identity
        except NotFoundError:
            is_there = False
        if not is_there:
            yield Batch([(ISSUES, Observation(identity, None, asked_at, is_deleted=True))])


def _addresses(run: Run, ids: Sequence[str]) -> list[tuple[str, str]]:
    rows = run.landing.duckdb.execute(
        "select external_id, '/repos/' || json_extract_string(payload, '$.repository.full_name')"  # noqa: S608 - the name is our own
        " || '/issues/' || json_extract_string(payload, '$.issue.number')"
        f" from ({run.landing.latest(ISSUES)}) where external_id in (select unnest($ids))",
        {"ids": list(ids)},
    )
    return rows.fetchall()
