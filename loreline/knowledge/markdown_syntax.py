"""The pieces of Markdown that the canonicalizers write."""

from __future__ import annotations

import re

from loreline.knowledge.source_text import one_line

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
_UNSAFE_IN_URL = re.compile(r"[\s<>()\\|]")
_BRACKET = re.compile(r"[\[\]]")
# What would open another block at the start of a line: heading, quote, list item, underline, fence.
_BLOCK_MARK = re.compile(
    r"^([ \t]*)(#{1,6}(?=\s|$)|>|[-+*](?=\s|$)|=+[ \t]*$|-{3,}[ \t]*$|`{3,}(?=[^`\n]*$)|~{3,})"
    r"|^([ \t]*\d{1,9})([.)](?=\s|$))",
    re.MULTILINE,
)


def edges(text: str) -> tuple[str, str, str]:
    """The white space before a text, the text, and the white space after it."""
    core = text.strip()
    start = len(text) - len(text.lstrip())
    return text[:start], core, text[start + len(core) :]


def link(label: str, url: str) -> str:
    """A Markdown link, or the bare `<url>` when the label says nothing else."""
    target = _UNSAFE_IN_URL.sub(lambda match: "".join(f"%{b:02X}" for b in match[0].encode()), url)
    if label.strip() in ("", url, target):
        return f"<{target}>" if _SCHEME.match(target) else target
    lead, text, trail = edges(label)
    if not _brackets_match(text):
        text = _BRACKET.sub(r"\\\g<0>", text)
    return f"{lead}[{text}]({target}){trail}"


def without_block_marks(text: str) -> str:
    """Plain text in which nothing opens another block: what would is escaped."""
    return _BLOCK_MARK.sub(r"\1\3\\\2\4", text)


def code_span(text: str) -> str:
    """Code within a line."""
    text = text.replace("\n", " ")
    fence = _backticks_around(text, least=1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def fenced_code(code: str, language: str = "") -> str:
    """Code on lines of its own, in a fence longer than any inside."""
    fence = _backticks_around(code, least=3)
    return f"{fence}{one_line(language).replace('`', '')}\n{code}\n{fence}"


def _backticks_around(text: str, least: int) -> str:
    longest = max((len(found) for found in re.findall("`+", text)), default=0)
    return "`" * max(least, longest + 1)


def _brackets_match(text: str) -> bool:
    depth = 0
    for bracket in _BRACKET.findall(text):
        depth += 1 if bracket == "[" else -1
        if depth < 0:
            return False
    return depth == 0
