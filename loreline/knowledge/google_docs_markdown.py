"""Canonical Markdown of a Google document: the same content always gives the same bytes.

Written for the answers of `documents.get` of the Docs API v1, with the content of tabs or without
(https://developers.google.com/workspace/docs/api/reference/rest/v1/documents). What is kept,
dropped and escaped, and why, is in `docs/decisions/google-docs.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from loreline.knowledge.inline_runs import MARKS, Run, joined, markdown_of, unsigned_url
from loreline.knowledge.markdown_syntax import fenced_code, link, without_block_marks
from loreline.knowledge.source_text import (
    canonical_text,
    clean_text,
    dictionaries,
    dictionary,
    one_line,
    parse_json,
    string,
)

# Raise it whenever the same payload would give another Markdown.
CANONICALIZER_VERSION = 1

Json = dict[str, Any]

# A subtitle opens no section: it is a paragraph.
_HEADINGS = {"TITLE": 1, **{f"HEADING_{level}": level for level in range(1, 7)}}
_ORDERED = {"DECIMAL", "ZERO_DECIMAL", "ALPHA", "UPPER_ALPHA", "ROMAN", "UPPER_ROMAN"}
# The editor has nine levels of lists.
_DEEPEST_LEVEL = 8
# The most that CommonMark reads as the number of a list item.
_LARGEST_NUMBER = 999_999_999
# JSON that can be landed is nested 254 levels deep, a table in a cell takes seven of them.
_DEEPEST_TABLE = 40
# What the API writes in the place of something that it does not tell.
_UNTOLD = "\ue907"
_CODE_FONTS = {
    "andale mono",
    "anonymous pro",
    "consolas",
    "courier",
    "courier new",
    "courier prime",
    "cousine",
    "fira code",
    "inconsolata",
    "lucida console",
    "menlo",
    "monaco",
    "nanum gothic coding",
    "source code pro",
    "vt323",
}


def google_docs_markdown(answer: str) -> str:
    """Markdown of all tabs of a document, without its title.

    Suggestions count as not accepted. What is malformed or of an unknown type is left out.

    Args:
        answer: JSON text of an answer of `documents.get`; what is no JSON gives no text.
    """
    return document_markdown(dictionary(parse_json(answer)))


def document_markdown(document: Json) -> str:
    """The same of an answer that was parsed."""
    tabs = list(_tabs(document))
    lines = _Lines()
    for tab in tabs:
        shift = 0
        if len(tabs) > 1:
            # A tab is a section, and what is in it lies below its heading.
            shift = tab.depth + 1
            lines.heading(shift, tab.title)
        _TabWriter(tab.content, lines, shift).write()
    return canonical_text("\n".join(lines.written))


class _Tab(NamedTuple):
    """A tab: how deep it lies below others, its title, and its `documentTab`."""

    depth: int
    title: str
    content: Json


def _tabs(document: Json) -> Iterator[_Tab]:
    """All tabs, each before those below it; an answer without tabs is one itself."""
    pending = [(0, tab) for tab in reversed(dictionaries(document.get("tabs")))]
    if not pending:
        yield _Tab(0, "", document)
    while pending:
        depth, tab = pending.pop()
        title = one_line(string(dictionary(tab.get("tabProperties")).get("title")))
        yield _Tab(depth, title, dictionary(tab.get("documentTab")))
        pending += [(depth + 1, below) for below in reversed(dictionaries(tab.get("childTabs")))]


class _Item(NamedTuple):
    """A list item that the next one may lie in: its level, its marker's width, and its kind."""

    level: int
    width: int
    family: str


class _Lines:
    """The Markdown written so far, of all tabs."""

    def __init__(self) -> None:
        self.written: list[str] = []
        self.footnotes = 0
        self._items: list[_Item] = []

    def block(self, text: str) -> None:
        """Write a block that is no list item."""
        if text:
            self._items.clear()
            self.written += [*([""] if self.written else []), *text.split("\n")]

    def heading(self, level: int, text: str) -> None:
        """Write a heading, none deeper than Markdown has."""
        self.block(f"{'#' * min(level, 6)} {text}" if text else "")

    def item(self, level: int, marker: str, text: str) -> None:
        """Write a list item, below the last one of a lesser level."""
        family = "bullet" if marker == "- " else "number"
        continues = bool(self._items)
        while self._items and self._items[-1].level >= level:
            sibling = self._items.pop()
            continues = sibling.level > level or sibling.family == family
        indent = " " * sum(item.width for item in self._items)
        if self.written and not continues:
            self.written.append("")
        first, *others = text.split("\n")
        self.written.append(indent + marker + first)
        self.written += [indent + " " * len(marker) + line for line in others]
        self._items.append(_Item(level, len(marker), family))


