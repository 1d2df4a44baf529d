"""A Slack workspace through its Web API."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from dlt_sources.api import ApiError, Patience
from dlt_sources.live import Batch, Plan, Run
from dlt_sources.quarantine import Reject
from dlt_sources.slack.channels import Channels
from dlt_sources.slack.client import NO_ACCESS, PAGE, Page, SlackApi, client, record_of
from dlt_sources.slack.history import History
from dlt_sources.slack.observations import moment_of
from dlt_sources.slack.people import People
from dlt_sources.slack.settings import CHANNELS, MESSAGES, USERS
from dlt_sources.slack.threads import THREADS_PER_RUN
from dlt_sources.slack.workspace import Conversation, Seen, Workspace, tombstone, ts_of
from dlt_sources.slices import Observation
from dlt_sources.versions import Resource
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any


class SlackLive:
    """Slack, with a bot token.

    Args:
        settings: with the token.
        patience: how long to wait for Slack.
    """

    def __init__(self, settings: Settings, patience: Patience | None = None) -> None:
        self.settings = settings
        self.patience = patience

    @classmethod
    def of(cls, settings: Settings) -> SlackLive | None:
        """As the settings say; None where they name no token."""
        return cls(settings) if settings.slack_token else None

    def fetch(self, run: Run) -> Iterator[Batch]:
        """What is new in the channels that the bot is in; all of it where the run sweeps."""
        began = _sweep_began(run)
        with self._api(run) as api:
            workspace = Workspace(run, api)
            people, history = People(workspace), History(workspace, began)
            if run.sweeps:
                yield Batch(cursors={"sweep": began})
            yield from Channels(workspace).all()
            if run.sweeps:
                yield from people.all()
            yield from history.recent()
            yield from history.walks()
            yield from people.met()
            if run.sweeps:
                yield Batch(cursors={"sweep": None})

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        """The newest version of messages, channels and users.

        Names are those that `deliveries.names` gives.
        """
        with self._api(run) as api:
            yield from Named(Workspace(run, api)).all(names)

    def plan(self, run: Run) -> Plan:
        """The requests of a run, from the list of channels and what is landed."""
        with self._api(run) as api:
            return _plan(Workspace(run, api))

    def _api(self, run: Run) -> SlackApi:
        return client(self.settings, run.progress, self.patience)


@dataclass
class _Asked:
    """What deliveries name, each with the name.

    Attributes:
        channels: by id.
        users: by id.
        messages: channel, `ts` and thread, or empty, by name.
    """

    channels: dict[str, str] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)
    messages: dict[str, tuple[str, str, str]] = field(default_factory=dict)


class Named:
    """Objects that deliveries name.

    Args:
        workspace: the state of the run.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.run = workspace.run
        self.api = workspace.api

    def all(self, names: Sequence[str]) -> Iterator[Batch]:
        """Their newest versions."""
        asked = _Asked()
        for name in names:
            match name.split(":"):
                case ["channel", channel]:
                    asked.channels[channel] = name
                case ["user", user]:
                    asked.users[user] = name
                case ["message", channel, ts, thread] if moment_of(ts):
                    asked.messages[name] = (channel, ts, thread)
                case _:
                    detail = "neither a message, a channel nor a user"
                    reject = Reject("unknown_name", detail, name.encode(), "delivery")
                    yield Batch([(MESSAGES, reject)])
        yield from self._messages(asked)
        yield from self._channels(asked.channels)
        yield from self._people(asked.users)

    def _messages(self, asked: _Asked) -> Iterator[Batch]:
        """Messages; their channels are asked for too where they are not known, or refused."""
        named = asked.messages.items()
        # What nobody has described is read by nobody.
        mentioned = {channel: name for name, (channel, _, _) in named}
        for channel in mentioned.keys() - self.workspace.landed(CHANNELS, mentioned):
            asked.channels.setdefault(channel, mentioned[channel])
        # A reply that does not say so is not in history, and not gone.
        roots = self.workspace.landed_roots(f"{channel}:{ts}" for _, (channel, ts, _) in named)
        places = [
            (channel, ts, thread or roots.get(f"{channel}:{ts}", ""))
            for _, (channel, ts, thread) in named
        ]
        pages = self.api.map(lambda place: self._message(*place), places)
        for (name, _), (channel, ts, thread), page in zip(named, places, pages, strict=True):
            if page is None:
                asked.channels.setdefault(channel, name)
                continue
            seen = self.workspace.messages(channel, page)
            seen = seen or self._gone(MESSAGES, [f"{channel}:{ts}"])
            cursors = self._opened(channel, ts, thread) if seen else {}
            yield Batch(self._delivered(seen, name), cursors)

    def _message(self, channel: str, ts: str, thread: str) -> Page | None:
        """A message, or an empty page; None where it may not be read."""
        observed_at = datetime.now(UTC)
        try:
            if thread and thread != ts:
                # The first message of the thread is there too.
                body = self.api.ask(
                    "conversations.replies",
                    channel=channel,
                    ts=thread,
                    latest=ts,
                    oldest=ts,
                    inclusive=True,
                    limit=2,
                )
            else:
                body = self.api.ask(
                    "conversations.history",
                    channel=channel,
                    latest=ts,
                    oldest=ts,
                    inclusive=True,
                    limit=1,
                )
        except ApiError as error:
            if error.code in NO_ACCESS:
                return None
            if error.code != "thread_not_found":
                raise
            return Page([], observed_at)
        elements = body.get("messages")
        if not isinstance(elements, list):
            raise LorelineError("Slack's answer has no list of messages", "try again")
        records = [record_of(element, f"{channel}:{ts}") for element in elements]
        return Page([r for r in records if ts_of(r) in (ts, None)], observed_at)

    def _opened(self, channel: str, ts: str, thread: str) -> dict[str, Json]:
        """A thread with something new in it is read again by the next run."""
        if not thread or channel not in self.workspace.progress:
            return {}
        threads = self.workspace.threads(channel)
        threads.open_again(thread, ts)
        return {f"threads:{channel}": threads.saved()}

    def _channels(self, names: Mapping[str, str]) -> Iterator[Batch]:
        channels = Channels(self.workspace)
        for channel, found in zip(names, self.api.map(channels.info, names), strict=True):
            batch = channels.by_itself(channel, found)
            self._delivered(batch.observations, names[channel])
            yield batch

    def _people(self, names: Mapping[str, str]) -> Iterator[Batch]:
        people = People(self.workspace)
        for user, seen in zip(names, self.api.map(people.by_itself, names), strict=True):
            if seen is None:
                seen = self._gone(USERS, [user])
            yield Batch(self._delivered(seen, names[user]))
        yield from people.met(names)

    def _gone(self, resource: Resource, ids: Collection[str]) -> list[Seen]:
        """Deletions of what is landed of these."""
        return [tombstone(resource, each) for each in self.workspace.landed(resource, ids)]

    def _delivered(self, seen: list[Any], name: str) -> list[Any]:
        for _, each in seen:
            if isinstance(each, Observation):
                each.delivery_id = self.run.deliveries.get(name)
        return seen


