"""Canonical messages as those of a chat request, the other way round than `canonical`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from loreline.conversations.canonical import Messages

Json = Any
Row = dict[str, Any]

# Kinds of parts that a message may be made of; other JSON is what somebody wrote.
_PARTS = {
    *("text", "image_url", "input_audio", "file", "refusal", "video_url", "audio_url"),
    *("input_text", "output_text", "input_image", "input_file"),
}


def chat_messages(history: Iterable[Row], system: Sequence[Json] | None) -> list[Json]:
    """Canonical messages as those of a chat request.

    Args:
        history: rows with role, content, name, tool_calls and tool_call_id: which of the calls of
            the answer before it a tool's result answers, from 0.
        system: the system's messages, each with its position among all.
    """
    messages: list[Json] = []
    answer = 0
    history = list(history)
    for place, row in enumerate(history):
        message: Json = {"role": row["role"], "content": message_content(row["content"])}
        if row["name"]:
            message["name"] = row["name"]
        if row["tool_calls"]:
            answer = place
            calls = json.loads(row["tool_calls"])
            if (
                len(calls) == 1
                and place + 1 < len(history)
                and history[place + 1]["role"] == "function"
            ):
                message["function_call"] = _call(calls[0], place, 0)["function"]
            else:
                message["tool_calls"] = [_call(call, place, n) for n, call in enumerate(calls)]
        else:
            message["content"] = message["content"] or ""
        if row["role"] == "tool":
            message["tool_call_id"] = _call_id(answer, row["tool_call_id"])
        messages.append(message)
    for text in system or []:
        named = {"name": text["name"]} if text.get("name") else {}
        said = {"role": "system", "content": message_content(text["content"]) or "", **named}
        messages.insert(text["position"], said)
    return messages


def tools_of(offered: Json) -> dict[str, Json]:
    """The field of a request that offers tools; older requests call it `functions`."""
    if not offered:
        return {}
    is_old = isinstance(offered, list) and not any(
        isinstance(tool, dict) and tool.get("type") for tool in offered
    )
    return {"functions" if is_old else "tools": offered}


def message_content(content: str | None) -> Json:
    """Text, or the parts that it is the canonical JSON of."""
    if not content or not content.startswith("[{"):
        return content
    try:
        parts = json.loads(content)
    except json.JSONDecodeError:
        return content
    if not all(isinstance(part, dict) and part.get("type") in _PARTS for part in parts):
        return content
    again = Messages().message({"role": "user", "content": parts})
    return parts if again.content == content else content


def _call(call: Json, place: int, number: int) -> Json:
    function = {"name": call["name"], "arguments": argument_text(call["arguments"])}
    return {"id": _call_id(place, number), "type": "function", "function": function}


def argument_text(arguments: Json) -> str:
    """Arguments as the text of a call; what was no JSON stays as it was."""
    if isinstance(arguments, str):
        try:
            json.loads(arguments)
        except json.JSONDecodeError:
            return arguments
    return json.dumps(arguments, ensure_ascii=False)


def _call_id(place: int, number: int | str | None) -> str:
    return f"call_{place}_{number}"
