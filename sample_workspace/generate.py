"""Turns the story of the sample company into the formats that the sources read.

    python sample_workspace/generate.py [--into FOLDER]

writes `day_one/`, `day_two/`, `day_three/`, and what may be expected of them (`questions.yaml`,
`expected_changes.yaml`, `expected_branches.jsonl`, `expected_judgements.yaml`), into the folder, by
default the one of this file. The same story gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import yaml
from company import Company, digest, iso, moment
from gateway_traffic import Session, read_sessions
from google_docs_export import GoogleDocsState, GoogleDocsWriter
from incident_reports import ReportsState, report_files
from linear_export import LinearState, LinearWriter, user_id
from links import document_id, page_id
from log_files import log_files, read_logs
from notion_export import NotionState, NotionWriter, apply_changes
from notion_markup import read_pages
from slack_export import SlackState, SlackWriter, channel_id

HERE = Path(__file__).resolve().parent
STORY = HERE / "story"
DAYS = ("day_one", "day_two", "day_three")
Json = dict[str, Any]
State = TypeVar("State", SlackState, LinearState, GoogleDocsState, ReportsState)


def compact(value: Any) -> str:
    """JSON on one line, readable in any script."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def render(name: str, content: Any) -> str:
    """A file's text: YAML, JSON lines, or a JSON list with one item a line."""
    if isinstance(content, str):
        return content
    if name.endswith(".yaml"):
        return yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=100)
    if name.endswith(".jsonl"):
        return "".join(compact(line) + "\n" for line in content)
    if isinstance(content, list) and content:
        return "[\n" + ",\n".join(map(compact, content)) + "\n]\n"
    return compact(content) + "\n"


def read_changes(day: str) -> Json:
    """What happened before a later day, from `story/changes/<day>.yaml`."""
    return yaml.safe_load((STORY / "changes" / f"{day}.yaml").read_text())


def under(folder: str, files: Json) -> Json:
    """The files of one export, moved below a folder."""
    return {f"{folder}/{name}": content for name, content in files.items()}


def notion_states(exported_at: datetime, trashed: set[str]) -> dict[str, NotionState]:
    """The Notion workspace on every day."""
    state = NotionState(exported_at, read_pages(STORY / "notion"), trashed=trashed)
    states = {"day_one": state}
    for day in DAYS[1:]:
        changes = read_changes(day)
        state = apply_changes(state, changes["notion"], moment(changes["exported_at"]))
        states[day] = state
    return states


def notion_files(company: Company, states: dict[str, NotionState]) -> Json:
    """The Notion exports of every day; the last one holds a single page."""
    databases = yaml.safe_load((STORY / "databases.yaml").read_text())
    files: Json = {}
    for day, state in states.items():
        writer = NotionWriter(company, databases, state)
        only = state.export_only
        files |= under(f"{day}/notion", writer.partial_files(only) if only else writer.files())
    return files


def slack_files(company: Company, states: dict[str, SlackState]) -> Json:
    """The Slack exports of the first two days."""
    files: Json = {}
    for day, state in states.items():
        files |= under(f"{day}/slack", SlackWriter(company, state).files())
    return files


def first_days(first: State, source: str) -> dict[str, State]:
    """The state of a source on day one, and what became of it by day two."""
    changes = read_changes("day_two")
    folder = STORY / "changes/day_two" / source
    second = first.change(changes[source], folder, moment(changes["exported_at"]))
    return {"day_one": first, "day_two": second}


def written_files(company: Company, documents: dict[str, Documents]) -> Json:
    """Linear, Google Docs, incident reports and log files of the first two days."""
    logs = read_logs(STORY / "log_files")
    rotated = read_changes("day_two")["log_files"]["rotated"]
    rotations = {
        "day_one": {},
        "day_two": {service: moment(at) for service, at in rotated.items()},
    }
    files: Json = {}
    for day, named in documents.items():
        slack = named.slack
        files |= under(f"{day}/linear", LinearWriter(company, named.linear, slack).files())
        docs = GoogleDocsWriter(company, named.google_docs, slack).files()
        files |= under(f"{day}/google_docs", docs)
        files |= under(f"{day}/incident_reports", report_files(company, named.reports, slack))
        until = named.linear.exported_at
        files |= under(f"{day}/log_files", log_files(logs, until, rotations[day]))
    return files


