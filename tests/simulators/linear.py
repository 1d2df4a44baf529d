"""A simulator of Linear: its GraphQL API over a workspace that can be changed in between.

Queries are validated against the part of Linear's schema in `linear.graphql`, which a test compares
with the whole one, and then answered from plain dictionaries.
"""

from __future__ import annotations

import random
import uuid
from base64 import b64decode, b64encode
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from graphql import DocumentNode, FieldNode, build_schema, parse, validate
from graphql.utilities import value_from_ast_untyped

from tests.simulators.api import Answer, Asked

SCHEMA = build_schema((Path(__file__).parent / "linear.graphql").read_text())
LARGEST_PAGE = 250
DEFAULT_PAGE = 50
START = datetime(2026, 10, 1, 9, tzinfo=UTC)

Json = Any
Object = dict[str, Json]
# A table, and times and ids of some of its objects, the newest first.
Listed = tuple[str, list[tuple[str, str]]]

LISTS = {
    "attachments": "attachments",
    "comments": "comments",
    "cycles": "cycles",
    "documents": "documents",
    "issues": "issues",
    "issueLabels": "labels",
    "issueRelations": "relations",
    "projects": "projects",
    "teams": "teams",
    "users": "users",
}
ONES = {
    "attachment": "attachments",
    "comment": "comments",
    "cycle": "cycles",
    "document": "documents",
    "issue": "issues",
    "issueLabel": "labels",
    "issueRelation": "relations",
    "project": "projects",
    "team": "teams",
    "user": "users",
}
# Fields that hold an object, and where it is.
REFERENCES = {
    "assignee": "users",
    "creator": "users",
    "cycle": "cycles",
    "delegate": "users",
    "issue": "issues",
    "lead": "users",
    "project": "projects",
    "relatedIssue": "issues",
    "team": "teams",
    "user": "users",
}
# What can go wrong with a request that reaches the service.
TROUBLES = ("RATELIMITED", "PARTIAL", "REFUSED")
STATES = [
    {"id": "5a7e0000-0000-4000-8000-000000000001", "name": "Todo", "type": "unstarted"},
    {"id": "5a7e0000-0000-4000-8000-000000000002", "name": "Done", "type": "completed"},
]


class NotFound(Exception):  # noqa: N818 - it is what Linear says
    """What is asked for is not there, or not to be seen."""


