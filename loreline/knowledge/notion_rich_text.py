"""Notion's rich text and links as Markdown within a line.

Rich text is a list of runs (https://developers.notion.com/reference/rich-text). How a text is cut
into runs is no content: neighbours that look alike are one run here.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import Any, NamedTuple

from loreline.knowledge.markdown_syntax import code_span, edges, link
from loreline.knowledge.source_text import clean_text, dictionaries, dictionary, one_line, string

# Outermost first; underline and colours have no Markdown and are left out.
_MARKS = {"strikethrough": "~~", "bold": "**", "italic": "*"}

_ID = r"[0-9a-f]{32}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_BARE_ID = re.compile(_ID, re.IGNORECASE)
_PAGE_URL = re.compile(
    rf"(?:(?:https?|notion)://(?:www\.|app\.)?notion\.(?:so|com))?/(?:[^?#]*[-/])?({_ID})(?:[?#].*)?",
    re.IGNORECASE,
)
_PEEKED_PAGE = re.compile(rf"[?&]p=({_ID})(?:[&#]|$)", re.IGNORECASE)
_SIGNATURES = {"x-amz-signature", "x-goog-signature", "signature", "sig"}


class Run(NamedTuple):
    """A part of a rich text that looks the same throughout.

    Attributes:
        text: what is seen.
        url: canonical target, empty without one.
        marks: those of Markdown that are open around it.
        is_code: shown as code.
        is_whole: an object of its own (a mention, an equation): never joined to its neighbours.
    """

    text: str
    url: str = ""
    marks: tuple[str, ...] = ()
    is_code: bool = False
    is_whole: bool = False


def plain_text(rich_text: Any) -> str:
    """The text alone, without marks or links."""
    return "".join(run.text for run in runs(rich_text))


def inline_markdown(rich_text: Any) -> str:
    """Markdown of a rich text; line breaks stay."""
    parts = []
    for url, linked in groupby(runs(rich_text), key=lambda run: run.url):
        label = _marked(list(linked))
        parts.append(link(label, url) if url and label.strip() else label)
    return "".join(parts)


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
    base, _, query = url.partition("?")
    names = {parameter.partition("=")[0].lower() for parameter in query.split("&")}
    return base if names & _SIGNATURES else url


def runs(rich_text: Any) -> list[Run]:
    """The runs of a rich text, alike neighbours joined; what is malformed is left out."""
    joined: list[Run] = []
    for item in dictionaries(rich_text):
        run = _run(item)
        if not run.text:
            continue
        last = joined[-1] if joined else None
        if last and not last.is_whole and last[1:] == run[1:]:
            joined[-1] = Run(last.text + run.text, *run[1:])
        else:
            joined.append(run)
    # Only now: a cut between two runs may go through a line end or a surrogate pair.
    return [Run(clean_text(run.text), *run[1:]) for run in joined]


def _run(item: dict[str, Any]) -> Run:
    annotations = dictionary(item.get("annotations"))
    marks = tuple(mark for name, mark in _MARKS.items() if annotations.get(name) is True)
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


def _marked(linked: list[Run]) -> str:
    """Runs with their marks opened and closed as a stack, white space outside of them."""
    out: list[str] = []
    open_marks: list[str] = []
    gap = ""
    for run in linked:
        lead, text, trail = edges(run.text)
        if not text:
            gap += run.text
            continue
        while not set(open_marks) <= set(run.marks):
            out.append(open_marks.pop())
        out.append(gap + lead)
        opened = [mark for mark in run.marks if mark not in open_marks]
        out += [*opened, code_span(text) if run.is_code else text]
        open_marks += opened
        gap = trail
    return "".join([*out, *reversed(open_marks), gap])


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""
