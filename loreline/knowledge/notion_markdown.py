"""Canonical Markdown of a Notion page: the same content always gives the same bytes.

Written for the blocks and property values of API versions 2025-09-03 and 2026-03-11
(https://developers.notion.com/reference/block). What is kept, dropped and escaped, and why, is in
`docs/decisions/canonical-markdown.md`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from loreline.knowledge.markdown_syntax import fenced_code, link, without_block_marks
from loreline.knowledge.notion_export import export_markdown
from loreline.knowledge.notion_rich_text import (
    date_text,
    inline_markdown,
    page_url,
    plain_text,
    stable_url,
)
from loreline.knowledge.source_text import (
    canonical_text,
    dictionaries,
    dictionary,
    one_line,
    parse_json,
    string,
)

# Raise it whenever the same payload would give another Markdown.
CANONICALIZER_VERSION = 1

# Deeper blocks keep this indentation, so that a body grows with its text and not with its depth.
DEEPEST_LEVEL = 20


def notion_markdown(page_payload: str) -> str:
    """Markdown of a page's properties and blocks, without its title.

    Args:
        page_payload: JSON text of `{"page": …, "blocks": […]}`, page and blocks as the API returns
            them, each block's child blocks added to it as `children`; or of `{"page": …,
            "markdown": …}` from an export. What is malformed or of an unknown type is left out;
            what is no JSON gives no text.
    """
    payload = dictionary(parse_json(page_payload))
    page, blocks = _page_and_blocks(payload)
    exported = payload.get("markdown")
    text = export_markdown(exported) if isinstance(exported, str) else _Writer().write(blocks)
    return canonical_text("\n\n".join(filter(None, (_properties(page), text))))


def notion_title(page_payload: str) -> str:
    """Plain title of a page, database row, database or data source; empty when it has none."""
    page, _ = _page_and_blocks(dictionary(parse_json(page_payload)))
    values = [value for _, value in _values(page) if value.get("type") == "title"]
    return canonical_text(one_line("".join(plain_text(v.get("title")) for v in [page, *values])))


def notion_unsupported_blocks(page_payload: str) -> int:
    """How many blocks, at any depth, the Markdown leaves out: of an unknown type or malformed."""
    writer = _Writer()
    writer.write(_page_and_blocks(dictionary(parse_json(page_payload)))[1])
    return writer.unsupported


def _page_and_blocks(payload: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
    blocks = payload.get("blocks")
    return dictionary(payload.get("page")), blocks if isinstance(blocks, list) else []


@dataclass(frozen=True)
class _Part:
    """What one block shows.

    Attributes:
        text: lines without indentation; empty for a block that only holds others.
        marker: what its first line starts with.
        inner: what its other lines, and all of its children, start with.
        family: neighbours of one family of list items are not separated by an empty line.
        shows_children: its child blocks follow; else they are part of `text`, or of nothing.
    """

    text: str = ""
    marker: str = ""
    inner: str = ""
    family: str = ""
    shows_children: bool = True


@dataclass
class _Level:
    """Sibling blocks while they are being written."""

    blocks: Iterator[Any]
    prefix: str = ""
    depth: int = 0
    number: int = 0
    family: str = ""


class _Writer:
    """Writes blocks depth first, without recursion: a page may be nested to any depth."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.unsupported = 0
        self._last_was_item = False

    def write(self, blocks: list[Any]) -> str:
        """Markdown of sibling blocks and all below them."""
        levels = [_Level(iter(blocks))]
        while levels:
            level = levels[-1]
            for block in level.blocks:
                inner = self._write_block(block, level)
                if inner:
                    levels.append(inner)
                    break
            else:
                levels.pop()
        return "\n".join(self.lines)

    def _write_block(self, block: Any, level: _Level) -> _Level | None:
        """Write one block; its children are the level to be written next."""
        block = dictionary(block)
        kind = string(block.get("type"))
        content = dictionary(block.get(kind))
        children = block.get("children") if isinstance(block.get("children"), list) else []
        part = _Part()
        if kind in _BLOCKS:
            part = _BLOCKS[kind](content, block)
        else:
            self.unsupported += 1
        if part.family == "number":
            start = content.get("list_start_index")
            level.number = level.number + 1 if level.number or not _is_count(start) else start
            marker = f"{level.number}. "
            part = _Part(part.text, marker, " " * len(marker), "number")
        else:
            level.number = 0
        children = children if part.shows_children else []
        if part.text or (part.marker and children):
            self._emit(part, level)
        if not children:
            return None
        is_deepest = level.depth == DEEPEST_LEVEL
        prefix = level.prefix + ("" if is_deepest else part.inner)
        return _Level(iter(children), prefix, level.depth + (prefix != level.prefix))

    def _emit(self, part: _Part, level: _Level) -> None:
        is_item = bool(part.family)
        is_same_list = is_item and self._last_was_item and level.family in ("", part.family)
        if self.lines and not is_same_list:
            self.lines.append(level.prefix)
        first, *others = part.text.split("\n")
        self.lines.append(level.prefix + part.marker + first)
        self.lines += [level.prefix + part.inner + line for line in others]
        level.family = part.family
        self._last_was_item = is_item


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**9


def _text(content: dict[str, Any]) -> str:
    """The block's own text; what would look like another block is escaped."""
    return without_block_marks(inline_markdown(content.get("rich_text")).strip())


def _paragraph(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    return _Part(_text(content))


def _heading(level: int) -> Callable[[dict[str, Any], dict[str, Any]], _Part]:
    def heading(content: dict[str, Any], block: dict[str, Any]) -> _Part:
        text = one_line(inline_markdown(content.get("rich_text")))
        return _Part(f"{'#' * level} {text}" if text else "")

    return heading


def _bulleted(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    return _Part(_text(content), "- ", "  ", "bullet")


def _numbered(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    return _Part(_text(content), family="number")


def _to_do(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    box = "x" if content.get("checked") is True else " "
    return _Part(_text(content), f"- [{box}] ", "  ", "bullet")


def _quote(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    return _Part(_text(content), "> ", "> ")


def _callout(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    emoji = string(dictionary(content.get("icon")).get("emoji"))
    return _Part(" ".join(filter(None, (emoji, _text(content)))), "> ", "> ")


def _code(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    code = plain_text(content.get("rich_text"))
    caption = inline_markdown(content.get("caption")).strip()
    if not code.strip():
        return _Part(caption)
    language = string(content.get("language"))
    fenced = fenced_code(code, "" if language == "plain text" else language)
    return _Part("\n\n".join(filter(None, (fenced, caption))))


def _equation(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    expression = string(content.get("expression")).strip()
    return _Part(f"$$\n{expression}\n$$" if expression else "")


def _divider(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    return _Part("---")


def _nothing(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    return _Part()


def _table(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    rows = [
        [_cell(cell) for cell in cells]
        for row in dictionaries(block.get("children"))
        if isinstance(cells := dictionary(row.get("table_row")).get("cells"), list)
    ]
    width = max((len(row) for row in rows), default=0)
    if not width:
        return _Part(shows_children=False)
    header, body = ([""] * width, rows)
    if content.get("has_column_header") is True:
        header, *body = rows
    lines = [
        "| " + " | ".join(row + [""] * (width - len(row))) + " |"
        for row in [header, ["---"] * width, *body]
    ]
    return _Part("\n".join(lines), shows_children=False)


def _cell(rich_text: Any) -> str:
    text = inline_markdown(rich_text).strip().replace("|", "\\|")
    return re.sub(r"\s*\n\s*", "<br>", text)


def _file(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    """An image, video, file …: a link to it, named by its caption, its name or its URL's end."""
    kind = string(content.get("type"))
    url = stable_url(dictionary(content.get(kind)).get("url"))
    caption = one_line(inline_markdown(content.get("caption")))
    label = caption or one_line(string(content.get("name"))) or url.rstrip("/").rsplit("/", 1)[-1]
    if not url:
        return _Part(label)
    mark = "!" if block.get("type") == "image" else ""
    return _Part(mark + link(label, url))


def _bookmark(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    url = stable_url(content.get("url"))
    caption = one_line(inline_markdown(content.get("caption")))
    return _Part(link(caption, url) if url else caption)


def _child_page(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    title, url = one_line(string(content.get("title"))), page_url(block.get("id"))
    text = link(title or "Untitled", url) if url else title
    # The API hands out a child page's own blocks under its id; they are that page's.
    return _Part(text, shows_children=False)


def _link_to_page(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    url = page_url(content.get(string(content.get("type"))))
    return _Part(link("", url) if url else "")


def _synced(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    original = page_url(dictionary(content.get("synced_from")).get("block_id"))
    return _Part(link("Synced block", original) if original and not block.get("children") else "")


def _meeting_notes(content: dict[str, Any], block: dict[str, Any]) -> _Part:
    return _Part(inline_markdown(content.get("title")).strip())


_BLOCKS: dict[str, Callable[[dict[str, Any], dict[str, Any]], _Part]] = {
    "audio": _file,
    "bookmark": _bookmark,
    "breadcrumb": _nothing,
    "bulleted_list_item": _bulleted,
    "callout": _callout,
    "child_database": _child_page,
    "child_page": _child_page,
    "code": _code,
    "column": _nothing,
    "column_list": _nothing,
    "divider": _divider,
    "embed": _bookmark,
    "equation": _equation,
    "file": _file,
    "heading_1": _heading(1),
    "heading_2": _heading(2),
    "heading_3": _heading(3),
    "heading_4": _heading(4),
    "image": _file,
    "link_preview": _bookmark,
    "link_to_page": _link_to_page,
    "meeting_notes": _meeting_notes,
    "numbered_list_item": _numbered,
    "paragraph": _paragraph,
    "pdf": _file,
    "quote": _quote,
    "synced_block": _synced,
    "tab": _nothing,
    "table": _table,
    "table_of_contents": _nothing,
    "template": _paragraph,
    "to_do": _to_do,
    "toggle": _bulleted,
    "transcription": _meeting_notes,
    "video": _file,
}


def _values(page: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """A page's property values by name, in the order of the names."""
    properties = dictionary(page.get("properties"))
    return [(name, dictionary(properties[name])) for name in sorted(properties)]


def _properties(page: dict[str, Any]) -> str:
    """A line for each property of a page that says something; its title is left out."""
    if page.get("object", "page") != "page":
        return inline_markdown(page.get("description")).strip()
    lines = []
    for name, value in _values(page):
        text = one_line(_value(value)) if value.get("type") != "title" else ""
        if text:
            lines.append(f"- **{one_line(string(name))}:** {text}")
    return "\n".join(lines)


def _value(value: dict[str, Any], *, may_gather: bool = True) -> str:
    """What a property value says; empty for nothing and for what changes without an edit."""
    while value.get("type") in ("formula", "rollup"):
        value = dictionary(value.get(value["type"]))
    kind = string(value.get("type"))
    if kind == "array" and may_gather:
        gathered = (_value(item, may_gather=False) for item in dictionaries(value.get(kind)))
        return ", ".join(filter(None, gathered))
    return _VALUES[kind](value.get(kind)) if kind in _VALUES else ""


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return ""
    return str(int(value)) if value == int(value) else repr(value)


def _yes_or_no(value: Any) -> str:
    return {True: "yes", False: "no"}.get(value, "") if isinstance(value, bool) else ""


def _name(value: Any) -> str:
    return string(dictionary(value).get("name"))


def _names(values: Any) -> str:
    return ", ".join(filter(None, map(_name, dictionaries(values))))


def _person(value: Any) -> str:
    return f"@{name}" if (name := _name(value)) else ""


def _people(values: Any) -> str:
    return ", ".join(filter(None, map(_person, dictionaries(values))))


def _files(values: Any) -> str:
    return ", ".join(filter(None, (_file(value, {}).text for value in dictionaries(values))))


def _url(value: Any) -> str:
    return link("", url) if (url := stable_url(value)) else ""


def _relation(values: Any) -> str:
    urls = (page_url(value.get("id")) for value in dictionaries(values))
    return ", ".join(link("", url) for url in urls if url)


def _unique_id(value: Any) -> str:
    value = dictionary(value)
    return "-".join(filter(None, (string(value.get("prefix")), _number(value.get("number")))))


def _place(value: Any) -> str:
    value = dictionary(value)
    return ", ".join(filter(None, (string(value.get("name")), string(value.get("address")))))


# Not here, because they change without an edit of the page or say nothing: last_edited_time,
# last_edited_by, last_visited_time, verification, button.
_VALUES: dict[str, Callable[[Any], str]] = {
    "boolean": _yes_or_no,
    "checkbox": _yes_or_no,
    "created_by": _person,
    "created_time": string,
    "date": date_text,
    "email": string,
    "files": _files,
    "multi_select": _names,
    "number": _number,
    "people": _people,
    "phone_number": string,
    "place": _place,
    "relation": _relation,
    "rich_text": inline_markdown,
    "select": _name,
    "status": _name,
    "string": string,
    "title": inline_markdown,
    "unique_id": _unique_id,
    "url": _url,
}