@dataclass
class Linear:
    """A workspace, and the service in front of it.

    Objects are dictionaries with the fields of the schema; a field that refers to another object
    holds its id. What says `bumps=False` changes something without its `updatedAt`.

    Attributes:
        objects: by table and id.
        now: the workspace's clock, which each change moves on.
        lost: teams that the key's owner may not see.
        troubles: what is to go wrong, by the number of the query, counted from 0.
        before: what happens before a query is answered, by its number.
        asked: how many queries came.
        rng: makes ids.
    """

    objects: dict[str, dict[str, Object]] = field(default_factory=lambda: defaultdict(dict))
    now: datetime = START
    lost: set[str] = field(default_factory=set)
    troubles: dict[int, str] = field(default_factory=dict)
    before: dict[int, list[Callable[[], None]]] = field(default_factory=lambda: defaultdict(list))
    asked: int = 0
    reset_after: float = 0.05
    headers: dict[str, str] = field(default_factory=dict)
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    _sorted: dict[tuple[str, str], list[tuple[str, str]]] = field(default_factory=dict)

    # -- changes ---------------------------------------------------------------------------------

    def tick(self) -> str:
        """A moment later, as the API writes it."""
        self.now += timedelta(milliseconds=1_001)
        return self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def new_id(self) -> str:
        """An id that no other has."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def create(self, table: str, **fields: Json) -> str:
        """Add an object, and give its id."""
        moment, identity = self.tick(), self.new_id()
        self.objects[table][identity] = {
            "id": identity,
            "createdAt": moment,
            "updatedAt": moment,
            "archivedAt": None,
            "url": f"https://linear.app/acme/{identity}",
            **_DEFAULTS.get(table, {}),
            **fields,
        }
        self._sorted.clear()
        return identity

    def edit(self, table: str, identity: str, *, bumps: bool = True, **fields: Json) -> None:
        """Change fields."""
        value = self.objects[table][identity]
        moment = self.tick()
        value.update(fields)
        if bumps:
            value["updatedAt"] = moment
            self._sorted.clear()

    def delete(self, table: str, identity: str) -> None:
        """Delete an object for good, and what hangs from it."""
        del self.objects[table][identity]
        self.tick()
        self._sorted.clear()
        hangs = {
            "issues": (
                ("comments", "issue"),
                ("attachments", "issue"),
                ("history", "issue"),
                ("relations", "issue"),
                ("relations", "relatedIssue"),
            ),
            "comments": (("comments", "parent"),),
        }
        for other, name in hangs.get(table, ()):
            for each in [o["id"] for o in self.objects[other].values() if o[name] == identity]:
                if each in self.objects[other]:
                    self.delete(other, each)

    def user(self, name: str) -> str:
        """A person."""
        return self.create("users", name=name, displayName=name.lower(), email=f"{name}@acme.test")

    def team(self, key: str, *, members: Iterable[str] = (), private: bool = False) -> str:
        """A team, open to all or only to its members."""
        visibility = "private" if private else "public"
        return self.create(
            "teams",
            key=key,
            name=key,
            displayName=key,
            private=private,
            visibility=visibility,
            members=list(members),
        )

    def issue(self, team: str, title: str, **fields: Json) -> str:
        """An issue, with the first entry of its history."""
        number = len(self.objects["issues"]) + 1
        key = self.objects["teams"][team]["key"]
        identity = self.create(
            "issues",
            team=team,
            title=title,
            number=number,
            identifier=f"{key}-{number}",
            branchName=f"{key.lower()}-{number}",
            **fields,
        )
        self.entry(identity, toTitle=title)
        return identity

    def entry(self, issue: str, **fields: Json) -> str:
        """An entry of an issue's history."""
        return self.create("history", issue=issue, **fields)

    def retitle(self, issue: str, title: str) -> None:
        """Edit an issue, which its history tells."""
        before = self.objects["issues"][issue]["title"]
        self.entry(issue, fromTitle=before, toTitle=title)
        self.edit("issues", issue, title=title)

    # -- what is to be seen ----------------------------------------------------------------------

    def is_visible(self, table: str, value: Object) -> bool:
        """Whether the key's owner sees an object."""
        if table == "teams":
            return value["id"] not in self.lost
        for name, other in (("issue", "issues"), ("relatedIssue", "issues"), ("team", "teams")):
            if reference := value.get(name):
                referred = self.objects[other].get(reference)
                if referred is None or not self.is_visible(other, referred):
                    return False
        return True

    def visible(self, table: str) -> dict[str, Object]:
        """What the key's owner sees of a table, by id."""
        return {i: o for i, o in self.objects[table].items() if self.is_visible(table, o)}

    # -- the service -----------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        """One query."""
        number = self.asked
        self.asked += 1
        for change in self.before.pop(number, ()):
            change()
        trouble = self.troubles.pop(number, "")
        if trouble == "RATELIMITED":
            return self._limited()
        if trouble == "REFUSED":
            return Answer(_errors("Internal server error", "INTERNAL_SERVER_ERROR"))
        if asked.headers.get("authorization", "") not in ("lin_api_key", "Bearer token"):
            return Answer(_errors("Authentication required", "AUTHENTICATION_ERROR"), 400)
        document, problem = _parsed(asked.body["query"])
        if problem:
            return Answer(_errors(problem, "GRAPHQL_VALIDATION_FAILED"), 400)
        data: Object = {}
        variables = asked.body.get("variables", {})
        try:
            for selected in document.definitions[0].selection_set.selections:
                name = selected.alias.value if selected.alias else selected.name.value
                data[name] = self._root(selected, variables)
        except NotFound as missing:
            return Answer(_errors(f"Entity not found: {missing}", "INPUT_ERROR"))
        if trouble == "PARTIAL":
            # One list is cut off, and the answer says so only beside its data.
            for part in data.values():
                if isinstance(part, dict) and "nodes" in part:
                    part["nodes"] = part["nodes"][:1]
                    part["pageInfo"] = {"hasNextPage": False, "endCursor": None}
            return Answer({"data": data, **_errors("deadline exceeded", "INTERNAL_SERVER_ERROR")})
        return Answer({"data": data}, headers=self.headers)

    def _limited(self) -> Answer:
        reset = (datetime.now(UTC) + timedelta(seconds=self.reset_after)).timestamp() * 1000
        told = {
            "x-ratelimit-requests-limit": "500000",
            "x-ratelimit-requests-remaining": "0",
            "x-ratelimit-requests-reset": f"{reset:.0f}",
        }
        return Answer(_errors("Rate limit exceeded", "RATELIMITED"), 400, told)

    def _root(self, selected: FieldNode, variables: Object) -> Json:
        name, given = selected.name.value, _arguments(selected, variables)
        if table := LISTS.get(name):
            return self._connection(selected, self._listed(table, given), given, variables)
        table = ONES[name]
        value = self.objects[table].get(given["id"])
        if value is None or not self.is_visible(table, value):
            raise NotFound(name)
        return self._selected(selected, table, value, variables)

    def _listed(self, table: str, given: Object) -> Listed:
        """What a list holds after its filter, in its order."""
        condition = given.get("filter") or {}
        order = given.get("orderBy") or "createdAt"
        values = self.objects[table]
        key = (table, order)
        if key not in self._sorted:
            pairs = ((v[order], v["id"]) for v in values.values())
            self._sorted[key] = sorted(pairs, reverse=True)
        ordered = self._sorted[key]
        asked = (condition.get("id") or {}).get("in")
        if asked is not None:
            there = [values[i] for i in set(asked) if i in values]
            ordered = sorted(((v[order], v["id"]) for v in there), reverse=True)
        since = (condition.get("updatedAt") or {}).get("gt")
        visibility = (condition.get("visibility") or {}).get("neq")
        is_shared = (condition.get("hasSharedUsers") or {}).get("eq")
        left = []
        for moment, identity in ordered:
            value = values[identity]
            if since and datetime.fromisoformat(value["updatedAt"]) <= datetime.fromisoformat(
                since
            ):
                if order == "updatedAt":
                    break
                continue
            if visibility and value["visibility"] == visibility:
                continue
            if is_shared and not value.get("sharedWith"):
                continue
            left.append((moment, identity))
        return table, left

    def _connection(
        self,
        selected: FieldNode,
        listed: Listed,
        given: Object,
        variables: Object,
    ) -> Object:
        table, ordered = listed
        first = min(given.get("first") or DEFAULT_PAGE, LARGEST_PAGE)
        start = 0
        if after := given.get("after"):
            moment, identity = b64decode(after).decode().split("|")
            start = bisect_right(
                ordered, _Backwards(moment, identity), key=lambda p: _Backwards(*p)
            )
        page: list[Object] = []
        is_archived_shown = given.get("includeArchived") or table in ("labels", "users")
        last, has_more = ("", ""), False
        for pair in islice(ordered, start, None):
            value = self.objects[table][pair[1]]
            is_hidden = value["archivedAt"] and not is_archived_shown
            if is_hidden or not self.is_visible(table, value):
                continue
            if has_more := len(page) == first:
                break
            page.append(value)
            last = pair
        cursor = b64encode("|".join(last).encode()).decode() if has_more else None
        nodes = _inside(selected, "nodes")
        return {
            "nodes": [self._selected(nodes, table, value, variables) for value in page],
            "pageInfo": {"hasNextPage": has_more, "endCursor": cursor},
        }

    def _selected(
        self, selected: FieldNode, table: str, value: Object, variables: Object
    ) -> Object:
        found: Object = {}
        for each in selected.selection_set.selections:
            name = each.name.value
            if each.selection_set is None:
                found[name] = value.get(name)
            elif name in ("members", "labels", "history"):
                found[name] = self._connection(
                    each, self._inner(name, value), _arguments(each, variables), variables
                )
            elif name in REFERENCES or name == "parent":
                other = table if name == "parent" else REFERENCES[name]
                referred = self.objects[other].get(value.get(name) or "")
                is_seen = referred is not None and self.is_visible(other, referred)
                found[name] = self._selected(each, other, referred, variables) if is_seen else None
            elif name == "sharedAccess":
                shared = sorted(value.get("sharedWith", ()))
                found[name] = {"sharedWithUsers": [{"id": each} for each in shared]}
            else:
                held = value.get(name)
                found[name] = _cut(each, held)
        return found

    def _inner(self, name: str, value: Object) -> Listed:
        if name == "history":
            if not self._sorted.get(("history", "issue")):
                # By issue: each asks for its own.
                entries = self.objects["history"].values()
                self._sorted["history", "issue"] = sorted((e["issue"], e["id"]) for e in entries)
            found = self._sorted["history", "issue"]
            start, end = (bisect_left(found, (value["id"], each)) for each in ("", "~"))
            ids = [identity for _, identity in found[start:end]]
            table = "history"
        else:
            table = "users" if name == "members" else "labels"
            ids = [i for i in value.get(name, ()) if i in self.objects[table]]
        pairs = ((self.objects[table][i]["createdAt"], i) for i in ids)
        return table, sorted(pairs, reverse=True)


