"""Messages as vendors and recorders write them, in the one shape of OpenAI's chat completions.

Read are: chat messages; items of OpenAI's Responses API; Anthropic's content blocks; and the parts
of OpenTelemetry's GenAI conventions. What is none of these makes the whole list unread, so that no
history is ever taken for a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson

from dlt_sources.gateway.values import embedded, text

Json = Any
Message = dict[str, Json]

_ASSISTANT = "assistant"
_BLOCKS = {"tool_use", "tool_result"}
_FINISH_REASONS = {"tool_call": "tool_calls", "tool_use": "tool_calls", "end_turn": "stop"}


class NotAMessage(Exception):  # noqa: N818 - it is not an error of the program
    """Something in a list of messages that is none."""


def messages(value: Json) -> list[Message] | None:
    """The messages of a request, given as a list, as one message, as a text, or as JSON of these.

    Returns:
        None where there are none, or where something is not understood.
    """
    value = embedded(value)
    if isinstance(value, dict):
        value = value["messages"] if isinstance(value.get("messages"), list) else [value]
    if isinstance(value, str):
        value = [value] if value else None
    if not isinstance(value, list) or not value:
        return None
    try:
        return _joined(value)
    except NotAMessage:
        return None


def choices(value: Json) -> list[Json]:
    """The choices of a response, whichever API it is of; none where nothing was answered."""
    value = embedded(value)
    if isinstance(value, str):
        return [_choice(0, {"role": _ASSISTANT, "content": value}, None)] if value else []
    if isinstance(value, list):
        value = {"choices" if _are_choices(value) else "output": value}
    if not isinstance(value, dict):
        return []
    if isinstance(value.get("choices"), list):
        return [_read_choice(n, choice) for n, choice in enumerate(value["choices"])]
    if isinstance(value.get("output"), list):
        return _one_choice(value["output"], value.get("status"))
    if isinstance(value.get("message"), dict):
        return _one_choice([value["message"]], value.get("done_reason"))
    if isinstance(value.get("role"), str):
        return _one_choice([value], value.get("stop_reason"))
    return []


def answers(value: Json, finish_reasons: Sequence[Json] = ()) -> list[Json]:
    """The choices of a list of output messages, each of which is one."""
    value = embedded(value)
    items = value if isinstance(value, list) else [value] if value else []
    read = []
    for n, item in enumerate(items):
        given = item.get("finish_reason") if isinstance(item, dict) else None
        reason = given or (finish_reasons[n] if n < len(finish_reasons) else None)
        read += [{**choice, "index": n} for choice in _one_choice([item], reason)]
    return read


def content(parts: Json) -> Json:
    """The content of a message: a lone text as such, otherwise its parts."""
    if not isinstance(parts, list):
        return parts
    read = [_part(part) for part in parts]
    if len(read) == 1 and isinstance(read[0], dict) and set(read[0]) == {"type", "text"}:
        return read[0]["text"]
    return read or None


def _joined(items: Sequence[Json]) -> list[Message]:
    """Messages of items, of which some only continue the message before."""
    read: list[Message] = []
    goes_on = False
    for item in items:
        if _is_kind(item, "reasoning"):
            continue
        made = _messages_of(item)
        is_item = isinstance(item, dict) and "type" in item and "parts" not in item
        if goes_on and is_item and made and made[0]["role"] == _ASSISTANT:
            _continue(read[-1], made[0])
            continue
        read += made
        goes_on = is_item and bool(made) and made[-1]["role"] == _ASSISTANT
    return read


def _messages_of(item: Json) -> list[Message]:
    if isinstance(item, str):
        return [{"role": "user", "content": item}]
    if not isinstance(item, dict):
        raise NotAMessage
    if isinstance(item.get("role"), str):
        if isinstance(item.get("parts"), list):
            return _of_parts(item["role"], item["parts"], item.get("name"))
        given = item.get("content")
        if isinstance(given, list) and any(_is_kind(part, *_BLOCKS) for part in given):
            return _of_blocks(item["role"], given)
        if item.get("type") == "message":
            return [{"role": item["role"], "content": content(given)}]
        return [item]
    if item.get("type") in ("function_call", "custom_tool_call"):
        arguments = item.get("arguments", item.get("input"))
        called = call(item.get("call_id") or item.get("id"), item.get("name"), arguments)
        return [{"role": _ASSISTANT, "content": None, "tool_calls": [called]}]
    if item.get("type") in ("function_call_output", "custom_tool_call_output"):
        return [_result(item.get("call_id"), item.get("output"))]
    if isinstance(item.get("type"), str):
        # What a vendor's own tool did, such as a search of the web, was said by the model.
        return [{"role": _ASSISTANT, "content": [item]}]
    raise NotAMessage


def _of_parts(role: str, parts: Sequence[Json], name: Json) -> list[Message]:
    """Messages of OpenTelemetry's parts; each result of a tool is a message of its own."""
    results = [
        _result(part.get("id"), part.get("response", part.get("result")))
        for part in parts
        if _is_kind(part, "tool_call_response")
    ]
    calls = [
        call(part.get("id"), part.get("name"), part.get("arguments"))
        for part in parts
        if _is_kind(part, "tool_call")
    ]
    others = [p for p in parts if not _is_kind(p, "tool_call_response", "tool_call")]
    return results + _said(role, others, calls, name, is_lone=not results)


