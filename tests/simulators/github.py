"""GitHub's REST API, as far as issues and their comments go."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.simulators.api import Answer, Asked

Json = Any
_ISSUE = re.compile(r"/repos/acme/till/issues/(\d+)(/comments)?")


@dataclass
class GitHub:
    """One repository, acme/till.

    Attributes:
        issues: by number; `comments_` holds what was said.
        now: when what is changed next changes.
    """

    issues: dict[int, Json] = field(default_factory=dict)
    now: datetime = datetime(2026, 11, 1, tzinfo=UTC)
    url: str = ""

    def write(self, number: int, title: str = "It is slow", **fields: Json) -> None:
        """Open an issue, or edit it."""
        self.now += timedelta(minutes=10)
        known = self.issues.get(number, {"comments_": [], "created_at": self._time()})
        self.issues[number] = {
            **known,
            "id": 1000 + number,
            "number": number,
            "title": title,
            "state": "open",
            "html_url": f"https://github.com/acme/till/issues/{number}",
            "user": {"login": "ana"},
            "labels": [],
            "assignees": [],
            "body": "Very.",
            "updated_at": self._time(),
            **fields,
        }

    def say(self, number: int, text: str, *, touches: bool = True) -> None:
        """Comment on an issue; not every change of a comment makes the issue a changed one."""
        self.now += timedelta(minutes=10)
        issue = self.issues[number]
        comment = {
            "id": len(issue["comments_"]) + 1,
            "user": {"login": "bo"},
            "body": text,
            "created_at": self._time(),
            "updated_at": self._time(),
            "issue_url": f"https://api.github.com/repos/acme/till/issues/{number}",
        }
        issue["comments_"].append(comment)
        if touches:
            issue["updated_at"] = self._time()

    def answer(self, asked: Asked) -> Answer:
        """What the API says."""
        if asked.headers.get("authorization") != "Bearer ghp_test":
            return Answer({"message": "Bad credentials"}, 401)
        shown = [{**self._shown(i), "comments": len(i["comments_"])} for i in self.issues.values()]
        if asked.path == "/repos/acme/till":
            about = {"id": 1, "full_name": "acme/till", "private": False}
            return Answer({**about, "open_issues_count": len(self.issues)})
        if asked.path == "/repos/acme/till/issues":
            return Answer(self._page(shown, asked))
        if asked.path == "/repos/acme/till/issues/comments":
            return Answer(
                self._page([c for i in self.issues.values() for c in i["comments_"]], asked)
            )
        if found := _ISSUE.fullmatch(asked.path):
            issue = self.issues.get(int(found[1]))
            if issue is None:
                return Answer({"message": "Not Found"}, 404)
            if found[2]:
                return Answer(self._page(issue["comments_"], asked, by="id"))
            return Answer({**self._shown(issue), "comments": len(issue["comments_"])})
        return Answer({"message": "Not Found"}, 404)

    def _page(self, items: list[Json], asked: Asked, by: str = "updated_at") -> list[Json]:
        size, page = int(asked.query["per_page"]), int(asked.query["page"])
        since = asked.query.get("since")
        if since:
            least = datetime.fromisoformat(since)
            items = [i for i in items if datetime.fromisoformat(i["updated_at"]) >= least]
        return sorted(items, key=lambda item: item[by])[(page - 1) * size : page * size]

    def _time(self) -> str:
        return self.now.strftime("%Y-%m-%dT%H:%M:%SZ")

    @staticmethod
    def _shown(issue: Json) -> Json:
        return {name: value for name, value in issue.items() if name != "comments_"}
