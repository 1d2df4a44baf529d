"""Reads the issues of the story and writes them as nodes of Linear's GraphQL API.

An issue, below `story/linear/`, begins with its identifier and title, and with who wrote it:

    # ENG-113 Gatehouse never retries
    2026-09-17 14:45 jonas: Urgent, to jonas, +Reliability, project Calm checkout, 1 point

    The description: Markdown, wrapped where it is convenient.

    ~ 2026-09-17 15:00 jonas: In Progress, cycle Medlar
    > 2026-09-17 16:02 tomasz: A comment, wrapped
      where it is convenient.
      | A line of its own.
    >> 2026-09-17 16:10 jonas (edited 16:12): A reply.
    > 2026-09-17 17:00 yuki (resolved 2026-09-18 09:31 jonas): A comment that somebody resolved.

What a line says after its author are facts: a state, a priority, `3 points`, `to jonas`, `+Label`,
`-Label`, `project …`, `cycle …`, `due 2026-10-01`, `parent ENG-112`, `blocks ENG-114`,
`duplicate ENG-107`, `related ENG-120`, `archived`, `trashed`, or `called ` and a new title. A file
of a later state may begin a block with `-> ENG-113` to go on with an old issue. Links are those of
`links.py`.
"""

from __future__ import annotations

import copy
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from company import Company, digest, iso, moment, uuid_of
from links import LINEAR, linked
from prose import unwrapped
from slack_export import SlackState

Json = dict[str, Any]

TIME = r"(?P<at>\d{4}-\d\d-\d\d \d\d:\d\d) (?P<who>\w+)"
ISSUE = re.compile(r"# (?P<identifier>[A-Z]+-\d+) (?P<title>.+)$")
OLD_ISSUE = re.compile(r"-> (?P<identifier>[A-Z]+-\d+)$")
OPENING = re.compile(TIME + r"(?:: (?P<facts>.+))?$")
STEP = re.compile("~ " + TIME + r": (?P<facts>.+)$")
COMMENT = re.compile(r"(?P<depth>>>?) " + TIME + r"(?: \((?P<flags>[^)]*)\))?: (?P<text>.*)$")
PRIORITIES = ["No priority", "Urgent", "High", "Medium", "Low"]
RELATIONS = ("blocks", "duplicate", "related")
# How a fact is called in the issue, and in its history after `from` and `to`.
NAMED_FACTS = {
    "to": "assignee",
    "project": "project",
    "cycle": "cycle",
    "due": "dueDate",
    "parent": "parent",
    "called": "title",
}
TRACKED = ("state", "priority", "assignee", "estimate", "title", "dueDate")
TRACKED += ("cycle", "project", "parent", "team")


@dataclass
class Step:
    """Somebody changed facts of an issue; the first step is its creation."""

    at: datetime
    who: str
    facts: list[tuple[str, Any]]


@dataclass
class Comment:
    """A comment; a reply names the comment that it belongs to by its place."""

    at: datetime
    who: str
    flags: dict[str, str]
    lines: list[str]
    parent: int | None


@dataclass
class Issue:
    """An issue as written in the story."""

    identifier: str
    title: str
    lines: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    rewritten: list[tuple[datetime, str]] = field(default_factory=list)

    @property
    def id(self) -> str:
        """Id of the issue."""
        return uuid_of("linear issue", self.identifier)

    def exact(self, at: datetime, *names: str) -> datetime:
        """A story time with seconds; what comes later in an issue has a later minute."""
        number = int(digest("linear time", self.identifier, str(at), *names), 16)
        return at + timedelta(milliseconds=number % 60_000)