class _TabWriter:
    """Writes one tab.

    Args:
        content: the `documentTab`, or the document where the answer has no tabs.
        lines: where to write.
        shift: how much deeper headings are than their styles say.
    """

    def __init__(self, content: Json, lines: _Lines, shift: int) -> None:
        self.body = dictionary(content.get("body")).get("content")
        self.lists = dictionary(content.get("lists"))
        self.footnotes = dictionary(content.get("footnotes"))
        self.inline_objects = dictionary(content.get("inlineObjects"))
        self.positioned_objects = dictionary(content.get("positionedObjects"))
        self.lines = lines
        self.shift = shift
        self._numbers: dict[str, dict[int, int]] = {}
        self._footnote_labels: dict[str, int] = {}
        self._cited: deque[str] = deque()

    def write(self) -> None:
        """Write the body, then the footnotes that it refers to."""
        code: list[str] = []
        for kind, value in _structure(self.body):
            line = _code_line(value) if kind == "paragraph" else None
            if line is not None:
                code.append(line)
                continue
            self._write_code(code)
            if kind == "paragraph":
                self._write_paragraph(value)
            elif kind == "table":
                self.lines.block(_table_markdown(self._rows(value, 0), _has_header(value)))
            else:
                for _, text in self._texts(value.get("content"), 0):
                    self.lines.item(0, "- ", text)
        self._write_code(code)
        self._write_footnotes()

    def _write_code(self, code: list[str]) -> None:
        text = clean_text("\n".join(code)).strip("\n")
        code.clear()
        if text.strip():
            self.lines.block(fenced_code(text))

    def _write_paragraph(self, paragraph: Json) -> None:
        runs = list(self._runs(paragraph))
        style = string(dictionary(paragraph.get("paragraphStyle")).get("namedStyleType"))
        if style in _HEADINGS:
            self.lines.heading(_HEADINGS[style] + self.shift, _one_line_of(runs))
        elif marker := self._marker(paragraph):
            if text := _text_of(runs):
                self.lines.item(_level(paragraph), marker, text)
        else:
            self._write_between_rules(runs)

    def _write_between_rules(self, runs: list[Run | None]) -> None:
        before: list[Run | None] = []
        for run in runs:
            if run is None:
                self.lines.block(_text_of(before))
                self.lines.block("---")
                before = []
            else:
                before.append(run)
        self.lines.block(_text_of(before))

    def _write_footnotes(self) -> None:
        """Write what was referred to; a footnote may refer to another."""
        while self._cited:
            identity = self._cited.popleft()
            texts = [
                text if is_item else without_block_marks(text)
                for is_item, text in self._texts(self.footnotes[identity]["content"], 0)
            ]
            first, *others = "\n\n".join(texts).split("\n")
            indented = "\n".join([first, *(f"    {line}" for line in others)])
            self.lines.block(f"[^{self._footnote_labels[identity]}]: {indented}")

    def _texts(self, content: Any, depth: int) -> Iterator[tuple[bool, str]]:
        """The texts of what lies in a cell, a footnote or a table of contents, line by line.

        Yields:
            Whether it is a list item, and the text.
        """
        for kind, value in _structure(content):
            if kind == "paragraph":
                marker = self._marker(value)
                if text := _text_of(list(self._runs(value)), escape=False):
                    yield bool(marker), marker + text
            elif kind == "table":
                for row in self._rows(value, depth + 1):
                    if text := " / ".join(filter(None, row)):
                        yield False, text
            elif depth < _DEEPEST_TABLE:
                yield from self._texts(value.get("content"), depth + 1)

    def _rows(self, table: Json, depth: int) -> list[list[str]]:
        """The cells of a table as Markdown, a row each."""
        if depth > _DEEPEST_TABLE:
            return []
        rows = [
            [
                "\n".join(text for _, text in self._texts(cell.get("content"), depth))
                for cell in dictionaries(row.get("tableCells"))
                if not _is_suggested(cell)
            ]
            for row in dictionaries(table.get("tableRows"))
            if not _is_suggested(row)
        ]
        return [row for row in rows if row]

    def _marker(self, paragraph: Json) -> str:
        """What a list item starts with, counted on; empty where the paragraph is none."""
        bullet = paragraph.get("bullet")
        if not isinstance(bullet, dict):
            return ""
        identity, level = string(bullet.get("listId")), _level(paragraph)
        properties = dictionary(dictionary(self.lists.get(identity)).get("listProperties"))
        levels = dictionaries(properties.get("nestingLevels"))
        look = levels[level] if level < len(levels) else {}
        numbers = self._numbers.setdefault(identity, {})
        for deeper in [known for known in numbers if known > level]:
            del numbers[deeper]
        if string(look.get("glyphType")) not in _ORDERED:
            return "- "
        start = look.get("startNumber")
        before = start - 1 if isinstance(start, int) and 1 <= start <= _LARGEST_NUMBER else 0
        numbers[level] = min(numbers.get(level, before) + 1, _LARGEST_NUMBER)
        return f"{numbers[level]}. "

    def _runs(self, paragraph: Json) -> Iterator[Run | None]:
        """What a paragraph shows; None is a rule or the break of a page."""
        for element in paragraph["elements"]:
            for kind, shown in _ELEMENTS.items():
                if isinstance(value := element.get(kind), dict):
                    yield shown(self, value)
        tethered_ids = paragraph.get("positionedObjectIds")
        for identity in tethered_ids if isinstance(tethered_ids, list) else []:
            tethered = dictionary(self.positioned_objects.get(string(identity)))
            yield self._image(dictionary(tethered.get("positionedObjectProperties")))

    def _text_run(self, value: Json) -> Run:
        style = dictionary(value.get("textStyle"))
        text = string(value.get("content")).replace(_UNTOLD, "")
        return Run(text, _url(style), _marks(style), is_code=_is_code(style))

    def _person(self, value: Json) -> Run:
        person = dictionary(value.get("personProperties"))
        name = one_line(string(person.get("name")) or string(person.get("email")))
        return _whole(f"@{name}" if name else "", value)

    def _rich_link(self, value: Json) -> Run:
        properties = dictionary(value.get("richLinkProperties"))
        url = _stable(properties.get("uri"))
        return _whole(one_line(string(properties.get("title"))) or url, value, url)

    def _date(self, value: Json) -> Run:
        date = dictionary(value.get("dateElementProperties"))
        shown = one_line(string(date.get("displayText"))) or string(date.get("timestamp"))[:10]
        return _whole(shown, value)

    def _dropdown(self, value: Json) -> Run:
        chosen = dictionary(value.get("dropdownProperties"))
        return _whole(one_line(string(chosen.get("displayValue"))), value)

    def _equation(self, value: Json) -> Run:
        # The API tells that there is one, and not what it says.
        return Run("[equation]", is_whole=True)

    def _footnote_reference(self, value: Json) -> Run:
        identity = string(value.get("footnoteId"))
        if not isinstance(dictionary(self.footnotes.get(identity)).get("content"), list):
            return Run("")
        if identity not in self._footnote_labels:
            self.lines.footnotes += 1
            self._footnote_labels[identity] = self.lines.footnotes
            self._cited.append(identity)
        return Run(f"[^{self._footnote_labels[identity]}]", is_whole=True)

    def _inline_object(self, value: Json) -> Run:
        shown = dictionary(self.inline_objects.get(string(value.get("inlineObjectId"))))
        image = self._image(dictionary(shown.get("inlineObjectProperties")))
        return image._replace(url=_url(dictionary(value.get("textStyle"))))

    def _image(self, properties: Json) -> Run:
        """An image by what is said of it; where it is shown from expires within the hour."""
        shown = dictionary(properties.get("embeddedObject"))
        said = (one_line(string(shown.get(part))) for part in ("title", "description"))
        alternative = ": ".join(filter(None, said))
        url = _stable(dictionary(shown.get("imageProperties")).get("sourceUri"))
        label = alternative or url.rstrip("/").rsplit("/", 1)[-1]
        return Run(f"!{link(label, url)}" if label else "", is_whole=True)

    def _rule(self, value: Json) -> None:
        return None

    def _column_break(self, value: Json) -> Run:
        return Run("\n")


