"""Which objects an event of Slack's Events API is about.

https://docs.slack.dev/apis/events-api: what an event says of them is not used, for it may be old by
the time it is read, and come in any order.
"""

from __future__ import annotations

import re
from typing import Any

Json = Any

_ID = re.compile(r"[A-Z][A-Z0-9]{1,30}")
_TS = re.compile(r"\d{1,11}\.\d{1,9}")
_CHANNEL_EVENT = re.compile(r"(?:channel|group|im|mpim)_\w+|member_(?:joined|left)_channel")
_CHANNEL_NOTICE = re.compile(r"(?:channel|group)_\w+")


def names(body: Json) -> list[str]:
    """Names for `fetch_named`: `message:<channel>:<ts>:<thread or empty>`, `channel:<id>`,
    `user:<id>`.

    Args:
        body: the parsed envelope; what is none names nothing.
    """
    event = body.get("event") if isinstance(body, dict) else None
    if not isinstance(event, dict) or not isinstance(event.get("type"), str):
        return []
    kind = event["type"]
    if kind == "message":
        found = _of_message(event)
    elif kind.startswith("reaction_"):
        item = _object(event.get("item"))
        found = [_message(item.get("channel"), item.get("ts"), None)]
    elif _CHANNEL_EVENT.fullmatch(kind):
        found = [_named("channel", event.get("channel"))]
    elif kind in ("team_join", "user_change", "user_profile_changed"):
        found = [_named("user", event.get("user"))]
    else:
        found = []
    return list(dict.fromkeys(filter(None, found)))


def _of_message(event: dict[str, Json]) -> list[str]:
    channel, subtype = event.get("channel"), event.get("subtype")
    if subtype == "message_deleted":
        before = _object(event.get("previous_message"))
        ts = event.get("deleted_ts") or before.get("ts")
        return [_message(channel, ts, before.get("thread_ts"))]
    if subtype in ("message_changed", "message_replied"):
        event = _object(event.get("message"))
    found = [_message(channel, event.get("ts"), event.get("thread_ts"))]
    if isinstance(subtype, str) and _CHANNEL_NOTICE.fullmatch(subtype):
        found.append(_named("channel", channel))
    return found


def _message(channel: Json, ts: Json, thread: Json) -> str:
    if not _matches(_ID, channel) or not _matches(_TS, ts):
        return ""
    root = thread if _matches(_TS, thread) and thread != ts else ""
    return f"message:{channel}:{ts}:{root}"


def _named(kind: str, what: Json) -> str:
    """Some events give an id, others the object."""
    identity = what.get("id") if isinstance(what, dict) else what
    return f"{kind}:{identity}" if _matches(_ID, identity) else ""


def _object(value: Json) -> dict[str, Json]:
    return value if isinstance(value, dict) else {}


def _matches(pattern: re.Pattern[str], value: Json) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
