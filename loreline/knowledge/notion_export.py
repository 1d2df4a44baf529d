"""The Markdown that Notion's own export writes, in canonical form and beside the API's.

The export says the same in other words: blocks are indented otherwise, callouts are HTML, pages are
linked by files, dates are spelt out. What was seen through the API must not seem edited for that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from loreline.knowledge.notion_rich_text import page_url, stable_url
from loreline.knowledge.source_text import canonical_text

TEXT, CODE, FENCE = "text", "code", "fence"
_FENCE = re.compile(r"[\s>]*(`{3,}(?=[^`]*$)|~{3,})")
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

# What a line begins with, however its block is written: a quote, with the icon of a callout, an
# item of a list, a heading. The API's Markdown escapes such a mark where it is text.
_BEGINNING = re.compile(
    r"(?:(?:[ \t]*\\?>)+[ \t]*"
    r"(?:[\u2190-\u2bff\U0001f000-\U0001faff\ufe0f\u200d]{1,16}(?=\s|\Z))?)?[ \t]*"
    r"(?:(?:\d{1,9}\\?[.)]|\\?[-*+]|\\?#{1,6})(?=\s|\Z))?"
)
# A divider, a table's second row, and the empty first one of a table that has no header.
_RULE = re.compile(r"[\s>|:*_-]*")
_TAG = re.compile(
    r"</?(?:aside|br|details|div|figcaption|figure|img|mark|p|span|su[bp]|summary|u)"
    r"(?: [^<>]{0,300}|/)?>"
)
_AUTOLINK = re.compile(r"<([^\s<>:@]{1,100}+[:@][^\s<>]{1,2000}+)>")
_CODE_MARK = re.compile(r"`+")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
# A mark that opens or closes: neither within a word, as in 2*3, nor between blanks.
_EMPHASIS = [
    re.compile(rf"(?<![\w{one}]){run}(?!\s|\Z)|(?<![\s{one}]){run}(?!\w)")
    for one, run in ((r"\*", r"\*++"), ("_", "_++"), ("~", "~~"))
]
_MENTION = re.compile(r"(?<!\w)@(?=\w)")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_GROUPED_NUMBER = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENTS = re.compile(rf"{_DAY.pattern}(T\S*)?( → {_DAY.pattern}(T\S*)?)?")


def export_markdown(markdown: str) -> str:
    """Canonical Markdown of a page of the export, without its title and properties.

    Links to files of pages and databases become links to these; of other files, which are not kept,
    the name stays.
    """
    lines: list[str] = []
    is_aside = False
    for line, kind in _kinds(canonical_text(markdown)):
        if kind == TEXT:
            if line.strip() in ("<aside>", "</aside>"):
                is_aside = line.strip() == "<aside>"
                continue
            line = _LINK.sub(_linked, line)
        lines.append(f"> {line}" if is_aside else line)
    return "\n".join(lines)


def _kinds(markdown: str) -> Iterator[tuple[str, str]]:
    """Each line, and whether it is text, code between fences, or a fence."""
    fence = ""
    for line in markdown.split("\n"):
        mark = _FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
            yield line, FENCE
        else:
            yield line, CODE if fence else TEXT


def _linked(found: re.Match[str]) -> str:
    image, label, target = found.groups()
    if _SCHEME.match(target):
        return f"{image}[{label}]({stable_url(target)})"
    if page := _ID_OF_FILE.fullmatch(unquote(target)):
        return f"{image}[{label}]({page_url(page[1])})"
    return f"![{label}]()" if image else label


def same_text(one: str, other: str) -> bool:
    """Whether two Markdown texts of a page say the same, one perhaps by the API, one by an export.

    White space, the marks of Markdown, numbers of list items, pictures and times of day do not
    count, as the routes write them differently; every other character does.
    """
    (properties, text), (others, other_text) = _parts(one), _parts(other)
    return (
        properties.keys() == others.keys()
        and all(_same_value(properties[name], others[name]) for name in properties)
        and _visible(text) == _visible(other_text)
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
    one, other = _visible(one), _visible(other)
    if one == other:
        return True
    if one.casefold() == other.casefold() in ("yes", "no"):
        return True
    # The export tells no zone, so that its times of day cannot be compared.
    if _MOMENTS.fullmatch(one) and _MOMENTS.fullmatch(other):
        return _DAY.findall(one) == _DAY.findall(other)
    return _same_number(one, other) or _same_number(other, one)


def _same_number(plain: str, shown: str) -> bool:
    """Whether the export groups the digits of a number, 1,200.5, that the API tells as 1200.5."""
    is_number = _NUMBER.fullmatch(plain) and _GROUPED_NUMBER.fullmatch(shown)
    return bool(is_number) and plain == shown.replace(",", "")


def _visible(markdown: str) -> str:
    """What is seen of a text, with single blanks: words, signs, and where links lead."""
    lines: list[str] = []
    text: list[str] = []
    for line, kind in [*_kinds(markdown), ("", FENCE)]:
        if kind == TEXT:
            text.append(line)
            continue
        lines += _seen("\n".join(text))
        text.clear()
        lines += [line] if kind == CODE else []
    return " ".join(" ".join(lines).split()).replace(" |", "|").replace("| ", "|")


def _seen(text: str) -> Iterator[str]:
    """The lines of a text outside of fences, without the marks of Markdown."""
    shown = _TAG.sub(" ", _LINK.sub(_said, text)).replace("$$", " ")
    for line in shown.split("\n"):
        if not _RULE.fullmatch(line):
            yield _without_marks(_BEGINNING.sub("", line, count=1))


def _without_marks(line: str) -> str:
    """A line without escapes and marks of emphasis; those that have no partner stay, and code."""
    parts = _CODE_MARK.split(line.replace("\0", ""))
    if len(parts) % 2 == 0:
        parts = [line]
    text = _ESCAPE.sub(r"\1", _AUTOLINK.sub(r"\1", "\0".join(parts[::2])))
    text = _MENTION.sub("", text)
    for mark in _EMPHASIS:
        if sum(map(len, mark.findall(text))) % 2 == 0:
            text = mark.sub("", text)
    parts[::2] = text.split("\0")
    return "".join(parts)


def _said(found: re.Match[str]) -> str:
    """What a link says: not where a file is kept, nothing of a picture, and an address once."""
    image, label, target = found.groups()
    if image:
        return ""
    if label.strip() == target or _STORED_FILE.match(target):
        return label
    return f"{label} {target}"
