"""Messages as the page shows them: as text, whatever they hold, and without who wrote them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from loreline.cli.text import visible

Json = Any

# Of a longer text the page shows the beginning, and the rest when it is asked for.
PREVIEW_CHARACTERS = 2_000
# So many of the messages before the sides are shown at once.
RECENT_MESSAGES = 4

_ROLES = {
    "system": "System",
    "developer": "System",
    "user": "User",
    "assistant": "Assistant",
    "tool": "Tool result",
    "function": "Tool result",
    "tools": "Tools",
}


@dataclass(frozen=True)
class Piece:
    """A part of a text: as it is, or a character that acts instead of being seen, spelled out."""

    text: str
    is_escape: bool


@dataclass(frozen=True)
class Block:
    """A text within a message.

    Attributes:
        title: what it is; nothing where it is what the message says.
        pieces: its beginning, or all of it.
        hidden: how many characters are left out.
        number: its place in the message.
    """

    title: str
    pieces: list[Piece]
    hidden: int
    number: int


@dataclass(frozen=True)
class ShownMessage:
    """A message: who speaks, and the texts; `number` is its place among the messages."""

    role: str
    kind: str
    blocks: list[Block]
    number: int


def shown(messages: Sequence[Json]) -> list[ShownMessage]:
    """Messages of OpenAI's chat API, in their order."""
    return [_shown(number, message) for number, message in enumerate(messages)]


def complete_text(message: Json, block: int) -> str:
    """A whole text of a message, made safe to show.

    Raises:
        IndexError: the message has no such text.
    """
    _, text = list(_texts(message))[block]
    return visible(_with_line_ends(text))


def spoken(message: Json) -> tuple[str, str]:
    """Who speaks, as an OpenAI role, and all that they say and call as one text."""
    texts = [f"{title}\n{text}" if title else text for title, text in _texts(message)]
    return str(message.get("role") or "user"), "\n\n".join(texts)


def pieces(text: str) -> list[Piece]:
    """A text cut where characters would act instead of being seen."""
    spelled = ((visible(character), character) for character in _with_line_ends(text))
    runs = groupby(spelled, key=lambda pair: pair[0] != pair[1])
    return [Piece("".join(safe for safe, _ in run), is_escape) for is_escape, run in runs]


def _shown(number: int, message: Json) -> ShownMessage:
    role = str(message.get("role") or "")
    blocks = [
        Block(title, pieces(text[:PREVIEW_CHARACTERS]), max(len(text) - PREVIEW_CHARACTERS, 0), n)
        for n, (title, text) in enumerate(_texts(message))
    ]
    kind = role if role in _ROLES else "other"
    return ShownMessage(_ROLES.get(role, visible(role[:40]) or "Message"), kind, blocks, number)


def _texts(message: Json) -> Iterator[tuple[str, str]]:
    """What a message says, and what it calls, with titles.

    Ids are left out, and so is the `name` of anybody but a tool: it may tell the model.
    """
    said = _said(message.get("content"))
    name = message.get("name") if message.get("role") in ("tool", "function") else None
    if said or name:
        yield visible(str(name))[:200] if name else "", said
    if refusal := message.get("refusal"):
        yield "refusal", _said(refusal)
    for call in _calls(message):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            function = call if isinstance(call, dict) else {"arguments": call}
        called = visible(str(function.get("name") or "?"))[:200]
        yield f"calls {called}", _arguments(function.get("arguments"))


def _said(content: Json) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(_part(part) for part in content)
    return _indented(content)


def _part(part: Json) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return part["text"]
    return part if isinstance(part, str) else _indented(part)


def _calls(message: Json) -> list[Json]:
    calls = message.get("tool_calls")
    if isinstance(calls, str):
        calls = _parsed(calls)
    calls = calls if isinstance(calls, list) else [calls] if calls else []
    if isinstance(message.get("function_call"), dict):
        calls = [*calls, {"function": message["function_call"]}]
    return calls


def _arguments(arguments: Json) -> str:
    return _indented(_parsed(arguments) if isinstance(arguments, str) else arguments)


def _parsed(text: str) -> Json:
    """JSON, or the text itself where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _indented(value: Json) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)


def _with_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n")
