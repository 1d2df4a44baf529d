"""The channels of a workspace: who may read them, and which the bot has lost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from dlt_sources.api import ApiError
from dlt_sources.json_files import Record
from dlt_sources.live import Batch
from dlt_sources.quarantine import Reject
from dlt_sources.slack.client import NO_ACCESS, record_of
from dlt_sources.slack.observations import channel_seen
from dlt_sources.slack.settings import CHANNELS
from dlt_sources.slack.workspace import Conversation, Progress, Seen, Workspace, tombstone
from loreline.errors import LorelineError

Json = Any

_TYPES = ("public_channel", "private_channel", "mpim", "im")


class Channels:
    """Channels and their members.

    Args:
        workspace: the state of the run, in which it notes what the bot may read.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.run = workspace.run
        self.api = workspace.api
        self._own_id: str | None = None

    def all(self) -> Iterator[Batch]:
        """The list of channels, and what is no longer in it."""
        # Whether a channel that is listed is archived.
        listed: dict[str, bool] = {}
        passed_over = 0
        for page in self.pages():
            batch = Batch([(CHANNELS, each) for each in page if isinstance(each, Reject)])
            found = [each for each in page if isinstance(each, Conversation)]
            if any(each.kind == "dm" and not each.has_members for each in found):
                self._self()
            for seen in self.api.map(self._described, found):
                batch.observations += seen
            found = [each for each in found if each.id not in self.workspace.refused]
            for each in found:
                listed[each.id] = each.is_archived
                if each.is_readable:
                    self.workspace.readable[each.id] = each
                elif not each.is_archived:
                    passed_over += 1
            batch.cursors = self.workspace.begun(each for each in found if each.is_readable)
            yield batch
        self.run.landing.summary.passed_over["channels"] += passed_over
        yield from self._lost(listed)

    def pages(self) -> Iterator[list[Conversation | Reject]]:
        """The list of channels."""
        pages = self.api.pages(
            "conversations.list", "channels", types=",".join(self._types()), exclude_archived=False
        )
        for page in pages:
            yield [Conversation.of(record, page.observed_at) for record in page.records]

    def info(self, channel: str) -> Conversation | None:
        """A channel by itself; None where the bot may not know of it."""
        observed_at = datetime.now(UTC)
        try:
            told = self.api.ask("conversations.info", channel=channel).get("channel")
        except ApiError as error:
            if error.code in NO_ACCESS:
                return None
            raise
        found = Conversation.of(record_of(told, "conversations.info"), observed_at)
        return found if isinstance(found, Conversation) else None

    def by_itself(self, channel: str, found: Conversation | None) -> Batch:
        """What `info` said of a channel; that it is lost, where the bot is no longer in it."""
        progress = self.workspace.progress.get(channel)
        if found and (found.is_readable or found.is_archived or progress is None):
            seen = self._described(found)
            if seen or found.is_archived:
                begun = [found] if found.is_readable else []
                return Batch(seen, self.workspace.begun(begun))
        return self._loss(channel) if progress and not progress.is_lost else Batch()

    def _types(self) -> list[str]:
        types = [each.strip() for each in self.run.settings.slack_conversations.split(",")]
        if unknown := [each for each in types if each not in _TYPES]:
            raise LorelineError(
                f"LORELINE_SLACK_CONVERSATIONS names {', '.join(unknown)}",
                f"use some of {', '.join(_TYPES)}",
            )
        return types

    def _described(self, found: Conversation) -> list[Seen]:
        """A channel with those who may read it; nothing where the bot cannot know that."""
        value, observed_at = found.record.value, found.observed_at
        if not found.is_readable:
            progress = self.workspace.progress.get(found.id)
            # Whether one that was read is lost is decided when all are known.
            is_left = progress and (progress.is_lost or not found.is_archived)
            if found.kind != "public" or is_left:
                return []
        elif found.has_members:
            observed_at = datetime.now(UTC)
            members = self._members(found.id)
            if members is None:
                # It was taken from the bot since it was listed.
                self.workspace.refused.add(found.id)
                return []
            value = {**value, "members": members}
        elif found.kind == "dm":
            value = {**value, "members": [value.get("user"), self._self()]}
        return [(CHANNELS, channel_seen(Record(value, found.record.origin), observed_at))]

    def _members(self, channel: str) -> list[Json] | None:
        try:
            pages = list(self.api.pages("conversations.members", "members", channel=channel))
        except ApiError as error:
            if error.code not in NO_ACCESS:
                raise
            return None
        return [r.value for page in pages for r in page.records if isinstance(r, Record)]

    def _self(self) -> str:
        """The id of the bot."""
        if self._own_id is None:
            told = self.api.ask("auth.test").get("user_id")
            self._own_id = told if isinstance(told, str) else ""
        return self._own_id

    def _lost(self, listed: Mapping[str, bool]) -> Iterator[Batch]:
        """Delete channels that were read and no longer are there, or no longer for the bot.

        An archived channel is kept: archiving takes the bot out, and what was said stays so.
        """
        workspace = self.workspace
        types = self._types()
        known = {
            channel
            for channel, progress in workspace.progress.items()
            if not progress.is_lost and _type(channel, progress.kind) in types
        }
        missing = sorted(known - set(workspace.readable) - workspace.refused)
        lost = [channel for channel in missing if listed.get(channel) is False]
        # A list that changes while it is read may leave one out.
        unlisted = [channel for channel in missing if channel not in listed]
        for channel, found in zip(unlisted, self.api.map(self.info, unlisted), strict=True):
            if found is None or not (found.is_readable or found.is_archived):
                lost.append(channel)
        self.run.rails.check("slack", "channels", len(lost), len(known))
        for channel in lost:
            yield self._loss(channel)

    def _loss(self, channel: str) -> Batch:
        lost = Progress(self.workspace.progress[channel].kind, is_lost=True)
        self.workspace.progress[channel] = lost
        return Batch(
            [tombstone(CHANNELS, channel)],
            {
                f"history:{channel}": asdict(lost),
                f"threads:{channel}": None,
                f"gone:{channel}": None,
            },
        )


def _type(channel: str, kind: str) -> str:
    """What Slack calls a kind of conversation, for which Loreline has three words."""
    if kind == "dm":
        return "im" if channel.startswith("D") else "mpim"
    return f"{kind}_channel"