def gateway_files(exported_at: datetime) -> Json:
    """Day one's events, then day two's: out of order, some of day one's among them."""
    toolbox = yaml.safe_load((STORY / "tools.yaml").read_text())
    changes = read_changes("day_two")
    sessions = read_sessions(STORY / "gateway", toolbox)
    later = read_sessions(STORY / "changes/day_two/gateway", toolbox)
    first = [event for session in sessions for event in session.events()]
    first.sort(key=lambda event: (event["time"], event["id"]))
    second = [event for session in sessions for event in session.events(late=True)]
    second += [event for session in later for event in session.events()]
    second += first[:: changes["gateway"]["repeat_every"]]
    second.sort(key=lambda event: digest("arrival", event["id"], event["time"]))
    files = {
        "expected_branches.jsonl": [*expected_branches(sessions), *expected_branches(later)],
        "expected_judgements.yaml": expected_judgements([*sessions, *later]),
    }
    for day, at, events in (
        ("day_one", exported_at, first),
        ("day_two", moment(changes["exported_at"]), second),
    ):
        export = {"exported_at": iso(at), "complete": False}
        files |= under(f"{day}/gateway", {"export.json": export, "events.jsonl": events})
    return files


def evaluation_files(exported_at: datetime) -> Json:
    """The items of the evaluation sets."""
    sets = yaml.safe_load((STORY / "evaluation.yaml").read_text())
    items = [
        {"evaluation_set": name, "item_id": item, "texts": texts}
        for name, items in sets.items()
        for item, texts in items.items()
    ]
    export = {"exported_at": iso(exported_at), "complete": False}
    return under("day_one/evaluation", {"export.json": export, "items.jsonl": items})


def expected_branches(sessions: list[Session]) -> list[Json]:
    """The links between requests as the story means them."""
    return [link for session in sessions for link in session.expectations()]


def expected_judgements(sessions: list[Session]) -> Json:
    """Which answers are preferred and how conversations are labelled, with the ids of turns."""
    expected = yaml.safe_load((STORY / "expected_judgements.yaml").read_text())
    turns = {session.key: session.turns for session in sessions}

    def answer(session: str, name: str) -> str:
        key, _, choice = name.partition("#")
        return f"{turns[session][key].last.turn_id}/{choice or 0}"

    for judged in expected.values():
        judged["preferences"] = [
            {
                "answers": [answer(pair["session"], name) for name in pair["answers"]],
                "preferred": pair["preferred"] and answer(pair["session"], pair["preferred"]),
                "is_disputed": pair.get("is_disputed", False),
            }
            for pair in judged["preferences"]
        ]
        for category, ends in judged.get("categories", {}).items():
            judged["categories"][category] = [answer(*end.split("/")) for end in ends]
    return expected


@dataclass(frozen=True)
class Documents:
    """Names the documents that a build makes of the workspace of one day."""

    company: Company
    notion: NotionState
    slack: SlackState
    linear: LinearState
    google_docs: GoogleDocsState
    reports: ReportsState

    def page(self, key: str) -> Json:
        """The document of a page."""
        title = self.notion.pages[key].meta["title"]
        return {"source": "notion", "external_id": page_id(key), "title": title}

    def thread(self, channel: str, root: str) -> Json:
        """The document of a thread; without a title where that would need rendering."""
        message = self.slack.channels[channel].find(root)
        line = (message.lines or [""])[0]
        is_plain = line and not set(line) & set("[]@#*_`<>&")
        return {
            "source": "slack",
            "external_id": f"{channel_id(channel, self.company)}:{message.ts}",
            "title": f"#{channel}: {line[:80]}" if is_plain else None,
            "container": channel,
        }

    def issue(self, identifier: str) -> Json:
        """The document of an issue, with the title that it had first."""
        issue = self.linear.issues[identifier]
        return {"source": "linear", "external_id": issue.id, "title": issue.title}

    def document(self, key: str) -> Json:
        """The document of a Google document."""
        title = self.google_docs.documents[key].meta["title"]
        return {"source": "google_docs", "external_id": document_id(key), "title": title}

    def report(self, key: str) -> Json:
        """The document of an incident report."""
        title = self.reports.reports[key].meta["title"]
        return {"source": "incident_reports", "external_id": key, "title": title}

    def log(self, service: str, hour: datetime) -> Json:
        """The document of what a service logged within an hour."""
        begins = f"{hour:%Y-%m-%d %H:%M}"
        title = f"Log of {service}, {begins} to {hour + timedelta(hours=1):%H:%M} UTC"
        external_id = f"{service}:{begins.replace(' ', 'T')}"
        return {"source": "log_files", "external_id": external_id, "title": title}

    def place(self, place: Json) -> Json:
        """What the story calls `{page: …}`, `{issue: …}` …, or `{channel: …, thread: …}`."""
        if "log" in place:
            return self.log(place["log"], moment(place["hour"]))
        for kind in ("page", "issue", "document", "report"):
            if kind in place:
                return getattr(self, kind)(place[kind])
        return self.thread(place["channel"], place["thread"])


