"""Canonical Markdown of a text of Linear, which is Markdown already.

Linear derives it from ProseMirror (`Issue.description`, `Comment.body`, `Document.content`). What
is kept and what is changed is in docs/decisions/linear.md.
"""

from __future__ import annotations

import re

from loreline.knowledge.source_text import canonical_text

# Raise it whenever the same objects would give another document, by this code or by the models.
CANONICALIZER_VERSION = 1

# As the chunker sees them, and after the mark of a list item, with whose text they end.
_FENCE = re.compile(
    r"(?P<indent>[ \t]*)(?P<item>(?:(?:[-*+]|\d{1,9}[.)])[ \t]+)*)"
    r"(?P<marks>`{3,}|~{3,})(?P<info>.*)"
)
_HEADING = re.compile(r" {0,3}#{1,6}(?:[ \t]+(?P<text>.*?))?(?:[ \t]+#+)?[ \t]*")
_UNDERLINE = re.compile(r" {0,3}(?:=+|-+)[ \t]*")
# Addresses of uploads are signed anew for every answer.
_SIGNED = re.compile(r"(https://uploads\.linear\.app/[^\s()<>?]*)\?[^\s()<>]*")


def linear_markdown(text: str, keeps_headings: bool) -> str:
    """Markdown that can stand within a larger document.

    Code fences stay as they are, and one that is left open is closed. Uploads lose their
    signatures.

    Args:
        text: as Linear gives it.
        keeps_headings: whether headings stay; they become bold lines otherwise, so that a comment
            opens no section among other comments.
    """
    lines: list[str] = []
    fence: re.Match[str] | None = None
    for line in canonical_text(_SIGNED.sub(r"\1", text)).split("\n"):
        mark = _FENCE.fullmatch(line)
        if fence and fence["item"] and line[:1].strip():
            fence = None
        if fence:
            fence = None if mark and _closes(mark, fence) else fence
        elif mark and not (mark["marks"][0] == "`" and "`" in mark["info"]):
            fence = mark
        elif not keeps_headings:
            line = _without_heading(line, lines[-1] if lines else "")
        lines.append(line)
    if fence and not fence["item"]:
        lines.append(fence["indent"] + fence["marks"])
    return "\n".join(lines).strip("\n")


def _closes(mark: re.Match[str], fence: re.Match[str]) -> bool:
    is_bare = not mark["item"] and not mark["info"].strip()
    return is_bare and mark["marks"].startswith(fence["marks"])


def _without_heading(line: str, line_before: str) -> str:
    if heading := _HEADING.fullmatch(line):
        text = (heading["text"] or "").lstrip("# \t")
        return f"**{text}**" if text and "**" not in text else text
    if line_before.strip() and _UNDERLINE.fullmatch(line):
        return f"\\{line.lstrip()}"
    return line
