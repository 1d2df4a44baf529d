"""What people do in a Slack workspace, in any order, and what has to be landed of it then.

The machine is the same over a lake in memory and over a real one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from dlt_sources.slack.messages import Conversations
from dlt_sources.slack.settings import CHANNELS, MESSAGES, USERS
from dlt_sources.versions import Resource
from loreline.errors import LorelineError
from tests.simulators.api import FAULTS, Server
from tests.simulators.slack import BOT, Channel, Slack

Json = Any

WINDOW_SECONDS = 48 * 3600
texts = st.sampled_from(["yes", "no", "<@U0ADA> look", "the till is down", ""])
picks = st.integers(0, 10_000)
# What people do, the more often the more often it is here.
doings = st.sampled_from(
    [
        *(["post", "reply", "edit", "delete"] * 3),
        *(["time_passes"] * 2),
        "channel_begins",
        "join_or_leave",
        "change_channel",
    ]
)
changes_of_people = st.lists(st.tuples(doings, picks, picks, texts), min_size=2, max_size=8)
Changes = list[tuple[str, int, int, str]]


class Lake(Protocol):
    """Where a machine lands."""

    def run(self, *, sweep: bool, names: list[str] | None = None) -> None:
        """Run the source."""
        ...

    def live(self, resource: Resource) -> dict[str, Json]:
        """Payloads of what is landed, and not as deleted."""
        ...

    def cursors(self) -> dict[str, Json]:
        """What was saved."""
        ...

    def land_export(self, files: dict[str, Json]) -> None:
        """Land an export."""
        ...


class SlackMachine(RuleBasedStateMachine):
    """A workspace that is read now and then, by a client that may fail anywhere."""

    slack: Slack
    server: Server
    lake: Lake

    def begin(self) -> None:
        """Start what is served and landed; sets `slack`, `server` and `lake`."""
        raise NotImplementedError

    @initialize(page_size=st.sampled_from([2, 5, 100]), skew=st.sampled_from([0, -600, 3_600]))
    def start(self, page_size: int, skew: int) -> None:
        self.begin()
        self.slack.page_size = page_size
        self.slack.advance(skew)
        self.is_half_swept = False
        self.once_read: set[str] = set()
        for kind in ("public", "private", "im"):
            channel = self.slack.add_channel(kind)
            for text in ("long ago", "lately"):
                root = self.slack.post(channel, text)
                for reply in ("yes", "no", "perhaps"):
                    self.slack.post(channel, reply, thread=root)
                self.slack.advance(86_400 * 3)

    # What people do

    def people_do(self, changes: Changes) -> None:
        """They do not wait to be read in between."""
        for what, pick, which, text in changes:
            self.somebody_does(what, self.channel(pick), which, text)

    def somebody_does(self, what: str, channel: Channel, which: int, text: str) -> None:
        """One thing; what is archived can only be looked at, and brought back."""
        if what in ("post", "reply", "edit", "delete") and channel.is_archived:
            return
        getattr(self, what)(channel, which, text)

    def channel_begins(self, channel: Channel, which: int, text: str) -> None:
        """A new one, with the bot or without."""
        if len(self.slack.channels) < 6:
            kind = ("public", "private", "mpim")[which % 3]
            self.slack.add_channel(kind, with_bot=which % 2 == 0)

    def post(self, channel: Channel, which: int, text: str) -> None:
        """Somebody writes, sometimes for the first time."""
        user = f"U0NEW{which % 5}"
        if user not in self.slack.users:
            self.slack.add_user(user)
        self.slack.post(channel, text, user=user)

    def reply(self, channel: Channel, which: int, text: str) -> None:
        """An answer to any message, however old."""
        roots = [ts for ts, m in channel.messages.items() if m.get("thread_ts", ts) == ts]
        if roots:
            root = sorted(roots)[which % len(roots)]
            broadcast = which % 3 == 0
            self.slack.post(channel, text, thread=root, broadcast=broadcast, user="U0BOB")

    def edit(self, channel: Channel, which: int, text: str) -> None:
        """Any message, replies among them."""
        if live := self.live_messages(channel):
            self.slack.edit(channel, live[which % len(live)], text)

    def delete(self, channel: Channel, which: int, text: str) -> None:
        """Any message, first ones of threads among them."""
        if live := self.live_messages(channel):
            self.slack.delete(channel, live[which % len(live)])

    def join_or_leave(self, channel: Channel, which: int, text: str) -> None:
        """Somebody, often the bot."""
        if channel.kind != "im":
            channel.members ^= {(BOT, "U0BOB", BOT, "U0CYD")[which % 4]}

    def change_channel(self, channel: Channel, which: int, text: str) -> None:
        """A topic, or whether it is archived."""
        if channel.kind != "im":
            self.slack.change(channel, topic=text, is_archived=which % 3 == 0)

    def time_passes(self, channel: Channel, which: int, text: str) -> None:
        """An hour, or weeks."""
        self.slack.advance((1, 20, 60, 24 * 12)[which % 4] * 3600)

    # What is read

    @rule(changes=changes_of_people)
    def recent_is_true(self, changes: Changes) -> None:
        """After a run of its own, the windows are as they are in Slack, and who may read them."""
        self.people_do(changes)
        self.read(sweep=False)
        for channel in self.read_channels():
            landed, truth = self.landed(channel), self.slack.truth(channel)
            low = f"{float(channel.newest) - WINDOW_SECONDS:.6f}"
            shown = {ts for ts in truth if _root(truth[ts]) >= low}
            for ts in {ts for ts in channel.history() if ts >= low} & truth.keys():
                assert _content(landed.get(ts)) == _content(truth[ts]), ts
            assert {ts for ts in landed if _root(landed[ts]) >= low} == shown
        self.check_channels()

    @rule(changes=changes_of_people)
    def open_threads_are_true(self, changes: Changes) -> None:
        """Once those that are open were due, they are as they are in Slack too."""
        self.people_do(changes)
        self.read(sweep=False)
        self.slack.advance(4 * 86_400)
        opened = {
            (name.partition(":")[2], root)
            for name, saved in self.lake.cursors().items()
            if name.startswith("threads:")
            for root in saved
        }
        self.read(sweep=False)
        for channel in self.read_channels():
            if channel.is_archived:
                continue
            landed, truth = self.landed(channel), self.slack.truth(channel)
            for root in [root for of, root in opened if of == channel.id]:
                expected = {ts: _content(m) for ts, m in truth.items() if _root(m) == root}
                assert {ts: _content(m) for ts, m in landed.items() if _root(m) == root} == expected

    @rule(changes=changes_of_people)
    def everything_is_true(self, changes: Changes) -> None:
        """After a sweep, all that the bot can read is as it is in Slack."""
        self.people_do(changes)
        if self.is_half_swept:
            self.read(sweep=True)
        self.read(sweep=True)
        for channel in self.read_channels():
            landed, truth = self.landed(channel), self.slack.truth(channel)
            assert {ts: _content(m) for ts, m in landed.items()} == {
                ts: _content(m) for ts, m in truth.items()
            }
        self.check_channels()
        users = self.lake.live(USERS)
        assert {user: _hash(USERS, users.get(user)) for user in self.slack.users} == {
            user: _hash(USERS, value) for user, value in self.slack.users.items()
        }

    @rule(
        changes=changes_of_people,
        sweep=st.booleans(),
        faults=st.dictionaries(st.integers(0, 12), st.sampled_from(FAULTS), max_size=4),
    )
    def read_with_failures_that_pass(
        self, changes: Changes, sweep: bool, faults: dict[int, str]
    ) -> None:
        """Any fault that passes, at any request."""
        self.people_do(changes)
        self.server.clear()
        self.server.faults = dict(faults)
        self.read(sweep=sweep)
        self.server.faults = {}

    @rule(changes=changes_of_people, sweep=st.booleans(), at=st.integers(0, 15))
    def read_until_it_fails(self, changes: Changes, sweep: bool, at: int) -> None:
        """A service that says no from some request on."""
        self.people_do(changes)

        def refuse(number: int) -> None:
            if number - before >= at:
                for method in ("history", "replies", "list", "members", "info"):
                    self.slack.replace(f"conversations.{method}", {"ok": False, "error": "no"})

        before = self.slack.answered
        self.slack.before_request = refuse
        try:
            self.read(sweep=sweep)
        except LorelineError:
            self.is_half_swept |= sweep
        finally:
            self.slack.before_request = None
            for method in ("history", "replies", "list", "members", "info"):
                self.slack.replace(f"conversations.{method}")

    @rule(sweep=st.booleans(), at=st.integers(0, 15), what=doings, pick=picks, which=picks)
    def read_while_something_changes(
        self, sweep: bool, at: int, what: str, pick: int, which: int
    ) -> None:
        """People do not stop while they are read."""
        before = self.slack.answered

        def change(number: int) -> None:
            if number - before == at:
                self.somebody_does(what, self.channel(pick), which, "meanwhile")

        self.slack.before_request = change
        try:
            self.read(sweep=sweep)
        finally:
            self.slack.before_request = None

    @rule(pick=picks, which=picks)
    def delivery(self, pick: int, which: int) -> None:
        """What a delivery names is true then, whatever it was about."""
        channel = self.channel(pick)
        if not self.live_messages(channel):
            return
        ts = sorted(channel.messages)[which % len(channel.messages)]
        root = channel.messages[ts].get("thread_ts", "")
        self.slack.edit(channel, ts, "delivered")
        self.lake.run(sweep=False, names=[f"message:{channel.id}:{ts}:{root}"])
        if channel.is_readable:
            truth = self.slack.truth(channel)
            assert _content(self.landed(channel).get(ts)) == _content(truth.get(ts))

    @precondition(lambda self: self.slack.channels)
    @rule()
    def export_is_landed(self) -> None:
        """An export of now says what the API says."""
        self.read(sweep=True)
        if self.is_half_swept:
            self.read(sweep=True)
        before = {c.id: self.landed(c) for c in self.read_channels()}
        self.lake.land_export(self.slack.export())
        for channel in self.read_channels():
            assert self.landed(channel) == before[channel.id]
        # Whoever exports a channel that the bot has lost shows it again.
        self.once_read = {c.id for c in self.read_channels()}

    # What it is compared with

    def read(self, *, sweep: bool) -> None:
        """Run the source; a sweep that came to its end leaves none behind."""
        self.lake.run(sweep=sweep)
        if sweep:
            self.is_half_swept = False
        self.once_read |= {c.id for c in self.slack.channels.values() if c.is_readable}

    def channel(self, pick: int) -> Channel:
        """One of the channels."""
        return list(self.slack.channels.values())[pick % len(self.slack.channels)]

    def live_messages(self, channel: Channel) -> list[str]:
        """Those that can be changed."""
        return sorted(self.slack.truth(channel))

    def read_channels(self) -> list[Channel]:
        """The channels that the bot is in."""
        return [c for c in self.slack.channels.values() if c.is_readable]

    def landed(self, channel: Channel) -> dict[str, Json]:
        """The landed messages of a channel by `ts`."""
        live = self.lake.live(MESSAGES).items()
        return {i.partition(":")[2]: m for i, m in live if i.startswith(f"{channel.id}:")}

    def check_channels(self) -> None:
        """Those in which the bot is are there, with their members; those that it lost are not."""
        live = self.lake.live(CHANNELS)
        for channel in self.slack.channels.values():
            if channel.is_readable:
                landed = live[channel.id]
                assert landed.get("topic", {"value": ""})["value"] == channel.topic
                assert landed["is_archived"] is channel.is_archived
                if channel.kind != "public":
                    assert landed["members"] == sorted(channel.members)
            elif channel.id in self.lost_to_the_bot():
                assert channel.id not in live, channel

    def lost_to_the_bot(self) -> set[str]:
        """Channels that were read, and that no longer can be."""
        return {
            c.id
            for c in self.slack.channels.values()
            if not c.is_readable and c.id in self.once_read and c.kind in ("private",)
        }


def landed_by_an_export(
    files: dict[str, Json], folder: Any, write: Callable[[Any, dict[str, Json]], Any]
) -> list[tuple[Resource, Any]]:
    """What the file route makes of an export."""
    from dlt_sources.slack.archive import Export

    found = Conversations(Export(write(folder, files)), datetime.now(UTC))
    return [
        *((CHANNELS, each) for each in found.channels()),
        *((USERS, each) for each in found.users()),
        *((MESSAGES, each) for each in found.messages()),
    ]


def _root(message: Json) -> str:
    return message.get("thread_ts") or message["ts"]


def _content(message: Json | None) -> Json:
    if message is None:
        return None
    kept = ("ts", "text", "user", "subtype", "thread_ts", "edited")
    return {key: message.get(key) for key in kept}


def _hash(resource: Resource, payload: Json | None) -> Json:
    return payload and resource.hashes(payload)
