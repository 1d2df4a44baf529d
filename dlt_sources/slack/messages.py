"""What the records of a workspace export say about channels, people and messages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import Any

from dlt_sources.json_files import Record, read_document
from dlt_sources.quarantine import Reject
from dlt_sources.slack.archive import Export
from dlt_sources.slack.settings import CHANNELS, CONVERSATION_LISTS, MESSAGES, USER_LISTS, USERS
from dlt_sources.slices import Observation

Json = dict[str, Any]
_DAY_FILE = re.compile(r"(?P<folder>[^/]+)/(?P<day>\d{4}-\d\d-\d\d)\.json")
_TS = re.compile(r"\d{1,11}(\.\d{1,9})?")


class Conversations:
    """The records of one export.

    After `messages` has been read to its end, `days`, `channels_read` and `unreadable` tell what
    the export covers.
    """

    def __init__(self, export: Export, observed_at: datetime) -> None:
        self.export = export
        self.observed_at = observed_at
        self.days: set[date] = set()
        self.channels_read: set[str] = set()
        self.unreadable: set[tuple[str, date]] = set()
        self.days_are_utc = True

    @cached_property
    def _channels(self) -> list[Observation | Reject]:
        return [
            self._channel(record, kind)
            for name, kind in CONVERSATION_LISTS.items()
            for record in self._records(name)
        ]

    def channels(self) -> Iterator[Observation | Reject]:
        """Channels, private channels and direct conversations, each with its `kind`."""
        yield from self._channels

    def users(self) -> Iterator[Observation | Reject]:
        """People and bots."""
        for name in USER_LISTS:
            for record in self._records(name):
                identity = _identity(record, USERS.name)
                if isinstance(identity, Reject):
                    yield identity
                else:
                    yield self._observation(identity, record.value, _time(record.value))

    def messages(self) -> Iterator[Observation | Reject]:
        """Messages of all day files, edits and deletions applied to the messages that they name."""
        folders = {
            name: item.external_id
            for item in self._channels
            if isinstance(item, Observation)
            for name in (item.external_id, item.payload.get("name"))
            if name and isinstance(name, str)
        }
        for name in self.export.names:
            if match := _DAY_FILE.fullmatch(name):
                yield from self._day(name, match["day"], folders.get(match["folder"]))

    def _day(self, name: str, day_text: str, channel: str | None) -> Iterator[Observation | Reject]:
        if channel is None:
            detail = "its folder is that of no channel in the export"
            yield Reject("unknown_channel", detail, self.export.read(name)[:], name)
            return
        try:
            day = date.fromisoformat(day_text)
        except ValueError as error:
            yield Reject("wrong_type", str(error), self.export.read(name)[:], name)
            return
        self.days.add(day)
        self.channels_read.add(channel)
        for record in self._records(name):
            item = self._message(record, channel)
            if isinstance(item, Reject):
                self.unreadable.add((channel, day))
            elif (sent_at := _moment(record.value["ts"])) and sent_at.date() != day:
                self.days_are_utc = False
            yield item

    def _records(self, name: str) -> Iterator[Record | Reject]:
        if raw := self.export.read(name):
            yield from read_document(raw, name).records

    def _channel(self, record: Record | Reject, kind: str) -> Observation | Reject:
        identity = _identity(record, CHANNELS.name)
        if isinstance(identity, Reject):
            return identity
        channel = record.value
        kind = "private" if channel.get("is_private") and kind == "public" else kind
        return self._observation(identity, {**channel, "kind": kind}, _time(channel))

    def _message(self, record: Record | Reject, channel: str) -> Observation | Reject:
        if isinstance(record, Reject):
            return record
        message = record.value
        if problem := _problem(message):
            return record.reject(*problem, resource=MESSAGES.name)
        subtype, sent_at = message.get("subtype"), _moment(message["ts"])
        if subtype == "message_deleted":
            ts, before = message.get("deleted_ts"), message.get("previous_message")
            if not _moment(ts):
                return record.reject("missing_id", "it does not say which message is deleted")
            payload = {**before, "channel": channel} if isinstance(before, dict) else None
            return self._observation(f"{channel}:{ts}", payload, sent_at, is_deleted=True)
        if subtype in ("message_changed", "message_replied"):
            message = message.get("message")
            if problem := _problem(message):
                return record.reject(*problem, resource=MESSAGES.name)
            sent_at = sent_at if subtype == "message_changed" else _moment(message["ts"])
        edited_at = _moment((message.get("edited") or {}).get("ts"))
        return self._observation(
            f"{channel}:{message['ts']}",
            {**message, "channel": channel},
            edited_at or sent_at,
            is_deleted=message.get("subtype") == "tombstone",
        )

    def _observation(
        self,
        identity: str,
        payload: Json | None,
        updated_at: datetime | None,
        *,
        is_deleted: bool = False,
    ) -> Observation:
        return Observation(identity, payload, self.observed_at, updated_at, is_deleted)


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
    if not _moment(message["ts"]):
        return "wrong_type", f"ts is {message['ts']!r}, not a time as text"
    for key in ("text", "thread_ts", "subtype"):
        if not isinstance(message.get(key), str | None):
            return "wrong_type", f"{key} is {type(message[key]).__name__}, not text"
    if message.get("thread_ts") and not _moment(message["thread_ts"]):
        return "wrong_type", f"thread_ts is {message['thread_ts']!r}, not a time"
    if not isinstance(message.get("edited"), dict | None):
        return "wrong_type", "edited is not an object"
    return None


def _moment(ts: Any) -> datetime | None:
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
