"""Text that others wrote, made safe to show in a terminal."""

from __future__ import annotations

import re
import unicodedata

# Zero-width joiner and non-joiner: emoji and several scripts are spelled with them.
_JOINERS = "\u200c\u200d"
_COLOR = re.compile(r"(\x1b\[[0-9;]*m)")
_HOSTILE_CATEGORIES = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def visible(text: str) -> str:
    """Text with every character that acts instead of being seen written as an escape.

    These are control characters (a terminal obeys `\\x1b[…`), bidirectional overrides, invisible
    and tag characters, and lone surrogates. Line ends and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def visible_in_color(text: str) -> str:
    """Visible text in which sequences that set colours still do."""
    return "".join(part if _COLOR.fullmatch(part) else visible(part) for part in _COLOR.split(text))


def one_line(text: str) -> str:
    """Visible text with every run of white space as one space."""
    return visible(" ".join(text.split()))


def shortened(text: str, length: int) -> str:
    """Text of at most this many characters; the last is … where something was left out."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def excerpt(text: str, query: str, length: int) -> str:
    """The part of a text, at most so many characters, in which most words of a query occur.

    It begins with a line or sentence, as late as it can; … says that something was left out.
    """
    if len(text) <= length:
        return text
    words = {word for word in re.findall(r"\w+", query.casefold()) if len(word) > 3}
    starts = [match.end() for match in re.finditer(r"^|\n|[.!?] +|$", text)]

    def words_from(start: int) -> int:
        window = text[start : start + length].casefold()
        return sum(word in window for word in words)

    start = max(starts, key=lambda start: (words_from(start), start))
    whole_end = next(start for start in starts if len(text) - start <= length)
    start = min(start, whole_end) if words_from(start) else 0
    return ("… " if start else "") + shortened(text[start:], length)


def json_safe(document: str) -> str:
    """JSON whose strings keep no character that a terminal obeys; the value is the same."""
    return re.sub(r"[^\x20-\x7e\n]", _json_escaped, document)


def _escaped(character: str) -> str:
    if character in "\n\t" or character in _JOINERS or not _is_hostile(character):
        return character
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def _json_escaped(match: re.Match[str]) -> str:
    character = match[0]
    if not _is_hostile(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _is_hostile(character: str) -> bool:
    return unicodedata.category(character) in _HOSTILE_CATEGORIES
