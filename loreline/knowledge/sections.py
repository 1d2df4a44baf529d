"""The sections of a Markdown body, under their headings."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

# Longer headings are cut in the path: it is repeated with every chunk of a section.
MOST_TITLE_CHARACTERS = 200

# A fence may be indented, as code in a list is. A heading may not: one inside a list item belongs
# to that item and opens no section.
_HEADING_OR_FENCE = re.compile(
    r"^(?P<marks>\#{1,6})(?:[ \t]+(?P<heading>[^\n]*))?\r?$"
    r"|^[ \t]*(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)$"
    r"|(?<![^\r\n]\n)(?<![^\r\n]\r\n)^(?!\d+[.)]\s)(?P<underlined>[^\s\#>|*+`~-][^\n]*)\n"
    r"(?:(?P<double>=+)|-{3,})[ \t\r]*$",
    re.MULTILINE,
)
# Only lines that begin like this, or that such a line underlines, are looked at: the line end in
# front lets the search jump from line to line.
_MARKED_LINE = re.compile(r"\n(?:[ \t]*(?:```|~~~)|#|=|---)")
_MARKUP = re.compile(r"[#\[*~`\\]")
_CLOSING_MARKS = re.compile(r"(?:^|[ \t]+)#+$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
_EMPHASIS = re.compile(r"(\*\*|~~|`+|\*)(\S(?:.*?\S)?)\1")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


class Section(NamedTuple):
    """A heading and what follows it up to the next one, or what precedes the first heading.

    Attributes:
        start, end: from where up to where, in code points from 0.
        heading_path: texts of the enclosing headings and its own, outermost first.
        is_bare: it is a heading without text.
    """

    start: int
    end: int
    heading_path: tuple[str, ...]
    is_bare: bool = False


def sections(body: str) -> Iterator[Section]:
    """The sections of a Markdown body, in order; together they are the whole body.

    Headings are those that start in the first column, `# …` or underlined, outside of fenced code
    (CommonMark 0.31, sections 4.2, 4.3 and 4.5).
    """
    open_headings: list[tuple[int, str]] = []
    start = text_start = 0
    for match in _headings(body):
        yield _section(body, start, text_start, match.start(), open_headings)
        level, title = _level_and_title(match)
        open_headings = [*(h for h in open_headings if h[0] < level), (level, title)]
        start, text_start = match.span()
    yield _section(body, start, text_start, len(body), open_headings)


def _headings(body: str) -> Iterator[re.Match[str]]:
    fence = ""
    for match in _headings_and_fences(body):
        mark = match["fence"]
        if not mark:
            if not fence:
                yield match
        elif not fence:
            # An info string after backticks has none: otherwise it is code within a line.
            if mark[0] == "~" or "`" not in match["info"]:
                fence = mark
        elif mark.startswith(fence) and not match["info"].strip():
            fence = ""


def _headings_and_fences(body: str) -> Iterator[re.Match[str]]:
    end = 0
    if first := _HEADING_OR_FENCE.match(body):
        yield first
        end = first.end()
    for marked in _MARKED_LINE.finditer(body):
        line = marked.start() + 1
        if body[line] in "=-":
            line = body.rfind("\n", 0, marked.start()) + 1
        if line >= end and (match := _HEADING_OR_FENCE.match(body, line)):
            yield match
            end = match.end()


def _section(
    body: str, start: int, text_start: int, end: int, headings: list[tuple[int, str]]
) -> Section:
    return Section(
        start,
        end,
        tuple(title for _, title in headings if title),
        is_bare=bool(headings) and not body[text_start:end].strip(),
    )


def _level_and_title(match: re.Match[str]) -> tuple[int, str]:
    if match["marks"]:
        level, title = len(match["marks"]), match["heading"] or ""
    else:
        level, title = (1 if match["double"] else 2), match["underlined"]
    title = title.strip()[:MOST_TITLE_CHARACTERS].rstrip()
    if _MARKUP.search(title):
        title = _LINK.sub(r"\1", _CLOSING_MARKS.sub("", title))
        title = _ESCAPE.sub(r"\1", _EMPHASIS.sub(r"\2", title))
    return level, title


class HeadingPaths:
    """The headings above any place of a body; it is searched for them when it is first asked."""

    def __init__(self, body: str) -> None:
        self._body = body

    def at(self, place: int) -> tuple[str, ...]:
        """Texts of the headings above a place, outermost first."""
        starts, paths = self._found
        return paths[bisect_right(starts, place) - 1]

    @cached_property
    def _found(self) -> tuple[list[int], list[tuple[str, ...]]]:
        found = list(sections(self._body))
        return [section.start for section in found], [section.heading_path for section in found]
