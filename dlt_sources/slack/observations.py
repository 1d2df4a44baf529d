"""What an export or the API says of a channel, a person or a message, as it lands.

Both say it in the same words here, so that it is the same version whichever way it came.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from dlt_sources.json_files import Record
from dlt_sources.quarantine import Reject
from dlt_sources.slack.settings import CHANNELS, MESSAGES, USERS
from dlt_sources.slices import Observation

Json = dict[str, Any]
_TS = re.compile(r"\d{1,11}(\.\d{1,9})?")


def channel_seen(
    record: Record | Reject, observed_at: datetime, kind: str | None = None
) -> Observation | Reject:
    """A channel, private channel or direct conversation.

    Who is in a public channel decides nothing and changes often: it is left out.

    Args:
        record: the channel object, with its `members` where they decide who may read it.
        observed_at: when it was seen.
        kind: public, private or dm, as the list that it comes from says; where it is in a list of
            all kinds, it says so itself.
    """
    identity = _identity(record, CHANNELS.name)
    if isinstance(identity, Reject):
        return identity
    kind = kind_of(record.value) if kind in (None, "public") else kind
    channel = {**record.value, "kind": kind, "is_archived": bool(record.value.get("is_archived"))}
    members = channel.pop("members", None)
    if kind != "public" and members is not None:
        # What is no list of ids stays as it is: its contract says so.
        is_listed = isinstance(members, list) and all(isinstance(m, str) for m in members)
        channel["members"] = sorted(set(members)) if is_listed else members
    return Observation(identity, channel, observed_at, _time(record.value))


def user_seen(record: Record | Reject, observed_at: datetime) -> Observation | Reject:
    """A person or bot."""
    identity = _identity(record, USERS.name)
    if isinstance(identity, Reject):
        return identity
    return Observation(identity, record.value, observed_at, _time(record.value))


def message_seen(
    record: Record | Reject, observed_at: datetime, channel: str
) -> Observation | Reject:
    """A message; an edit or a deletion is applied to the message that it names."""
    if isinstance(record, Reject):
        return record
    message = record.value
    if problem := _problem(message):
        return record.reject(*problem, resource=MESSAGES.name)
    subtype, sent_at = message.get("subtype"), moment_of(message["ts"])
    if subtype == "message_deleted":
        ts, before = message.get("deleted_ts"), message.get("previous_message")
        if not moment_of(ts):
            return record.reject("missing_id", "it does not say which message is deleted")
        payload = {**before, "channel": channel} if isinstance(before, dict) else None
        return Observation(f"{channel}:{ts}", payload, observed_at, sent_at, is_deleted=True)
    if subtype in ("message_changed", "message_replied"):
        message = message.get("message")
        if problem := _problem(message):
            return record.reject(*problem, resource=MESSAGES.name)
        sent_at = sent_at if subtype == "message_changed" else moment_of(message["ts"])
    edited_at = moment_of((message.get("edited") or {}).get("ts"))
    return Observation(
        f"{channel}:{message['ts']}",
        {**message, "channel": channel},
        observed_at,
        edited_at or sent_at,
        is_deleted=message.get("subtype") == "tombstone",
    )


def kind_of(channel: Json) -> str:
    """public, private or dm, as a channel object says."""
    if channel.get("is_im") or channel.get("is_mpim"):
        return "dm"
    return "private" if channel.get("is_private") else "public"


def _identity(record: Record | Reject, table: str) -> str | Reject:
    if isinstance(record, Reject):
        return record
    if not isinstance(record.value, dict):
        return record.reject("wrong_type", "an object is expected", resource=table)
    identity = record.value.get("id")
    if not identity:
        return record.reject("missing_id", "it has no id", resource=table)
    if not isinstance(identity, str):
        return record.reject("wrong_type", f"the id is {identity!r}, not text", resource=table)
    return identity


def _problem(message: Any) -> tuple[str, str] | None:
    """Why a message cannot be used, if it cannot."""
    if not isinstance(message, dict):
        return "wrong_type", f"a message is an object, this is {type(message).__name__}"
    if not message.get("ts"):
        return "missing_id", "a message without ts"
    if not moment_of(message["ts"]):
        return "wrong_type", f"ts is {message['ts']!r}, not a time as text"
    for key in ("text", "thread_ts", "subtype"):
        if not isinstance(message.get(key), str | None):
            return "wrong_type", f"{key} is {type(message[key]).__name__}, not text"
    if message.get("thread_ts") and not moment_of(message["thread_ts"]):
        return "wrong_type", f"thread_ts is {message['thread_ts']!r}, not a time"
    if not isinstance(message.get("edited"), dict | None):
        return "wrong_type", "edited is not an object"
    return None


def moment_of(ts: Any) -> datetime | None:
    """A `ts`, seconds with decimals as text, as a time; None where it is none."""
    if not isinstance(ts, str) or not _TS.fullmatch(ts):
        return None
    seconds, _, decimals = ts.partition(".")
    microseconds = int(decimals[:6].ljust(6, "0")) if decimals else 0
    return datetime.fromtimestamp(int(seconds), UTC) + timedelta(microseconds=microseconds)


def _time(value: Json) -> datetime | None:
    """`updated`: seconds in users, milliseconds in channels."""
    updated = value.get("updated")
    if not isinstance(updated, int | float) or not 0 < updated < 1e14:
        return None
    return datetime.fromtimestamp(updated / 1000 if updated > 1e11 else updated, UTC)