_ELEMENTS: dict[str, Callable[[_TabWriter, Json], Run | None]] = {
    "columnBreak": _TabWriter._column_break,
    "dateElement": _TabWriter._date,
    "dropdown": _TabWriter._dropdown,
    "equation": _TabWriter._equation,
    "footnoteReference": _TabWriter._footnote_reference,
    "horizontalRule": _TabWriter._rule,
    "inlineObjectElement": _TabWriter._inline_object,
    "pageBreak": _TabWriter._rule,
    "person": _TabWriter._person,
    "richLink": _TabWriter._rich_link,
    "textRun": _TabWriter._text_run,
}


def _structure(content: Any) -> Iterator[tuple[str, Json]]:
    """Paragraphs, tables and tables of contents as if no suggestion were accepted.

    Where a suggestion would cut a paragraph in two, it is one: its beginning waits for its end.
    """
    beginning: list[Json] = []
    for element in dictionaries(content):
        for kind in ("paragraph", "table", "tableOfContents"):
            value = element.get(kind)
            if not isinstance(value, dict):
                continue
            if kind == "paragraph":
                elements = dictionaries(value.get("elements"))
                kept = [*beginning, *(each for each in elements if not _is_suggested_element(each))]
                beginning = kept if elements and _is_suggested_element(elements[-1]) else []
                if not beginning:
                    yield kind, {**value, "elements": kept}
            elif not _is_suggested(value):
                if beginning:
                    yield "paragraph", {"elements": beginning}
                    beginning = []
                yield kind, value
    if beginning:
        yield "paragraph", {"elements": beginning}