def _of_blocks(role: str, blocks: Sequence[Json]) -> list[Message]:
    """Messages of Anthropic's blocks."""
    results = [
        _result(block.get("tool_use_id"), block.get("content"))
        for block in blocks
        if _is_kind(block, "tool_result")
    ]
    calls = [
        call(block.get("id"), block.get("name"), block.get("input"))
        for block in blocks
        if _is_kind(block, "tool_use")
    ]
    others = [b for b in blocks if not _is_kind(b, *_BLOCKS)]
    return results + _said(role, others, calls, None, is_lone=not results)


def _said(
    role: str, parts: list[Json], calls: list[Json], name: Json, *, is_lone: bool
) -> list[Message]:
    if not parts and not calls and not is_lone:
        return []
    message: Message = {"role": role, "content": content(parts)}
    if text(name):
        message["name"] = name
    if calls:
        message["tool_calls"] = calls
    return [message]


def _continue(message: Message, more: Message) -> None:
    """Add to an assistant's message what its next item says."""
    if calls := more.get("tool_calls"):
        message["tool_calls"] = [*(message.get("tool_calls") or []), *calls]
    if more.get("content") is not None:
        message["content"] = content([*_parts(message.get("content")), *_parts(more["content"])])


def _parts(given: Json) -> list[Json]:
    if given is None:
        return []
    return given if isinstance(given, list) else [{"type": "text", "text": given}]


def _part(part: Json) -> Json:
    """A part of a content as chat completions write it; what they have no word for as it is."""
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if not isinstance(part, dict):
        return part
    kind = part.get("type")
    if kind in ("text", "input_text", "output_text"):
        said = part.get("text", part.get("content"))
        return {"type": "text", "text": said} if isinstance(said, str) else part
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return _image(part["image_url"])
    if kind == "uri" and part.get("modality") == "image" and isinstance(part.get("uri"), str):
        return _image(part["uri"])
    if kind == "blob" and isinstance(part.get("content"), str):
        mime = text(part.get("mime_type")) or ""
        if part.get("modality") == "image":
            return _image(f"data:{mime or 'image/png'};base64,{part['content']}")
        if part.get("modality") == "audio":
            sound = {"data": part["content"], "format": mime.rpartition("/")[2]}
            return {"type": "input_audio", "input_audio": sound}
    if kind == "file" and isinstance(part.get("file_id"), str):
        return {"type": "file", "file": {"file_id": part["file_id"]}}
    return part


def _image(url: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url}}


def call(identity: Json, name: Json, arguments: Json) -> Json:
    """A call of a tool, as an assistant's message has it."""
    if arguments is None:
        arguments = "{}"
    elif not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    function = {"name": text(name), "arguments": arguments}
    return {"id": text(identity) or "", "type": "function", "function": function}


def _result(identity: Json, result: Json) -> Message:
    """What a tool answered."""
    if isinstance(result, list) and all(_is_kind(part, "text", "input_text") for part in result):
        result = content(result)
    if result is not None and not isinstance(result, str | list):
        result = orjson.dumps(result).decode()
    return {"role": "tool", "tool_call_id": text(identity), "content": result}


def _one_choice(items: Sequence[Json], reason: Json) -> list[Json]:
    """The choice that some items are together."""
    try:
        read = _joined(items)
    except NotAMessage:
        return []
    said = [message for message in read if message["role"] == _ASSISTANT] or read[:1]
    if not said:
        return []
    answer = dict(said[0])
    for more in said[1:]:
        _continue(answer, more)
    return [_choice(0, answer | {"role": _ASSISTANT}, reason)]


def _are_choices(items: Sequence[Json]) -> bool:
    named = (isinstance(item, dict) and ("message" in item or "text" in item) for item in items)
    return bool(items) and all(named)


def _read_choice(n: int, choice: Json) -> Json:
    """A choice as it is, of which the message is made sure."""
    if not isinstance(choice, dict):
        return _choice(n, {"role": _ASSISTANT, "content": text(choice)}, None)
    message = choice.get("message") or choice.get("delta")
    if isinstance(message, dict):
        if isinstance(message.get("role"), str):
            return {"index": n, **choice, "message": message}
        return {"index": n, **choice, "message": {**message, "role": _ASSISTANT}}
    said = choice.get("text") if message is None else message
    return {"index": n, **choice, "message": {"role": _ASSISTANT, "content": text(said)}}


def _choice(index: int, message: Message, reason: Json) -> Json:
    choice = {"index": index, "message": message}
    if said := text(reason):
        choice["finish_reason"] = _FINISH_REASONS.get(said, said)
    return choice


def _is_kind(part: Json, *kinds: str) -> bool:
    return isinstance(part, dict) and part.get("type") in kinds
