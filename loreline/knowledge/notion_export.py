"""The Markdown that Notion's own export writes, in canonical form and beside the API's.

The export says the same in other words: blocks are indented otherwise, callouts are HTML, pages are
linked by files, dates are spelt out. What was seen through the API must not seem edited for that.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

from loreline.knowledge.notion_rich_text import page_url, stable_url
from loreline.knowledge.source_text import canonical_text

_FENCE = re.compile(r"\s*(`{3,}|~{3,})")
# [label](target), whose label has brackets in pairs and whose target parentheses. All repetitions
# here and below are bounded: a text from outside must not be read again from each of its brackets.
_BRACKETED = r"\[((?:[^\[\]]|\[[^\[\]]{0,300}\]){0,1000}+)\]"
_TARGET = r"\(((?:[^()\s]|\([^()\s]{0,300}\)){0,2000}+)\)"
_LINK = re.compile(rf"(!?){_BRACKETED}{_TARGET}")
_ID_OF_FILE = re.compile(r"(?:^|.*[ /])([0-9a-f]{32})(?:_all)?\.(?:md|csv)(?:#.*)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)

_PROPERTY = re.compile(r"- \*\*(.+?):\*\* (.*)")
# Properties that the API's Markdown leaves out, as they change without an edit.
_UNSAID = {"last edited by", "last edited time", "last visited time", "verification"}
_STORED_FILE = re.compile(r"https://\S*(?:amazonaws\.com|notion-static|file\.notion)")
_ITEM = re.compile(r"^[ \t>]*(?:\d{1,9}[.)]\s|[-*+]\s)?", re.MULTILINE)
_FENCE_LINE = re.compile(r"^[ \t>]*(?:```|~~~).*$", re.MULTILINE)
_TAG = re.compile(r"</?[a-z][a-z0-9]{0,20}(?: [^<>]{0,300})?>")
_WORD = re.compile(r"[^\W_]+")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENTS = re.compile(rf"{_DAY.pattern}(T\S*)?( → {_DAY.pattern}(T\S*)?)?")


def export_markdown(markdown: str) -> str:
    """Canonical Markdown of a page of the export, without its title and properties.

    Links to files of pages and databases become links to these; of other files, which are not kept,
    the name stays.
    """
    lines: list[str] = []
    fence, is_aside = "", False
    for line in canonical_text(markdown).split("\n"):
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1].startswith(fence) else fence
        elif mark:
            fence = mark[1]
        elif line.strip() in ("<aside>", "</aside>"):
            is_aside = line.strip() == "<aside>"
            continue
        else:
            line = _LINK.sub(_linked, line)
        lines.append(f"> {line}" if is_aside else line)
    return "\n".join(lines)


def _linked(found: re.Match[str]) -> str:
    image, label, target = found.groups()
    if _SCHEME.match(target):
        return f"{image}[{label}]({stable_url(target)})"
    if page := _ID_OF_FILE.fullmatch(unquote(target)):
        return f"{image}[{label}]({page_url(page[1])})"
    return f"![{label}]()" if image else label


def same_text(one: str, other: str) -> bool:
    """Whether two Markdown texts of a page say the same, one perhaps by the API, one by an export.

    Marks, indentation, numbers of list items, pictures and times of day do not count; words, links
    and days do.
    """
    (properties, text), (others, other_text) = _parts(one), _parts(other)
    return (
        properties.keys() == others.keys()
        and all(_same_value(properties[name], others[name]) for name in properties)
        and _words(text) == _words(other_text)
    )


def _parts(markdown: str) -> tuple[dict[str, str], str]:
    """The properties that a page begins with, and the rest."""
    lines = markdown.split("\n")
    properties: dict[str, str] = {}
    for number, line in enumerate(lines):
        found = _PROPERTY.fullmatch(line)
        if not found:
            return properties, "\n".join(lines[number:])
        if found[1].casefold() not in _UNSAID:
            properties[found[1]] = found[2]
    return properties, ""


def _same_value(one: str, other: str) -> bool:
    if _words(one) == _words(other):
        return True
    # The export tells no zone, so that its times of day cannot be compared.
    is_time = _MOMENTS.fullmatch(one) and _MOMENTS.fullmatch(other)
    return bool(is_time) and _DAY.findall(one) == _DAY.findall(other)


def _words(markdown: str) -> str:
    text = _TAG.sub(" ", _ITEM.sub("", _FENCE_LINE.sub("", markdown)))
    return "".join(_WORD.findall(_LINK.sub(_said, text).casefold()))


def _said(found: re.Match[str]) -> str:
    """What a link says: not where a file is kept, nothing of a picture, and an address once."""
    image, label, target = found.groups()
    if image:
        return ""
    if label.strip() == target or _STORED_FILE.match(target):
        return label
    return f"{label} {target}"
