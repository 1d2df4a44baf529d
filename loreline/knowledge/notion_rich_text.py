"""Notion's rich text and links as Markdown within a line.

Rich text is a list of runs (https://developers.notion.com/reference/rich-text). How a text is cut
into runs is no content: neighbours that look alike are one run here.
"""

from __future__ import annotations

import re
from typing import Any

from loreline.knowledge.inline_runs import MARKS, Run, joined, markdown_of, unsigned_url
from loreline.knowledge.source_text import clean_text, dictionaries, dictionary, one_line, string

_ID = r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_BARE_ID = re.compile(_ID, re.IGNORECASE)
_PAGE_URL = re.compile(
    rf"(?:(?:https?|notion)://(?:www\.|app\.)?notion\.(?:so|com))?/(?:[^?#]*[-/])?({_ID})(?:[?#].*)?",
    re.IGNORECASE,
)
_PEEKED_PAGE = re.compile(rf"[?&]p=({_ID})(?:[&#]|$)", re.IGNORECASE)


def plain_text(rich_text: Any) -> str:
    """The text alone, without marks or links."""
    return "".join(run.text for run in runs(rich_text))


def inline_markdown(rich_text: Any) -> str:
    """Markdown of a rich text; line breaks stay."""
    return markdown_of(runs(rich_text))


def page_url(page_id: Any) -> str:
    """The canonical URL of a page, database or block; empty for what is no id."""
    if isinstance(page_id, str) and _BARE_ID.fullmatch(page_id):
        return f"https://www.notion.so/{page_id.replace('-', '').lower()}"
    return ""


def stable_url(url: Any) -> str:
    """A URL that stays the same: pages by their id, signed URLs without what expires."""
    if not isinstance(url, str):
        return ""
    url = clean_text(url).strip()
    if page := _PAGE_URL.fullmatch(url):
        peeked_at = _PEEKED_PAGE.search(url)
        return page_url(peeked_at[1] if peeked_at else page[1])
    return unsigned_url(url)


def runs(rich_text: Any) -> list[Run]:
    """The runs of a rich text, alike neighbours joined; what is malformed is left out."""
    return joined(map(_run, dictionaries(rich_text)))


def _run(item: dict[str, Any]) -> Run:
    annotations = dictionary(item.get("annotations"))
    marks = tuple(mark for name, mark in MARKS.items() if annotations.get(name) is True)
    kind = item.get("type")
    value = dictionary(item.get(kind)) if isinstance(kind, str) else {}
    if kind == "mention":
        text, url = _mention(value, string(item.get("plain_text")))
        return Run(text, url, marks, is_whole=True)
    if kind == "equation":
        expression = string(value.get("expression")) or string(item.get("plain_text"))
        return Run(f"${one_line(expression)}$" if expression else "", marks=marks, is_whole=True)
    text = next((t for t in (item.get("plain_text"), value.get("content")) if _is_text(t)), "")
    url = stable_url(item.get("href") or dictionary(value.get("link")).get("url"))
    return Run(text, url, marks, is_code=annotations.get("code") is True)


def _mention(mention: dict[str, Any], text: str) -> tuple[str, str]:
    """What a mention shows, and where it leads."""
    kind = mention.get("type")
    value = dictionary(mention.get(kind)) if isinstance(kind, str) else {}
    if kind == "user":
        return f"@{string(value.get('name')) or text.removeprefix('@')}", ""
    if kind == "date":
        return date_text(value) or text, ""
    if kind in ("link_preview", "link_mention"):
        url = stable_url(value.get("url") or value.get("href"))
        return string(value.get("title")) or text or url, url
    if kind == "custom_emoji":
        return f":{string(value.get('name')) or text.strip(':')}:", ""
    return text or "Untitled", page_url(value.get("id"))


def date_text(date: Any) -> str:
    """`start` or `start → end`, as ISO 8601."""
    date = dictionary(date)
    return " → ".join(filter(None, (string(date.get("start")), string(date.get("end")))))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""