def _is_suggested(value: Json) -> bool:
    return bool(value.get("suggestedInsertionIds"))


def _is_suggested_element(element: Json) -> bool:
    return any(
        isinstance(value := element.get(kind), dict) and _is_suggested(value) for kind in _ELEMENTS
    )


def _code_line(paragraph: Json) -> str | None:
    """The text of a paragraph that is written in a font for code throughout; None of others."""
    style = string(dictionary(paragraph.get("paragraphStyle")).get("namedStyleType"))
    if style in _HEADINGS or "bullet" in paragraph or paragraph.get("positionedObjectIds"):
        return None
    parts = []
    for element in paragraph["elements"]:
        run = element.get("textRun")
        if not isinstance(run, dict):
            return None
        text = string(run.get("content")).replace(_UNTOLD, "")
        look = dictionary(run.get("textStyle"))
        if text and (not _is_code(look) or "link" in look):
            return None
        parts.append(text)
    return "".join(parts).removesuffix("\n") if any(parts) else None


def _text_of(runs: Iterable[Run | None], *, escape: bool = True) -> str:
    text = markdown_of(joined(run for run in runs if run)).strip()
    return without_block_marks(text) if escape else text


def _one_line_of(runs: Iterable[Run | None]) -> str:
    return one_line(_text_of(runs, escape=False))


def _has_header(table: Json) -> bool:
    rows = [row for row in dictionaries(table.get("tableRows")) if not _is_suggested(row)]
    return bool(rows) and dictionary(rows[0].get("tableRowStyle")).get("tableHeader") is True


def _table_markdown(rows: list[list[str]], has_header: bool) -> str:
    width = max((len(row) for row in rows), default=0)
    if not any(cell for row in rows for cell in row):
        return ""
    header, *body = rows if has_header else [[""] * width, *rows]
    lines = [
        "| " + " | ".join([*map(_cell, row), *[""] * (width - len(row))]) + " |"
        for row in [header, ["---"] * width, *body]
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return "<br>".join(filter(None, map(one_line, text.split("\n")))).replace("|", "\\|")


def _level(paragraph: Json) -> int:
    level = dictionary(paragraph.get("bullet")).get("nestingLevel")
    return min(max(level, 0), _DEEPEST_LEVEL) if isinstance(level, int) else 0


def _whole(text: str, value: Json, url: str = "") -> Run:
    """A chip, which is never joined to the text around it."""
    style = dictionary(value.get("textStyle"))
    return Run(text, url or _url(style), _marks(style), is_whole=True)


def _marks(style: Json) -> tuple[str, ...]:
    return tuple(mark for name, mark in MARKS.items() if style.get(name) is True)


def _url(style: Json) -> str:
    """Where a text leads; what leads to another place of the document shows its text alone."""
    return _stable(dictionary(style.get("link")).get("url"))


def _stable(url: Any) -> str:
    return unsigned_url(string(url).strip())


def _is_code(style: Json) -> bool:
    font = dictionary(style.get("weightedFontFamily")).get("fontFamily")
    name = string(font).lower()
    return name in _CODE_FONTS or "mono" in name.split()