@dataclass
class LinearState:
    """The workspace at one moment."""

    exported_at: datetime
    workspace: Json
    issues: dict[str, Issue] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, exported_at: datetime) -> LinearState:
        """The state that the story's files tell."""
        workspace = yaml.safe_load((folder / "workspace.yaml").read_text())
        state = cls(exported_at, workspace)
        state.add(folder)
        return state

    def add(self, folder: Path) -> None:
        """Add what the files of a folder tell, to new issues and to old ones."""
        for path in sorted(folder.glob("*.txt")):
            issue = Issue("", "")
            for line in path.read_text().splitlines():
                if found := ISSUE.match(line):
                    issue = Issue(found["identifier"], found["title"])
                    if issue.identifier in self.issues:
                        raise ValueError(f"{issue.identifier} is there twice")
                    self.issues[issue.identifier] = issue
                elif found := OLD_ISSUE.match(line):
                    issue = self.issues[found["identifier"]]
                elif issue.identifier:
                    extend(issue, line)

    def change(self, changes: Json, folder: Path, exported_at: datetime) -> LinearState:
        """The state after the section `linear` of a `changes/*.yaml` and new issue files."""
        after = LinearState(exported_at, copy.deepcopy(self.workspace), copy.deepcopy(self.issues))
        for edit in changes.get("edits", []):
            issue = after.issues[edit["issue"]]
            description = "\n".join(issue.lines)
            if description.count(edit["replace"]) != 1:
                raise ValueError(f"{issue.identifier}: the text is not there exactly once")
            issue.lines = description.replace(edit["replace"], edit["with"]).splitlines()
            issue.rewritten.append((moment(edit["at"]), edit["by"]))
        for team, people in changes.get("members_added", {}).items():
            after.workspace["teams"][team]["members"] += people
        after.add(folder)
        return after


def extend(issue: Issue, line: str) -> None:
    """Add one line of the story to an issue."""
    if found := STEP.match(line):
        issue.steps.append(Step(moment(found["at"]), found["who"], facts(found["facts"])))
    elif found := COMMENT.match(line):
        flags = (found["flags"] or "").split(", ")
        above = [i for i, comment in enumerate(issue.comments) if comment.parent is None]
        issue.comments.append(
            Comment(
                moment(found["at"]),
                found["who"],
                dict(flag.partition(" ")[::2] for flag in flags if flag),
                [found["text"]],
                above[-1] if found["depth"] == ">>" else None,
            )
        )
    elif issue.steps and not issue.comments and len(issue.steps) == 1:
        issue.lines.append(line)
    elif found := OPENING.match(line):
        issue.steps.append(Step(moment(found["at"]), found["who"], facts(found["facts"] or "")))
    elif line.strip().startswith("|"):
        issue.comments[-1].lines.append(line.strip()[1:].removeprefix(" "))
    elif line.strip():
        issue.comments[-1].lines[-1] += " " + line.strip()


def facts(text: str) -> list[tuple[str, Any]]:
    """What a line says of an issue, as pairs of a field's name and its value."""
    if text.startswith("called "):
        return [("title", text[7:])]
    return [fact(part) for part in text.split(", ") if part]


def fact(text: str) -> tuple[str, Any]:
    """One fact; the name of a state where it is nothing else."""
    word, _, rest = text.partition(" ")
    if text in PRIORITIES:
        return "priority", PRIORITIES.index(text)
    if rest in ("point", "points"):
        return "estimate", int(word)
    if word in RELATIONS:
        return "relation", (word, rest)
    if word in NAMED_FACTS:
        return NAMED_FACTS[word], None if rest in ("nobody", "none") else rest
    if text[0] in "+-":
        return ("addedLabels" if text[0] == "+" else "removedLabels"), text[1:]
    return (text, True) if text in ("archived", "trashed") else ("state", text)


