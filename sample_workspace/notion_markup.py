"""Reads a page of the story: YAML front matter, then Markdown with a few extra marks.

Blocks                                      Inline
  # ## ###      headings                      **bold** *italic* ~~struck~~ `code`
  - item, 1. item, - [ ] to do, - [x] done    [label](https://… or page:key)
  > quote       +  toggle                     @[user:key] @[page:key]
  !{💡} callout                               @[date:2026-09-17] @[date:2026-09-17/2026-09-18]
  ```lang … ``` code
  | cell | cell |, with |---| after a header row
  ---           divider
  {columns} {column} {sync: name} {synced: name} {image: file | caption} {file: file | caption}
  {bookmark: url | caption} {database: key} {equation: tex} {toc} {unsupported}

Two more spaces of indentation make a child. Wrapped lines of one paragraph are joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class Block:
    """One block of a page, before it becomes an API object."""

    kind: str
    text: str = ""
    argument: str = ""
    children: list[Block] = field(default_factory=list)


@dataclass
class PageSource:
    """One file under `story/notion/`."""

    key: str
    meta: dict[str, Any]
    body: str

    @property
    def blocks(self) -> list[Block]:
        """The body, parsed."""
        return parse_blocks(self.body.splitlines())


def read_pages(folder: Path) -> dict[str, PageSource]:
    """Every page of the story by its key (the file's stem), in the order of their names."""
    pages = {}
    for path in sorted(folder.rglob("*.md")):
        _, front, body = path.read_text().split("---\n", 2)
        pages[path.stem] = PageSource(path.stem, yaml.safe_load(front), body)
    return pages


LINE_MARKS = [
    (re.compile(r"(#{1,3}) (?P<text>.*)"), "heading"),
    (re.compile(r"- \[(?P<argument>[ x])\] (?P<text>.*)"), "to_do"),
    (re.compile(r"- (?P<text>.*)"), "bulleted_list_item"),
    (re.compile(r"\d+\. (?P<text>.*)"), "numbered_list_item"),
    (re.compile(r"> (?P<text>.*)"), "quote"),
    (re.compile(r"\+ (?P<text>.*)"), "toggle"),
    (re.compile(r"!\{(?P<argument>[^}]+)\} (?P<text>.*)"), "callout"),
    (re.compile(r"---$"), "divider"),
    (re.compile(r"```(?P<argument>\w*)"), "code"),
    (re.compile(r"\|.*"), "table"),
    (re.compile(r"\{(?P<argument>\w+)(?:: *(?P<text>.*))?\}$"), "directive"),
]
DIRECTIVES = {
    "columns": "column_list",
    "column": "column",
    "sync": "synced_block",
    "synced": "synced_copy",
    "image": "image",
    "file": "file",
    "bookmark": "bookmark",
    "database": "child_database",
    "equation": "equation",
    "toc": "table_of_contents",
    "unsupported": "unsupported",
}


# Their text goes on in an indented line; below other blocks such a line is a child.
WRAPS_INDENTED = {"bulleted_list_item", "numbered_list_item", "to_do", "quote"}


def indentation(line: str) -> int:
    """Leading spaces of a line."""
    return len(line) - len(line.lstrip(" "))


def recognise(line: str) -> Block | None:
    """The block that a line opens; None for plain prose."""
    for pattern, kind in LINE_MARKS:
        found = pattern.match(line)
        if not found:
            continue
        groups = found.groupdict()
        text, argument = groups.get("text") or "", groups.get("argument") or ""
        if kind == "heading":
            kind = f"heading_{len(found.group(1))}"
        if kind == "directive":
            kind, argument = DIRECTIVES[argument], ""
        return Block(kind, text.strip(), argument)
    return None


def parse_blocks(lines: list[str]) -> list[Block]:
    """Turn lines that share their smallest indentation into blocks with children."""
    blocks: list[Block] = []
    at = 0
    while at < len(lines):
        if not lines[at].strip():
            at += 1
            continue
        depth = indentation(lines[at])
        block = recognise(lines[at][depth:])
        at += 1
        if block is None:
            block = Block("paragraph", lines[at - 1].strip())
            at = take_prose(lines, at, depth, block)
        elif block.kind == "code":
            at = take_code(lines, at, depth, block)
        elif block.kind == "table":
            at = take_table(lines, at - 1, block)
        else:
            if block.kind in WRAPS_INDENTED:
                at = take_prose(lines, at, depth + 2, block)
            at = take_children(lines, at, depth, block)
        blocks.append(block)
    return blocks


def take_prose(lines: list[str], at: int, depth: int, block: Block) -> int:
    """Join the wrapped lines that continue a block's own text."""
    while at < len(lines) and lines[at].strip() and block.kind != "divider":
        plain = lines[at][depth:]
        if indentation(lines[at]) != depth or recognise(plain):
            break
        block.text += " " + plain.strip()
        at += 1
    return at


def take_code(lines: list[str], at: int, depth: int, block: Block) -> int:
    """Take everything up to the closing fence, without the fence's indentation."""
    end = next(i for i in range(at, len(lines)) if lines[i].strip() == "```")
    block.text = "\n".join(line[depth:] for line in lines[at:end])
    return end + 1


def take_table(lines: list[str], at: int, block: Block) -> int:
    """Take the rows; a line of dashes after the first says that it is a header."""
    while at < len(lines) and lines[at].strip().startswith("|"):
        row = lines[at].strip()
        if re.fullmatch(r"[|\-: ]+", row):
            block.argument = "header"
        else:
            block.children.append(Block("table_row", row))
        at += 1
    return at


def take_children(lines: list[str], at: int, depth: int, block: Block) -> int:
    """Parse what is indented below a block as its children."""
    end = at
    while end < len(lines) and (not lines[end].strip() or indentation(lines[end]) > depth):
        end += 1
    block.children = parse_blocks(lines[at:end])
    return end


@dataclass(frozen=True)
class Span:
    """A run of inline text: what kind, its text, its target, and how it is set."""

    kind: str
    text: str
    target: str = ""
    marks: frozenset[str] = frozenset()


INLINE = re.compile(
    r"`(?P<code>[^`]+)`"
    r"|\*\*(?P<bold>.+?)\*\*"
    r"|~~(?P<strikethrough>.+?)~~"
    r"|(?<![\w*])\*(?P<italic>[^*\s][^*]*)\*"
    r"|@\[(?P<mention>[^\]]+)\]"
    r"|\[(?P<label>[^\]]+)\]\((?P<target>[^)\s]+)\)"
)


def spans(text: str, marks: frozenset[str] = frozenset()) -> Iterator[Span]:
    """Split inline text into runs that are set alike."""
    at = 0
    for found in INLINE.finditer(text):
        if found.start() > at:
            yield Span("text", text[at : found.start()], marks=marks)
        at = found.end()
        kind = str(found.lastgroup)
        if kind == "code":
            yield Span("text", found["code"], marks=marks | {"code"})
        elif kind == "mention":
            yield Span("mention", "", found["mention"], marks)
        elif kind == "target":
            yield from (
                Span("text", part.text, found["target"], part.marks)
                for part in spans(found["label"], marks)
            )
        else:
            yield from spans(found[kind], marks | {kind})
    if at < len(text):
        yield Span("text", text[at:], marks=marks)


def cells(row: str) -> list[str]:
    """The cells of a table row; a bar inside code is written `\\|`."""
    parts = re.split(r"(?<!\\)\|", row.strip().strip("|"))
    return [part.strip().replace("\\|", "|") for part in parts]
