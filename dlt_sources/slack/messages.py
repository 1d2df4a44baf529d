"""The channels, people and messages of a workspace export."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date, datetime
from functools import cached_property

from dlt_sources.json_files import Record, read_document
from dlt_sources.quarantine import Reject
from dlt_sources.slack.archive import Export
from dlt_sources.slack.observations import channel_seen, message_seen, moment_of, user_seen
from dlt_sources.slack.settings import CONVERSATION_LISTS, USER_LISTS
from dlt_sources.slices import Observation

_DAY_FILE = re.compile(r"(?P<folder>[^/]+)/(?P<day>\d{4}-\d\d-\d\d)\.json")


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
            channel_seen(record, self.observed_at, kind)
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
                yield user_seen(record, self.observed_at)

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
            item = message_seen(record, self.observed_at, channel)
            if isinstance(item, Reject):
                self.unreadable.add((channel, day))
            elif (sent_at := moment_of(record.value["ts"])) and sent_at.date() != day:
                self.days_are_utc = False
            yield item

    def _records(self, name: str) -> Iterator[Record | Reject]:
        if raw := self.export.read(name):
            yield from read_document(raw, name).records
