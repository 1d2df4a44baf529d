"""Read the JSON and the text that sources send, whatever is in them."""

from __future__ import annotations

import re
import unicodedata
from json.decoder import scanstring
from typing import Any

import orjson

_WHITE_SPACE = re.compile(r"[ \t\n\r]*")
_COLON = re.compile(r"[ \t\n\r]*:")
_SCALAR = re.compile(r"(?P<word>true|false|null)|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?")
_WORDS = {"true": True, "false": False, "null": None}

# What a closing bracket closes, and what is expected in it while it is still empty.
_CLOSES = {"]": (list, "first value"), "}": (dict, "first key")}

_LINE_ENDS = re.compile(r"\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")
_UNCLEAN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029\ud800-\udfff]")


def parse_json(text: str) -> Any:
    """The value of a JSON text of any depth; None when it is none.

    Half of a surrogate pair is kept as it is: `canonical_text` replaces it.
    """
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        pass
    try:
        return _parse_any_depth(text)
    except (ValueError, IndexError, OverflowError):
        return None


def clean_text(text: str) -> str:
    """Line ends as `\\n`, no control characters but tabs, surrogate halves joined or replaced."""
    if not _UNCLEAN.search(text):
        return text
    text = _CONTROLS.sub("", _LINE_ENDS.sub("\n", text))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def canonical_text(text: str) -> str:
    """Clean text in Unicode NFC, no line with blanks at its end, no blank line at either end."""
    text = unicodedata.normalize("NFC", clean_text(text))
    return "\n".join(line.rstrip() for line in text.split("\n")).strip("\n")


def one_line(text: str) -> str:
    """The text with single spaces for its white space."""
    return " ".join(text.split())


def dictionary(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def string(value: Any) -> str:
    """The value as clean text if it is a string, else an empty one."""
    return clean_text(value) if isinstance(value, str) else ""


def dictionaries(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; none for what is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _parse_any_depth(text: str) -> Any:
    """A JSON parser without recursion, for what is nested deeper than the fast one reads.

    Raises:
        ValueError, IndexError: the text is not JSON.
    """
    root: list[Any] = []
    stack: list[Any] = [root]
    keys: list[str] = []
    expected = "value"
    position = _WHITE_SPACE.match(text).end()
    while position < len(text):
        mark, container = text[position], stack[-1]
        if mark in _CLOSES and _may_close(mark, container, expected):
            stack.pop()
            position, expected = position + 1, "comma"
        elif mark == "," and expected == "comma":
            position, expected = position + 1, "key" if isinstance(container, dict) else "value"
        elif mark == '"' and expected in ("key", "first key"):
            key, position = scanstring(text, position + 1, False)
            keys.append(key)
            position, expected = _after_colon(text, position), "value"
        elif expected in ("value", "first value"):
            value, position = _value_at(text, position)
            if isinstance(container, dict):
                container[keys.pop()] = value
            else:
                container.append(value)
            expected = "comma"
            if isinstance(value, (dict, list)):
                stack.append(value)
                expected = "first key" if isinstance(value, dict) else "first value"
        else:
            raise ValueError(f"unexpected {mark!r} at {position}")
        position = _WHITE_SPACE.match(text, position).end()
    if len(stack) != 1 or len(root) != 1 or expected != "comma":
        raise ValueError("the text ends early or goes on after its value")
    return root[0]


def _may_close(mark: str, container: Any, expected: str) -> bool:
    kind, empty = _CLOSES[mark]
    return isinstance(container, kind) and expected in (empty, "comma")


def _after_colon(text: str, position: int) -> int:
    if colon := _COLON.match(text, position):
        return colon.end()
    raise ValueError(f"no colon at {position}")


def _value_at(text: str, position: int) -> tuple[Any, int]:
    """A scalar, or an empty container whose content follows; and the position after it."""
    mark = text[position]
    if mark in "{[":
        return ({} if mark == "{" else []), position + 1
    if mark == '"':
        return scanstring(text, position + 1, False)
    scalar = _SCALAR.match(text, position)
    if not scalar:
        raise ValueError(f"unexpected {mark!r} at {position}")
    if word := scalar["word"]:
        return _WORDS[word], scalar.end()
    digits = scalar[0]
    return (int(digits) if digits.lstrip("-").isdigit() else float(digits)), scalar.end()