def _plan(workspace: Workspace) -> Plan:
    run = workspace.run
    requests = 0
    for page in Channels(workspace).pages():
        requests += 1
        for found in page:
            if isinstance(found, Conversation) and found.is_readable:
                workspace.readable[found.id] = found
    readable = workspace.readable
    now = datetime.now(UTC).timestamp()
    due = sum(len(workspace.threads(channel).overdue(now)) for channel in readable)
    requests += len(readable) + sum(found.has_members for found in readable.values())
    requests += min(due, THREADS_PER_RUN)
    messages = 0
    what = f"the last days of {len(readable):,} channels"
    if run.sweeps:
        messages, threads = workspace.count_messages(), workspace.count_threads()
        requests += len(readable) + messages // PAGE["conversations.history"] + threads
        requests += 1 + workspace.count_users() // PAGE["users.list"]
        what += f", then all of them, {threads:,} threads of known messages among them"
    if new := sum(channel not in workspace.progress for channel in readable):
        what += f"; {new:,} were never read, and may be of any size"
    return Plan(what, requests, float(run.settings.slack_rate), messages)


def _sweep_began(run: Run) -> str:
    """When the sweep began that goes on: one that was interrupted is gone on with for a while."""
    now = datetime.now(UTC)
    begun = run.cursors.time("sweep")
    is_fresh = begun and now - begun < timedelta(hours=float(run.settings.sweep_hours))
    return (begun if begun and is_fresh else now).isoformat()
