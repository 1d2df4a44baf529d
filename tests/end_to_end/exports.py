"""Small exports in the sources' own formats, written as a test needs them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

DAY_FORMAT = "%Y-%m-%d"


def page_id(name: str) -> str:
    """The id of a page that a test calls by a name."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def document_of(page: str) -> str:
    """The document of a page that a test calls by a name."""
    return f"notion:{page_id(page)}"


@dataclass(frozen=True)
class Page:
    """A Notion page: its paragraphs, the page that it lies in, and whether it is in the bin."""

    paragraphs: Sequence[str] = ()
    parent: str | None = None
    is_trashed: bool = False
    title: str = "A page"


def write_notion(folder: Path, exported_at: str, pages: Mapping[str, Page]) -> Path:
    """Write an export of pages, by the names that a test calls them by; gives the folder."""
    folder.mkdir(parents=True)
    _write(folder / "export.json", {"exported_at": exported_at})
    _write_lines(
        folder / "pages.jsonl", [_page(name, page, exported_at) for name, page in pages.items()]
    )
    answers = [_answer(name, page) for name, page in pages.items() if not page.is_trashed]
    _write_lines(folder / "blocks.jsonl", answers)
    return folder


@dataclass(frozen=True)
class Message:
    """A Slack message, sent so many seconds after the beginning of 2026-10-05."""

    seconds: int
    text: str
    user: str = "U0AUTHOR"

    @property
    def ts(self) -> str:
        """What Slack calls it by."""
        start = datetime(2026, 10, 5, tzinfo=UTC).timestamp()
        return f"{start + self.seconds:.0f}.000100"


@dataclass(frozen=True)
class Channel:
    """A Slack channel: its id, members, messages, and whether it is private."""

    id: str
    messages: Sequence[Message]
    members: Sequence[str] = ("U0AUTHOR",)
    is_private: bool = False

    def document(self, message: Message) -> str:
        """The document that begins with a message."""
        return f"slack:{self.id}:{message.ts}"


def write_slack(
    folder: Path, exported_at: str, channels: Sequence[Channel], *, is_complete: bool = True
) -> Path:
    """Write an unpacked workspace export; gives the folder."""
    folder.mkdir(parents=True)
    _write(folder / "export.json", {"exported_at": exported_at, "complete": is_complete})
    for name, is_private in (("channels.json", False), ("groups.json", True)):
        listed = [_channel(channel) for channel in channels if channel.is_private == is_private]
        _write(folder / name, listed)
    members = sorted({member for channel in channels for member in channel.members})
    _write(folder / "users.json", [{"id": member, "name": member.lower()} for member in members])
    for channel in channels:
        days: dict[str, list[dict[str, Any]]] = {}
        for message in channel.messages:
            day = datetime.fromtimestamp(float(message.ts), UTC).strftime(DAY_FORMAT)
            days.setdefault(day, []).append(_message(message))
        for day, messages in days.items():
            _write(folder / _channel_name(channel) / f"{day}.json", messages)
    return folder


def _page(name: str, page: Page, exported_at: str) -> dict[str, Any]:
    identity = page_id(name)
    parent = {"type": "page_id", "page_id": page_id(page.parent)} if page.parent else None
    author = {"object": "user", "id": page_id("the author")}
    return {
        "object": "page",
        "id": identity,
        "created_time": "2026-10-01T09:00:00.000Z",
        "last_edited_time": exported_at,
        "created_by": author,
        "last_edited_by": author,
        "parent": parent or {"type": "workspace", "workspace": True},
        "in_trash": page.is_trashed,
        "properties": {"title": {"id": "title", "type": "title", "title": _text(page.title)}},
        "url": f"https://www.notion.so/{identity.replace('-', '')}",
    }


def _answer(name: str, page: Page) -> dict[str, Any]:
    return {
        "object": "list",
        "results": [
            {
                "object": "block",
                "id": page_id(f"{name} block {number}"),
                "parent": {"type": "page_id", "page_id": page_id(name)},
                "type": "paragraph",
                "has_children": False,
                "paragraph": {"rich_text": _text(paragraph)},
            }
            for number, paragraph in enumerate(page.paragraphs)
        ],
        "has_more": False,
        "next_cursor": None,
    }


def _text(content: str) -> list[dict[str, Any]]:
    return [{"type": "text", "plain_text": content, "text": {"content": content, "link": None}}]


def _channel_name(channel: Channel) -> str:
    return f"channel-{channel.id.lower()}"


def _channel(channel: Channel) -> dict[str, Any]:
    return {
        "id": channel.id,
        "name": _channel_name(channel),
        "is_private": channel.is_private,
        "members": list(channel.members),
    }


def _message(message: Message) -> dict[str, Any]:
    return {"type": "message", "ts": message.ts, "user": message.user, "text": message.text}


def _write(file: Path, value: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(value))


def _write_lines(file: Path, values: Sequence[Any]) -> None:
    file.write_text("".join(json.dumps(value) + "\n" for value in values))
