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
    """A file's text: YAML, JSON lines, or a JSON list with one item a line."""
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


def notion_files(company: Company, first: NotionState) -> Json:
    """The Notion exports of every day."""
    databases = yaml.safe_load((STORY / "databases.yaml").read_text())
    files = under("day_one/notion", NotionWriter(company, databases, first).files())
    state = first
    for day in DAYS[1:]:
        changes = read_changes(day)
        state = apply_changes(state, changes["notion"], moment(changes["exported_at"]))
        writer = NotionWriter(company, databases, state)
        only = changes["notion"].get("export_only")
        files |= under(f"{day}/notion", writer.partial_files(only) if only else writer.files())
    return files


def slack_files(company: Company, first: SlackState) -> Json:
    """The Slack exports of the first two days."""
    changes = read_changes("day_two")
    later = first.change(
        changes["slack"], STORY / "changes/day_two/slack", moment(changes["exported_at"])
    )
    files = under("day_one/slack", SlackWriter(company, first).files())
    return files | under("day_two/slack", SlackWriter(company, later).files())


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
    files = {"expected_branches.jsonl": [*expected_branches(sessions), *expected_branches(later)]}
    for day, at, events in (
        ("day_one", exported_at, first),
        ("day_two", moment(changes["exported_at"]), second),
    ):
        export = {"exported_at": iso(at), "complete": False}
        files |= under(f"{day}/gateway", {"export.json": export, "events.jsonl": events})
    return files


def expected_branches(sessions: list[Session]) -> list[Json]:
    """The links between requests as the story means them."""
    return [link for session in sessions for link in session.expectations()]


def questions(company: Company, notion: NotionState, slack: SlackState) -> list[Json]:
    """The questions, with the ids of the documents that answer them."""
    asked = yaml.safe_load((STORY / "questions.yaml").read_text())
    for question in asked:
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
    return asked


def all_files() -> Json:
    """Content of every generated file by its path."""
    company = Company.read(STORY)
    opening = yaml.safe_load((STORY / "opening.yaml").read_text())
    exported_at = moment(opening["exported_at"])
    pages = read_pages(STORY / "notion")
    notion = NotionState(exported_at, pages, trashed=set(opening["notion_trash"]))
    slack = SlackState.read(company, STORY / "slack", exported_at)
    return {
        **notion_files(company, notion),
        **slack_files(company, slack),
        **gateway_files(exported_at),
        "questions.yaml": questions(company, notion, slack),
    }


def generate(into: Path) -> None:
    """Write everything into a folder, in place of what an earlier run wrote."""
    texts = {name: render(name, content) for name, content in all_files().items()}
    for day in DAYS:
        shutil.rmtree(into / day, ignore_errors=True)
    for name, text in texts.items():
        path = into / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=HERE, help="folder to write into")
    generate(parser.parse_args().into)