class _Backwards(tuple):
    """A pair that sorts as the lists do, the newest first."""

    def __new__(cls, *pair: str) -> _Backwards:
        return super().__new__(cls, pair)

    def __lt__(self, other: tuple) -> bool:
        return tuple.__gt__(self, other)


_DEFAULTS: dict[str, Object] = {
    "users": {"active": True, "admin": False, "guest": False, "app": False},
    "teams": {"description": None, "parent": None},
    "labels": {"color": "#fff", "description": None, "isGroup": False},
    "projects": {
        "slugId": "p",
        "description": "",
        "priority": 0,
        "priorityLabel": "No priority",
        "trashed": None,
        "status": {"id": STATES[0]["id"], "name": "Planned", "type": "planned"},
    },
    "cycles": {"startsAt": "2026-10-01T00:00:00.000Z", "endsAt": "2026-10-14T00:00:00.000Z"},
    "documents": {"slugId": "d", "trashed": None, "content": None},
    "issues": {
        "previousIdentifiers": [],
        "description": None,
        "priority": 0,
        "priorityLabel": "No priority",
        "trashed": None,
        "state": STATES[0],
        "labels": [],
    },
    "comments": {"hideInLinear": False, "issue": None, "parent": None},
}


@lru_cache(maxsize=256)
def _parsed(query: str) -> tuple[DocumentNode, str]:
    document = parse(query)
    errors = validate(SCHEMA, document)
    return document, errors[0].message if errors else ""


def _arguments(selected: FieldNode, variables: Object) -> Object:
    return {
        argument.name.value: value_from_ast_untyped(argument.value, variables)
        for argument in selected.arguments or ()
    }


def _inside(selected: FieldNode, name: str) -> FieldNode:
    return next(f for f in selected.selection_set.selections if f.name.value == name)


def _cut(selected: FieldNode, held: Json) -> Json:
    if isinstance(held, list):
        return [_cut(selected, each) for each in held]
    if not isinstance(held, dict):
        return held
    return {f.name.value: held.get(f.name.value) for f in selected.selection_set.selections}


def _errors(message: str, code: str) -> Object:
    return {"errors": [{"message": message, "extensions": {"code": code}}]}