class LinearWriter:
    """Turns one state into API nodes."""

    def __init__(self, company: Company, state: LinearState, slack: SlackState) -> None:
        self.company = company
        self.state = state
        self.slack = slack
        self.workspace = state.workspace
        self.people = {
            key: (person.name, person.display, person.email(company.domain), True)
            for key, person in company.people.items()
            if not person.is_bot
        }
        for key, name in self.workspace["former_people"].items():
            self.people[key] = (name, key, f"{key}@{company.domain}", False)

    def files(self) -> dict[str, Any]:
        """Content of every file of the export by its name; lists become JSON lines."""
        found: dict[str, list[Json]] = defaultdict(list)
        for issue in self.state.issues.values():
            node, history, relations = self.replay(issue)
            found["issues"].append(node)
            found["history"] += history
            found["relations"] += relations
            found["comments"] += self.comments(issue)
        return {
            "export.json": {"exported_at": iso(self.state.exported_at), "complete": True},
            "users.jsonl": [self.user(key) for key in self.people],
            "teams.jsonl": [self.team(key) for key in self.workspace["teams"]],
            "labels.jsonl": [self.label(name) for name in self.workspace["labels"]],
            "projects.jsonl": [self.project(name) for name in self.workspace["projects"]],
            "cycles.jsonl": [self.cycle(name) for name in self.workspace["cycles"]],
            **{f"{name}.jsonl": nodes for name, nodes in found.items()},
        }

    def replay(self, issue: Issue) -> tuple[Json, list[Json], list[Json]]:
        """An issue's node, its history and its relations, from the steps that led to them."""
        team = issue.identifier.partition("-")[0]
        created, *later = issue.steps
        start: Json = {"title": issue.title, "state": "Backlog", "priority": 0}
        now: Json = {"labels": [], "createdAt": issue.exact(created.at, "created")} | start
        relations: list[Json] = []
        self.step(issue, now, created, relations)
        history = []
        for step in later:
            before = copy.copy(now)
            self.step(issue, now, step, relations)
            history.append(self.history(issue, step, before, now))
        for at, who in issue.rewritten:
            history.append(self.history(issue, Step(at, who, [("description", True)]), now, now))
        touched = [entry["createdAt"] for entry in history]
        touched += [iso(issue.exact(c.at, c.who)) for c in issue.comments]
        now["updatedAt"] = max([iso(now["createdAt"]), *touched])
        return self.issue(issue, team, created.who, now), history, relations

    def step(self, issue: Issue, now: Json, step: Step, relations: list[Json]) -> None:
        """Apply one step to the facts so far."""
        at = issue.exact(step.at, "created" if step is issue.steps[0] else step.who)
        for name, value in step.facts:
            if name == "addedLabels":
                now["labels"] = [*now["labels"], value]
            elif name == "removedLabels":
                now["labels"] = [label for label in now["labels"] if label != value]
            elif name == "relation":
                relations.append(self.relation(issue, at, *value))
            elif name == "state":
                self.enter(now, value, at)
            elif name == "archived":
                now["archivedAt"] = at
            else:
                now[name] = value

    def enter(self, now: Json, state: str, at: datetime) -> None:
        """Enter a state, with the time that an issue keeps of the first or the last such change."""
        kind = self.workspace["states"][state]
        now |= {"state": state, "completedAt": None, "canceledAt": None}
        if kind == "started":
            now.setdefault("startedAt", at)
        elif kind == "completed":
            now["completedAt"] = at
        elif kind in ("canceled", "duplicate"):
            now["canceledAt"] = at

    def issue(self, issue: Issue, team: str, author: str, now: Json) -> Json:
        """An issue's node."""
        address = "/".join(filter(None, [issue.identifier, slug_of(now["title"])]))
        about = self.workspace["teams"][team]
        by_bot = author not in self.people
        parent = now.get("parent")
        return {
            "id": issue.id,
            "identifier": issue.identifier,
            "number": int(issue.identifier.partition("-")[2]),
            "title": now["title"],
            "description": linked(unwrapped(issue.lines), self.slack) or None,
            "priority": now["priority"],
            "priorityLabel": PRIORITIES[now["priority"]],
            "estimate": now.get("estimate"),
            "createdAt": iso(now["createdAt"]),
            "updatedAt": now["updatedAt"],
            **{
                name: iso(now[name]) if now.get(name) else None
                for name in ("archivedAt", "startedAt", "completedAt", "canceledAt")
            },
            "trashed": now.get("trashed"),
            "dueDate": now.get("dueDate"),
            "url": f"{LINEAR}/issue/{address}",
            "branchName": f"{now.get('assignee') or author}/{address.lower().replace('/', '-')}",
            "state": self.workflow_state(team, now["state"]),
            "team": {"id": team_id(team), "key": team, "name": about["name"]},
            "creator": None if by_bot else self.reference(author),
            "botActor": self.bot(author) if by_bot else None,
            "assignee": self.reference(now.get("assignee")),
            "project": self.named("project", now.get("project")),
            "cycle": self.named("cycle", now.get("cycle")),
            "parent": {"id": self.known(parent).id} if parent else None,
            "labels": {"nodes": [self.label_reference(name) for name in now["labels"]]},
        }

    def history(self, issue: Issue, step: Step, before: Json, after: Json) -> Json:
        """What one step changed, as Linear keeps it."""
        team = issue.identifier.partition("-")[0]
        at = iso(issue.exact(step.at, step.who))
        by_bot = step.who not in self.people
        changed: Json = {}
        for name in TRACKED:
            is_changed = before.get(name) != after.get(name)
            for end, now in (("from", before), ("to", after)):
                value = self.shown(team, name, now.get(name)) if is_changed else None
                changed[end + name[0].upper() + name[1:]] = value
        told = [name for name, _ in step.facts]
        relations = [value for name, value in step.facts if name == "relation"]
        return {
            "id": uuid_of("linear history", issue.identifier, at, *told),
            "createdAt": at,
            "updatedAt": at,
            "issue": {"id": issue.id},
            "actor": None if by_bot else self.reference(step.who),
            "botActor": self.bot(step.who) if by_bot else None,
            **changed,
            **{
                name: [self.label_reference(v) for n, v in step.facts if n == name] or None
                for name in ("addedLabels", "removedLabels")
            },
            "relationChanges": [
                {"identifier": other, "type": f"a{kind[0]}"} for kind, other in relations
            ]
            or None,
            "updatedDescription": True if "description" in told else None,
            "archived": True if "archived" in told else None,
            "trashed": True if "trashed" in told else None,
        }

    def shown(self, team: str, name: str, value: Any) -> Any:
        """A tracked value as the history shows it: objects by their ids."""
        if value is None:
            return None
        if name == "state":
            return self.workflow_state(team, value)
        if name == "assignee":
            return self.reference(value)
        if name in ("project", "cycle"):
            return self.named(name, value)
        return {"id": self.known(value).id} if name == "parent" else value

    def relation(self, issue: Issue, at: datetime, kind: str, other: str) -> Json:
        """A relation's node."""
        return {
            "id": uuid_of("linear relation", issue.identifier, kind, other),
            "type": kind,
            "createdAt": iso(at),
            "updatedAt": iso(at),
            "archivedAt": None,
            "issue": {"id": issue.id},
            "relatedIssue": {"id": self.known(other).id},
        }

    def comments(self, issue: Issue) -> Iterator[Json]:
        """The nodes of an issue's comments."""
        ids = [
            uuid_of("linear comment", issue.identifier, str(comment.at), comment.who)
            for comment in issue.comments
        ]
        for identity, comment in zip(ids, issue.comments, strict=True):
            created = issue.exact(comment.at, comment.who)
            edited = comment.flags.get("edited")
            edited_at = iso(moment(f"{comment.at:%Y-%m-%d}T{edited}")) if edited else None
            resolved_at, _, resolver = comment.flags.get("resolved", "").rpartition(" ")
            by_bot = comment.who not in self.people
            yield {
                "id": identity,
                "body": linked("\n".join(comment.lines), self.slack),
                "createdAt": iso(created),
                "updatedAt": edited_at or iso(created),
                "editedAt": edited_at,
                "archivedAt": None,
                "resolvedAt": iso(moment(resolved_at)) if resolved_at else None,
                "resolvingUser": self.reference(resolver) if resolver else None,
                "url": f"{LINEAR}/issue/{issue.identifier}#comment-{identity[:8]}",
                "issue": {"id": issue.id},
                "user": None if by_bot else self.reference(comment.who),
                "botActor": self.bot(comment.who) if by_bot else None,
                "parent": None if comment.parent is None else {"id": ids[comment.parent]},
            }

    def user(self, key: str) -> Json:
        """A user's node; one who left stays, without access."""
        name, display, email, is_active = self.people[key]
        return {
            "id": user_id(key),
            "name": name,
            "displayName": display,
            "email": email,
            "active": is_active,
            "admin": key in ("ines", "tomasz", "jonas"),
            "guest": False,
            "app": False,
            "createdAt": self.workspace["created"],
            "updatedAt": self.workspace["created"],
            "archivedAt": None,
            "url": f"{LINEAR}/profiles/{display}",
        }

    def team(self, key: str) -> Json:
        """A team's node, with those who belong to it."""
        about = self.workspace["teams"][key]
        is_private = about.get("private", False)
        return {
            "id": team_id(key),
            "key": key,
            "name": about["name"],
            "displayName": about["name"],
            "description": about["description"],
            "private": is_private,
            "visibility": "private" if is_private else "public",
            "createdAt": self.workspace["created"],
            "updatedAt": self.workspace["created"],
            "archivedAt": None,
            "members": {"nodes": [self.reference(person) for person in about["members"]]},
        }

    def label(self, name: str) -> Json:
        """A label's node."""
        about = self.workspace["labels"][name]
        team = about.get("team")
        return {
            "id": uuid_of("linear label", name),
            "name": name,
            "color": about["color"],
            "description": about.get("description"),
            "isGroup": False,
            "createdAt": self.workspace["created"],
            "updatedAt": self.workspace["created"],
            "archivedAt": None,
            "team": {"id": team_id(team)} if team else None,
            "parent": None,
        }

    def project(self, name: str) -> Json:
        """A project's node."""
        about = self.workspace["projects"][name]
        created = iso(moment(about["created"]))
        done = iso(moment(about["completed"])) if "completed" in about else None
        slug = digest("linear project", name)[:12]
        status = {"id": uuid_of("linear project status", about["status"]), "name": about["status"]}
        return {
            "id": uuid_of("linear project", name),
            "name": name,
            "slugId": slug,
            "url": f"{LINEAR}/project/{slug_of(name)}-{slug}",
            "description": about["summary"],
            "content": linked(about.get("content", ""), self.slack) or None,
            "status": status | {"type": self.workspace["project_statuses"][about["status"]]},
            "priority": 0,
            "priorityLabel": PRIORITIES[0],
            "startDate": str(about["starts"]),
            "targetDate": str(about["ends"]),
            "createdAt": created,
            "updatedAt": done or created,
            "completedAt": done,
            "canceledAt": None,
            "archivedAt": None,
            "trashed": None,
            "lead": self.reference(about["lead"]),
            "creator": self.reference(about.get("creator", about["lead"])),
            "teams": {"nodes": [{"id": team_id(team)} for team in about["teams"]]},
        }

    def cycle(self, name: str) -> Json:
        """A cycle's node: two weeks that end with a release."""
        about = self.workspace["cycles"][name]
        ends = moment(about["ends"])
        is_over = ends <= self.state.exported_at
        created = iso(moment(self.workspace["created"]))
        return {
            "id": uuid_of("linear cycle", name),
            "number": about["number"],
            "name": name,
            "description": about.get("description"),
            "startsAt": iso(moment(about["starts"])),
            "endsAt": iso(ends),
            "completedAt": iso(ends) if is_over else None,
            "createdAt": created,
            "updatedAt": iso(ends) if is_over else created,
            "archivedAt": None,
            "team": {"id": team_id(about["team"])},
        }

    def workflow_state(self, team: str, name: str) -> Json:
        """The state of an issue, one of its team's."""
        kind = self.workspace["states"][name]
        return {"id": uuid_of("linear state", team, name), "name": name, "type": kind}

    def reference(self, person: str | None) -> Json | None:
        """A person by id, who must be known."""
        if person is None:
            return None
        if person not in self.people:
            raise ValueError(f"nobody is called {person}")
        return {"id": user_id(person)}

    def bot(self, key: str) -> Json:
        """An integration that acted in place of a person."""
        name = self.company.people[key].name
        identity = uuid_of("linear bot", key)
        return {"id": identity, "type": "integration", "subType": key, "name": name}

    def label_reference(self, name: str) -> Json:
        """A label by id and name."""
        if name not in self.workspace["labels"]:
            raise ValueError(f"no label {name}")
        return {"id": uuid_of("linear label", name), "name": name}

    def named(self, kind: str, name: str | None) -> Json | None:
        """A project or a cycle by id."""
        if name is not None and name not in self.workspace[f"{kind}s"]:
            raise ValueError(f"no {kind} {name}")
        return name and {"id": uuid_of(f"linear {kind}", name)}

    def known(self, identifier: str) -> Issue:
        """The issue of an identifier, checked."""
        if identifier not in self.state.issues:
            raise ValueError(f"no issue {identifier}")
        return self.state.issues[identifier]


def user_id(key: str) -> str:
    """Id of a person's account in Linear."""
    return uuid_of("linear user", key)


def team_id(key: str) -> str:
    """Id of a team."""
    return uuid_of("linear team", key)


def slug_of(title: str) -> str:
    """A title as Linear puts it into an address: words of plain letters and digits."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall(r"[a-z0-9]+", plain))[:60].strip("-")
