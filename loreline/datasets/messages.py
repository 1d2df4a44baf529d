"""Lists of chat messages: from the JSON text of the lake to the nested columns that trainers read.

What Arrow would widen by filling in keys that are not there, the schemas of tools and the arguments
of calls, stays JSON text.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa

# Columns that hold message lists; where none of a column's rows does, it is plain text.
MESSAGE_COLUMNS = ("messages", "prompt", "chosen", "rejected", "completion")
FIRST_KEYS = ("role", "content", "name", "tool_calls", "tool_call_id")
CALL_KEYS = ("id", "type", "function")
FUNCTION_KEYS = ("name", "arguments")

Json = dict[str, Any]


def parsed(text: str | None) -> list[Json] | None:
    """The messages that a JSON text lists; None where it lists none."""
    if text is None or not text.lstrip().startswith("["):
        return None
    try:
        found = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    if not all(isinstance(message, dict) and "role" in message for message in found):
        return None
    return [_plain(message) for message in found]


def _plain(message: Json) -> Json:
    """A message whose values are text, but for its calls; keys without a value are left out."""
    plain: Json = {"role": message["role"], "content": _text(message.get("content")) or ""}
    for key in sorted(message.keys() - plain.keys(), key=_place):
        value = message[key]
        if key == "tool_calls":
            if value:
                plain[key] = [_plain_call(call) for call in value]
        elif value is not None:
            plain[key] = _text(value)
    return plain


def _plain_call(call: Json) -> Json:
    function = call.get("function") or {}
    others = {key: _text(value) for key, value in call.items() if key not in CALL_KEYS}
    return {
        "id": _text(call.get("id")),
        "type": _text(call.get("type")),
        "function": {key: _text(function.get(key)) for key in FUNCTION_KEYS},
        **{key: others[key] for key in sorted(others)},
    }


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _place(key: str) -> tuple[int, str]:
    return (FIRST_KEYS.index(key) if key in FIRST_KEYS else len(FIRST_KEYS), key)


@dataclass
class Shape:
    """Which keys the messages of a column have, and their calls: the column's type follows."""

    keys: set[str]
    call_keys: set[str]

    def widen(self, messages: Iterable[Json]) -> None:
        """Make room for more messages."""
        for message in messages:
            self.keys |= message.keys()
            for call in message.get("tool_calls", ()):
                self.call_keys |= call.keys()

    def arrow_type(self) -> pa.DataType:
        """A list of structs; `role` and `content` always, other keys where some message has one."""
        function = pa.struct([(key, pa.string()) for key in FUNCTION_KEYS])
        others = sorted(self.call_keys - set(CALL_KEYS))
        call = [("id", pa.string()), ("type", pa.string()), ("function", function)]
        calls = pa.list_(pa.struct([*call, *((key, pa.string()) for key in others)]))
        fields = sorted({"role", "content"} | self.keys, key=_place)
        return pa.list_(
            pa.struct([(key, calls if key == "tool_calls" else pa.string()) for key in fields])
        )
