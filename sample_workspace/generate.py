"""Turns the story of the sample company into the formats that the sources read.

    python sample_workspace/generate.py [--into FOLDER]

writes `day_one/`, `day_two/`, `day_three/`, `questions.yaml` and `expected_branches.jsonl` into the
folder (default: beside this file). The same story gives the same bytes.
"""

from __future__ import annotations

import argparse
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from company import Company, digest, iso, moment
from gateway_traffic import Session, read_sessions
from notion_export import NotionState, NotionWriter, apply_changes, page_id
from notion_markup import read_pages
from slack_export import SlackState, SlackWriter, channel_id

HERE = Path(__file__).resolve().parent
STORY = HERE / "story"
DAYS = ("day_one", "day_two", "day_three")
Json = dict[str, Any]


def compact(value: Any) -> str:
    """JSON on one line, readable in any script."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def render(name: str, content: Any) -> str:
    """A file's text: JSON lines, or a JSON list with one item a line."""
    if name.endswith(".jsonl"):
        return "".join(compact(line) + "\n" for line in content)
    if isinstance(content, list) and content:
        return "[\n" + ",\n".join(map(compact, content)) + "\n]\n"
    return compact(content) + "\n"


def write(folder: Path, files: dict[str, Any]) -> None:
    """Write the files of one export."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(name, content), encoding="utf-8")


def read_changes(day: str) -> Json:
    """What happened before a later day, from `story/changes/<day>.yaml`."""
    return yaml.safe_load((STORY / "changes" / f"{day}.yaml").read_text())


def write_notion(into: Path, company: Company) -> NotionState:
    """Write the Notion state of every day; return the first."""
    databases = yaml.safe_load((STORY / "databases.yaml").read_text())
    opening = yaml.safe_load((STORY / "opening.yaml").read_text())
    pages = read_pages(STORY / "notion")
    trashed = set(opening["notion_trash"])
    first = NotionState(moment(opening["exported_at"]), pages, trashed=trashed)
    state = first
    write(into / "day_one/notion", NotionWriter(company, databases, first).files())
    for day in DAYS[1:]:
        changes = read_changes(day)
        state = apply_changes(state, changes["notion"], moment(changes["exported_at"]))
        writer = NotionWriter(company, databases, state)
        only = changes["notion"].get("export_only")
        write(into / day / "notion", writer.partial_files(only) if only else writer.files())
    return first


def write_slack(into: Path, company: Company, exported_at: datetime) -> SlackState:
    """Write the Slack state of the first two days; return the first."""
    first = SlackState.read(company, STORY / "slack", exported_at)
    write(into / "day_one/slack", SlackWriter(company, first).files())
    changes = read_changes("day_two")
    later = first.change(
        changes["slack"], STORY / "changes/day_two/slack", moment(changes["exported_at"])
    )
    write(into / "day_two/slack", SlackWriter(company, later).files())
    return first


def in_time(events: list[Json]) -> list[Json]:
    """Events as a gateway writes them."""
    return sorted(events, key=lambda event: (event["time"], event["id"]))


def write_gateway(into: Path, exported_at: datetime) -> None:
    """Write day one's events, then day two's: out of order, some of day one's among them."""
    toolbox = yaml.safe_load((STORY / "tools.yaml").read_text())
    changes = read_changes("day_two")
    sessions = read_sessions(STORY / "gateway", toolbox)
    later = read_sessions(STORY / "changes/day_two/gateway", toolbox)
    first = in_time([event for session in sessions for event in session.events()])
    second = [event for session in sessions for event in session.events(late=True)]
    second += [event for session in later for event in session.events()]
    second += first[:: changes["gateway"]["repeat_every"]]
    second.sort(key=lambda event: digest("arrival", event["id"], event["time"]))
    for day, at, events in (
        ("day_one", exported_at, first),
        ("day_two", moment(changes["exported_at"]), second),
    ):
        export = {"exported_at": iso(at), "complete": False}
        write(into / day / "gateway", {"export.json": export, "events.jsonl": events})
    write(into, {"expected_branches.jsonl": expected_branches([*sessions, *later])})


def expected_branches(sessions: list[Session]) -> list[Json]:
    """The links between requests as the story means them."""
    return [link for session in sessions for link in session.expectations()]


def write_questions(into: Path, company: Company, notion: NotionState, slack: SlackState) -> None:
    """Write the questions with the ids of the documents that answer them."""
    questions = yaml.safe_load((STORY / "questions.yaml").read_text())
    for question in questions:
        asker = question["as"]
        question["as"] = company.people[asker].email(company.domain) if asker else None
        question["as_slack_user"] = company.people[asker].slack_user_id if asker else None
        for expected in question["expect"]:
            if "page" in expected:
                key = expected.pop("page")
                title = notion.pages[key].meta["title"]
                expected |= {"source": "notion", "external_id": page_id(key), "title": title}
            else:
                key = expected["channel"]
                message = slack.channels[key].find(expected.pop("message"))
                expected |= {
                    "source": "slack",
                    "channel_id": channel_id(key, company),
                    "thread_ts": message.thread_ts or message.ts,
                    "ts": message.ts,
                }
        question["expect_source"] = question["expect"][0]["source"]
        question["expect_title"] = question["expect"][0].get("title")
    text = yaml.safe_dump(questions, allow_unicode=True, sort_keys=False, width=100)
    (into / "questions.yaml").write_text(text, encoding="utf-8")


def generate(into: Path) -> None:
    """Write everything into a folder, in place of what an earlier run wrote."""
    for day in DAYS:
        shutil.rmtree(into / day, ignore_errors=True)
    company = Company.read(STORY)
    notion = write_notion(into, company)
    slack = write_slack(into, company, notion.exported_at)
    write_gateway(into, notion.exported_at)
    write_questions(into, company, notion, slack)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=HERE, help="folder to write into")
    generate(parser.parse_args().into)
