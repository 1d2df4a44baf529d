"""Addresses of what the story's documents link to, by the names that the story gives them.

page:inc-41                             a Notion page
doc:pomona-load-test                    a Google document
issue:ENG-113                           a Linear issue
report:INC-41                           an incident report
slack:incidents/2026-09-17T11:44/jonas  a Slack message
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING

from company import digest, uuid_of

if TYPE_CHECKING:
    from slack_export import SlackState

LINEAR = "https://linear.app/brambleworks"
REPORTS = "https://git.brambleworks.example/bramble/incidents/src/main"
SLACK = "https://brambleworks.slack.com/archives"
LINK = re.compile(r"\]\((?P<target>(?:page|doc|issue|report|slack):[^)\s]+)\)")


def page_id(key: str) -> str:
    """Id of the Notion page whose file is called `key`."""
    return uuid_of("notion page", key)


def page_url(key: str) -> str:
    """Address of a Notion page, as in the recorded answers."""
    return "https://app.notion.com/p/" + page_id(key).replace("-", "")


def document_id(key: str) -> str:
    """Id of the Google document whose file is called `key`: 44 letters, as Drive gives them."""
    letters = base64.urlsafe_b64encode(bytes.fromhex(digest("google document", key)))
    return "1" + letters.decode().rstrip("=")


def document_url(key: str) -> str:
    """Address of a Google document."""
    return f"https://docs.google.com/document/d/{document_id(key)}/edit"


def address(target: str) -> str:
    """The address that a target without a Slack message names; other text is an address itself."""
    kind, _, key = target.partition(":")
    if kind == "page":
        return page_url(key)
    if kind == "doc":
        return document_url(key)
    if kind == "issue":
        return f"{LINEAR}/issue/{key}"
    if kind == "report":
        return f"{REPORTS}/{key}.md"
    return target


def permalink(slack: SlackState, place: str) -> str:
    """Address of a Slack message, named by channel, minute and author."""
    key, at, who = place.split("/")
    message = slack.channels[key].find(f"{at.replace('T', ' ')} {who}")
    channel = slack.channels[key].identity
    link = f"{SLACK}/{channel}/p{message.ts.replace('.', '')}"
    if message.thread_ts:
        link += f"?thread_ts={message.thread_ts}&cid={channel}"
    return link


def linked(markdown: str, slack: SlackState) -> str:
    """Markdown whose links lead to addresses."""

    def target(found: re.Match[str]) -> str:
        kind, _, place = found["target"].partition(":")
        url = permalink(slack, place) if kind == "slack" else address(found["target"])
        return f"]({url})"

    return LINK.sub(target, markdown)
