"""Writes the incident reports of the story: Markdown files with front matter, one an incident.

A report is `story/incident_reports/<id>.md`: the front matter in short (people by their keys, times
without seconds), then Markdown, wrapped where it is convenient, with the links of `links.py`. An
entry of the timeline has a date unless it is of the day on which the incident began.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from company import Company, iso, moment
from links import linked
from notion_markup import PageSource, read_pages
from prose import unwrapped
from slack_export import SlackState

Json = dict[str, Any]


@dataclass
class ReportsState:
    """The reports at one moment."""

    exported_at: datetime
    reports: dict[str, PageSource]

    @classmethod
    def read(cls, folder: Path, exported_at: datetime) -> ReportsState:
        """The state that the story's files tell."""
        return cls(exported_at, read_pages(folder))

    def change(self, changes: Json, folder: Path, exported_at: datetime) -> ReportsState:
        """The state after the section `incident_reports` of a `changes/*.yaml` and new files."""
        reports = self.reports | read_pages(folder)
        for edit in changes["edits"]:
            old = reports[edit["report"]]
            if old.body.count(edit["replace"]) != 1:
                raise ValueError(f"{old.key}: the text is not there exactly once")
            body = old.body.replace(edit["replace"], edit["with"])
            reports[old.key] = PageSource(old.key, old.meta, body)
        return ReportsState(exported_at, reports)


def report_files(company: Company, state: ReportsState, slack: SlackState) -> Json:
    """Content of every file of the folder by its name."""
    files: Json = {"export.json": {"exported_at": iso(state.exported_at), "complete": True}}
    for key, report in state.reports.items():
        front = yaml.safe_dump(front_matter(company, report), allow_unicode=True, sort_keys=False)
        body = linked(unwrapped(report.body.splitlines()), slack)
        files[f"{key}.md"] = f"---\n{front}---\n\n# {key}: {report.meta['title']}\n\n{body}\n"
    return files


def front_matter(company: Company, report: PageSource) -> Json:
    """The front matter in full: exact times, and people by their addresses."""
    meta = report.meta
    times = ("started_at", "detected_at", "resolved_at")

    def email(key: str) -> str:
        return company.people[key].email(company.domain)

    return {
        "id": report.key,
        "title": meta["title"],
        "severity": meta["severity"],
        "status": meta["status"],
        **{name: iso(moment(meta[name]), "seconds") for name in times},
        "services": meta["services"],
        "commander": email(meta["commander"]),
        "authors": [email(key) for key in meta["authors"]],
        "tags": meta["tags"],
    }