def principal(company: Company, person: str | None, source: str) -> str | None:
    """A person's account in a source, as a search names it; None for what everybody may read."""
    if person is None:
        return None
    accounts = {
        "slack": company.people[person].slack_user_id,
        "linear": user_id(person),
        "google_docs": company.people[person].email(company.domain),
        "domain": company.domain,
    }
    return f"{source}:{accounts[source]}"


def questions(documents: dict[str, Documents]) -> list[Json]:
    """The questions, with the documents that answer them and the principal that asks."""
    asked = yaml.safe_load((STORY / "questions.yaml").read_text())
    company = documents["day_one"].company
    for question in asked:
        question.setdefault("day", "day_one")
        asker = question["as"]
        question["as"] = principal(company, asker, question.pop("account", "slack"))
        question["as_email"] = company.people[asker].email(company.domain) if asker else None
        named = documents[question["day"]]
        expected = [named.place(p) | {"text": p["text"]} for p in question["expect"]]
        best = expected[0] if expected else {}
        question |= {"expect_source": best.get("source"), "expect_title": best.get("title")}
        question["expect"] = expected
    return asked


def expected_changes(documents: dict[str, Documents]) -> Json:
    """Which documents differ from the day before, with their ids; new ones aside."""
    expected = yaml.safe_load((STORY / "expected_changes.yaml").read_text())
    for day, sources in expected.items():
        named = documents.get(day, documents["day_two"])
        for changes in sources.values():
            for change, places in changes.items():
                if isinstance(places, list):
                    changes[change] = [named.place(place) for place in places]
    return expected


def all_files() -> Json:
    """Content of every generated file by its path."""
    company = Company.read(STORY)
    opening = yaml.safe_load((STORY / "opening.yaml").read_text())
    exported_at = moment(opening["exported_at"])
    notion = notion_states(exported_at, set(opening["notion_trash"]))
    slack = first_days(SlackState.read(company, STORY / "slack", exported_at), "slack")
    linear = first_days(LinearState.read(STORY / "linear", exported_at), "linear")
    google_docs = first_days(
        GoogleDocsState.read(STORY / "google_docs", exported_at), "google_docs"
    )
    reports = first_days(
        ReportsState.read(STORY / "incident_reports", exported_at), "incident_reports"
    )
    documents = {
        day: Documents(
            company, notion[day], slack[day], linear[day], google_docs[day], reports[day]
        )
        for day in slack
    }
    return {
        **notion_files(company, notion),
        **slack_files(company, slack),
        **gateway_files(exported_at),
        **evaluation_files(exported_at),
        **written_files(company, documents),
        "questions.yaml": questions(documents),
        "expected_changes.yaml": expected_changes(documents),
    }


def generate(into: Path) -> None:
    """Write everything into a folder, in place of what an earlier run wrote."""
    files = {
        name: content if isinstance(content, bytes) else render(name, content).encode()
        for name, content in all_files().items()
    }
    for day in DAYS:
        shutil.rmtree(into / day, ignore_errors=True)
    for name, content in files.items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=HERE, help="folder to write into")
    generate(parser.parse_args().into)
