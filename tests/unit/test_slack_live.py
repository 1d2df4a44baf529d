"""Slack through its Web API, against a simulated workspace and a lake in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dlt_sources.api import Patience
from dlt_sources.json_files import Record
from dlt_sources.slack.client import record_of
from dlt_sources.slack.live import SlackLive
from dlt_sources.slack.observations import channel_seen, message_seen, user_seen
from dlt_sources.slack.settings import CHANNELS, MESSAGES, USERS
from dlt_sources.slack.threads import OPEN_SECONDS, SHORTEST_SECONDS, THREADS_PER_RUN, Threads
from dlt_sources.slack.workspace import Conversation
from dlt_sources.slices import Observation
from loreline.errors import LorelineError
from loreline.settings import Settings
from tests.simulators.api import FAULTS, Answer, Server, serving
from tests.simulators.lake import Killed, MemoryLake
from tests.simulators.slack import BOT, Channel, Slack

Json = Any
QUICK = Patience(timeout=0.5, total=10, first_wait=0.01, longest_wait=0.05)
DAY = 86_400


@dataclass
class World:
    """A workspace, where it is served, and what was landed of it."""

    slack: Slack
    server: Server
    lake: MemoryLake
    source: SlackLive

    def run(self, **options: Json) -> int:
        """Run the source; gives how many requests it made."""
        self.server.clear()
        self.lake.run(self.source, **options)
        return self.server.answered

    def asked(self, method: str) -> list[Json]:
        """The arguments of the requests of the last run."""
        return [a.body or {} for a in self.server.asked if a.path.endswith(method)]

    def messages(self, channel: Channel) -> dict[str, str]:
        """Texts of landed messages by `ts`."""
        live = self.lake.live(MESSAGES)
        return {
            i.partition(":")[2]: m["text"]
            for i, m in live.items()
            if i.startswith(f"{channel.id}:")
        }

    def is_true(self, channel: Channel) -> bool:
        """Whether the landed messages of a channel are those that it has."""
        truth = self.slack.truth(channel)
        return self.messages(channel) == {ts: m["text"] for ts, m in truth.items()}


@pytest.fixture
def world() -> Iterator[World]:
    slack = Slack()
    with serving(slack) as server:
        slack.server = server
        settings = Settings(slack_token="xoxb-1", slack_url=f"{server.url}/api", slack_rate="0")
        yield World(slack, server, MemoryLake(settings), SlackLive(settings, QUICK))


def filled(world: World, messages: int = 5) -> Channel:
    """A channel whose messages are landed."""
    channel = world.slack.add_channel()
    for n in range(messages):
        world.slack.post(channel, f"message {n}")
        world.slack.advance(60)
    world.run(sweep=True)
    return channel


def test_all_that_the_bot_may_read_lands(world: World) -> None:
    slack = world.slack
    slack.page_size = 3
    kinds = ("public", "private", "mpim", "im")
    channels = [slack.add_channel(kind) for kind in kinds]
    for channel in channels:
        for n in range(7):
            ts = slack.post(channel, f"{n}")
            for _ in range(n % 5):
                slack.post(channel, "a reply", thread=ts, user="U0BOB")
    other = slack.add_channel(with_bot=False)
    slack.post(other, "unread")
    hidden = slack.add_channel("private", with_bot=False)
    old = slack.add_channel()
    slack.post(old, "long ago")
    slack.change(old, is_archived=True)

    world.run(sweep=True)
    assert all(world.is_true(channel) for channel in [*channels, old])
    assert not world.messages(other)
    landed = world.lake.live(CHANNELS)
    assert {landed[c.id]["kind"] for c in channels[2:]} == {"dm"}
    assert "members" not in landed[channels[0].id]
    assert landed[channels[1].id]["members"] == sorted(channels[1].members)
    assert landed[channels[3].id]["members"] == sorted(channels[3].members)
    assert landed[old.id]["is_archived"] is True
    assert other.id in landed
    assert hidden.id not in landed
    assert world.lake.live(USERS).keys() == slack.users.keys()
    assert world.lake.summary.passed_over["channels"] == 1
    for ask in ("history", "replies"):
        assert all(body["channel"] != other.id for body in world.asked(f"conversations.{ask}"))


def test_a_run_with_nothing_new_lands_nothing_and_saves_nothing(world: World) -> None:
    channel = filled(world)
    for root in list(channel.messages)[:2]:
        world.slack.post(channel, "a reply", thread=root)
    world.run()
    before = dict(world.lake.cursors.values)
    world.run()
    assert (world.lake.rows_landed, world.lake.snapshots) == (0, 0)
    assert world.lake.cursors.values == before
    assert world.is_true(channel)
    world.run(sweep=True)
    assert world.lake.rows_landed == 0


@pytest.mark.parametrize("many", [50, 1_000])
def test_what_a_run_asks_does_not_grow_with_messages_threads_or_users(
    world: World, many: int
) -> None:
    slack = world.slack
    channels = [slack.add_channel(), slack.add_channel("private"), slack.add_channel("im")]
    for n in range(many):
        ts = slack.post(channels[n % 3], "a message")
        if n % 10 == 0:
            slack.post(channels[n % 3], "a reply", thread=ts)
        if n % 20 == 0:
            slack.add_user(f"U{n:05}")
    slack.advance(60 * DAY)
    for channel in channels:
        slack.post(channel, "the last one")
    world.run(sweep=True)
    # The list, members of the private channel, the bot's id for the other, the days of each.
    assert world.run() == 1 + 1 + 1 + 3


def test_edits_and_deletions_within_the_window(world: World) -> None:
    channel = filled(world)
    first, second, third, *_ = channel.messages
    world.slack.edit(channel, first, "better")
    world.slack.delete(channel, second)
    world.slack.post(channel, "new")
    world.run()
    assert world.is_true(channel)
    assert world.lake.rows_landed == 3
    world.slack.post(channel, "a reply", thread=third)
    world.slack.delete(channel, third)
    world.run()
    assert world.is_true(channel)
    assert third not in world.messages(channel)
    assert "a reply" in world.messages(channel).values()


def test_what_lies_before_the_window_waits_for_the_sweep(world: World) -> None:
    channel = filled(world)
    first, second, *_ = channel.messages
    world.slack.advance(3 * DAY)
    world.slack.post(channel, "now")
    world.run()
    world.slack.delete(channel, first)
    world.slack.edit(channel, second, "better")
    world.run()
    assert world.messages(channel)[first] == "message 0"
    world.run(sweep=True)
    assert world.is_true(channel)


def test_late_replies_edits_and_deletions_in_open_threads_arrive(world: World) -> None:
    slack, channel = world.slack, filled(world)
    root = next(iter(channel.messages))
    reply = slack.post(channel, "one", thread=root)
    world.run()
    slack.advance(5 * DAY)
    slack.post(channel, "the window is elsewhere now")
    world.run()
    slack.post(channel, "late", thread=root)
    slack.edit(channel, reply, "one, but better")
    slack.advance(DAY)
    world.run()
    assert world.is_true(channel)
    slack.delete(channel, reply)
    slack.advance(DAY)
    world.run()
    assert world.is_true(channel)
    slack.advance(40 * DAY)
    world.run()
    assert len(world.asked("conversations.replies")) == 1
    world.run()
    assert world.asked("conversations.replies") == []
    assert not world.lake.cursors.named("threads:")


def test_an_edit_in_a_thread_of_the_window_is_seen_when_it_is_due(world: World) -> None:
    channel = filled(world)
    root = next(iter(channel.messages))
    reply = world.slack.post(channel, "one", thread=root)
    world.run()
    world.slack.edit(channel, reply, "better")
    world.slack.advance(SHORTEST_SECONDS + 5)
    world.run()
    assert world.is_true(channel)


def test_a_broadcast_is_one_message(world: World) -> None:
    slack, channel = world.slack, filled(world)
    root = next(iter(channel.messages))
    slack.post(channel, "for all", thread=root, broadcast=True)
    world.run()
    assert world.lake.rows_landed == 2  # the message, and that the other one begins a thread
    slack.post(channel, "more", thread=root)
    world.run()
    assert world.lake.rows_landed == 1
    assert world.is_true(channel)


def test_a_channel_that_the_bot_lost_is_deleted_and_comes_back(world: World) -> None:
    slack = world.slack
    lost = [slack.add_channel(), slack.add_channel("private"), slack.add_channel()]
    kept = slack.add_channel()
    for channel in [*lost, kept]:
        slack.post(channel, "something")
    world.run(sweep=True)
    for channel in lost[:2]:
        channel.members.discard(BOT)
    del slack.channels[lost[2].id]
    kept.members.discard(BOT)
    slack.change(kept, is_archived=True)
    world.run()
    live = world.lake.live(CHANNELS)
    assert kept.id in live
    assert not {channel.id for channel in lost} & live.keys()
    # Nothing is said of their messages.
    assert all(world.messages(channel) for channel in lost)
    world.run(sweep=True)
    assert world.lake.rows_landed == 0

    slack.delete(lost[0], next(iter(lost[0].messages)))
    slack.post(lost[0], "while it was away")
    lost[0].members.add(BOT)
    world.run()
    assert lost[0].id in world.lake.live(CHANNELS)
    assert world.is_true(lost[0])


def test_a_channel_that_is_lost_during_a_walk_says_nothing(world: World) -> None:
    slack, channel = world.slack, filled(world)
    before = world.messages(channel)
    slack.before_request = lambda n: channel.members.discard(BOT) if n else None
    slack.answered = 0
    world.run(sweep=True)
    assert world.messages(channel) == before
    assert channel.id in world.lake.live(CHANNELS)
    world.run()
    assert channel.id not in world.lake.live(CHANNELS)


def test_members_who_leave_a_private_channel_are_gone_at_once(world: World) -> None:
    channel = world.slack.add_channel("private")
    world.run(sweep=True)
    channel.members.discard("U0BOB")
    world.run()
    assert world.lake.live(CHANNELS)[channel.id]["members"] == sorted(["U0ADA", BOT])


def test_people_who_are_new_are_asked_for_once(world: World) -> None:
    slack, channel = world.slack, filled(world)
    slack.add_user("U0NEW")
    slack.post(channel, "hello <@U0NEW> and <@U0NOBODY>", user="U0NEW")
    world.run()
    assert {body["user"] for body in world.asked("users.info")} == {"U0NEW", "U0NOBODY"}
    assert "U0NEW" in world.lake.live(USERS)
    world.run()
    assert world.asked("users.info") == []


def test_too_many_deletions_are_refused(world: World) -> None:
    slack, channel = world.slack, filled(world, 40)
    for ts in list(channel.messages)[:20]:
        slack.delete(channel, ts)
    for sweep in (False, True, True):
        with pytest.raises(LorelineError, match="20 of 40 slack messages are gone"):
            world.run(sweep=sweep, max_deleted_share=0.15)
        assert len(world.messages(channel)) == 40
    world.run(sweep=True)
    assert world.is_true(channel)


def test_a_sweep_that_finds_too_much_forgets_what_it_found(world: World) -> None:
    slack, channel = world.slack, filled(world, 40)
    slack.advance(10 * DAY)
    slack.post(channel, "now")
    gone = {ts: channel.messages[ts] for ts in list(channel.messages)[:20]}
    for ts in gone:
        slack.delete(channel, ts)
    with pytest.raises(LorelineError, match="are gone"):
        world.run(sweep=True, max_deleted_share=0.15)
    channel.messages |= gone
    world.run(sweep=True)
    assert world.is_true(channel)


def test_what_a_workspace_does_not_pay_for_is_not_gone(world: World) -> None:
    slack, channel = world.slack, filled(world)
    slack.is_limited = True
    hidden = next(iter(channel.messages))
    del channel.messages[hidden]
    world.run(sweep=True)
    assert hidden in world.messages(channel)


def test_a_channel_that_is_archived_is_read_once_more(world: World) -> None:
    channel = filled(world)
    world.slack.post(channel, "goodbye")
    world.slack.change(channel, is_archived=True)
    world.run()
    assert world.is_true(channel)
    world.run()
    assert world.asked("conversations.history") == []
    world.slack.change(channel, is_archived=False)
    world.slack.post(channel, "hello again")
    world.run()
    assert world.is_true(channel)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_that_passes_changes_nothing(world: World, fault: str) -> None:
    channel = world.slack.add_channel()
    ts = world.slack.post(channel, "a message")
    world.slack.post(channel, "a reply", thread=ts)
    world.server.faults = dict.fromkeys(range(0, 12, 2), fault)
    world.server.hang = 0.6
    world.lake.run(world.source, sweep=True)
    assert world.is_true(channel)


@pytest.mark.parametrize("error", ["ratelimited", "internal_error", "fatal_error"])
def test_a_refusal_that_passes_is_asked_again(world: World, error: str) -> None:
    channel = filled(world)
    world.slack.post(channel, "new")
    refusal = Answer({"ok": False, "error": error}, headers={"retry-after": "0.05"})
    world.slack.replace("conversations.history", refusal)
    world.slack.before_request = lambda n: n < 4 or world.slack.replace("conversations.history")
    world.slack.answered = 0
    world.run()
    assert world.is_true(channel)


def test_what_is_not_ok_is_an_error_that_says_what_to_do(world: World) -> None:
    channel = filled(world)
    before = world.messages(channel)
    for answer, said in (
        ({"ok": False, "error": "invalid_auth"}, "check LORELINE_SLACK_TOKEN"),
        ({"ok": False, "error": "missing_scope", "needed": "groups:read"}, "groups:read"),
        ({"ok": False}, "not_ok"),
        ({"ok": True, "channels": None}, "no list of channels"),
    ):
        world.slack.replace("conversations.list", answer)
        with pytest.raises(LorelineError, match=said):
            world.run(sweep=True)
    world.slack.replace("conversations.list")
    world.slack.replace("conversations.history", {"ok": True, "messages": [], "has_more": True})
    with pytest.raises(LorelineError, match="does not say where"):
        world.run(sweep=True)
    again = {"ok": True, "messages": [], "response_metadata": {"next_cursor": "x"}}
    world.slack.replace("conversations.history", again)
    with pytest.raises(LorelineError, match="circle"):
        world.run(sweep=True)
    assert world.messages(channel) == before


def test_the_first_message_of_a_channel_that_was_empty_lands(world: World) -> None:
    channel = world.slack.add_channel()
    world.run()
    world.slack.post(channel, "first")
    world.run()
    assert world.is_true(channel)


def test_a_walk_that_was_killed_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dlt_sources.slack.history.SECONDS_PER_CHECKPOINT", 0.0)
    slack = world.slack
    slack.page_size = 5
    channel = slack.add_channel()
    for n in range(40):
        ts = slack.post(channel, f"{n}")
        slack.post(channel, "a reply", thread=ts)
    needed = world.run()
    world.lake = MemoryLake(world.lake.settings)
    for survived in (3, 2, 2):
        world.lake.dies_after = survived
        world.lake.batches_per_commit = 10
        with pytest.raises(Killed):
            world.run()
    last = world.run()
    assert last < needed
    assert world.is_true(channel)


def test_a_sweep_that_was_killed_deletes_what_it_had_found(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlt_sources.slack.history.SECONDS_PER_CHECKPOINT", 0.0)
    slack = world.slack
    slack.page_size = 5
    channel = filled(world, 40)
    slack.advance(10 * DAY)
    slack.post(channel, "now")
    world.run()
    for ts in list(channel.messages)[::4]:
        slack.delete(channel, ts)
    world.lake.batches_per_commit = 1
    world.lake.dies_after = 12
    with pytest.raises(Killed):
        world.run(sweep=True)
    assert world.lake.cursors.named("gone:")
    assert not world.is_true(channel)
    world.run(sweep=True)
    assert world.is_true(channel)
    assert not world.lake.cursors.named("gone:")


HOSTILE: list[Json] = [
    None,
    7,
    "text",
    [],
    {"text": "no ts"},
    {"ts": 1.5, "text": "a number"},
    {"ts": "soon", "text": "no time"},
    {"ts": "99999999999.000000", "text": "from the future", "type": "message"},
    {"ts": "1700000000.000001", "text": 5},
    {"ts": "1700000000.000002", "text": "x", "thread_ts": []},
    {"ts": "1700000000.000003", "text": "nul \0"},
    {"ts": "1700000000.000004", "text": "x", "edited": "yes"},
    {"ts": "1700000000.000005", "text": "x", "reply_count": "many", "latest_reply": 5},
    {"ts": "1700000000.000006", "text": "x", "subtype": "message_deleted"},
]


def test_what_is_no_object_is_set_aside_and_deletes_nothing(world: World) -> None:
    channel = filled(world)
    before = world.messages(channel)
    deep: Json = {"ts": "1700000000.000007"}
    for _ in range(400):
        deep = {"text": deep, "ts": "1700000000.000007"}
    hostile = {"ok": True, "messages": [*HOSTILE, deep]}
    world.slack.replace("conversations.history", hostile)
    wrong = [None, 5, {}, {"id": 7}, {"id": "C1:2"}]
    world.slack.replace(
        "conversations.list",
        {"ok": True, "channels": [*wrong, world.slack._object(channel)]},
    )
    world.slack.replace("users.list", {"ok": True, "members": [None, {}, {"id": []}]})
    world.run(sweep=True)
    live = world.messages(channel)
    assert before.items() <= live.items()
    assert {reject.reason for reject in world.lake.rejects} >= {
        "wrong_type",
        "missing_id",
        "nul_byte",
        "nested_too_deep",
    }
    world.slack.replace("conversations.history")
    world.slack.replace("conversations.list")
    world.slack.replace("users.list")
    world.run(sweep=True)
    assert world.is_true(channel)


def test_deliveries_fetch_the_newest_version(world: World) -> None:
    slack, channel = world.slack, filled(world)
    first, second, *_ = channel.messages
    reply = slack.post(channel, "a reply", thread=first)
    slack.edit(channel, second, "better")
    world.run(names=[f"message:{channel.id}:{reply}:{first}", f"message:{channel.id}:{second}:"])
    assert world.messages(channel)[reply] == "a reply"
    assert world.messages(channel)[second] == "better"
    assert world.server.answered == 2

    # A name that does not say that it is a reply.
    world.run(names=[f"message:{channel.id}:{reply}:"])
    assert reply in world.messages(channel)
    slack.delete(channel, reply)
    slack.delete(channel, second)
    world.run(names=[f"message:{channel.id}:{reply}:{first}", f"message:{channel.id}:{second}:"])
    assert world.is_true(channel) or {reply, second}.isdisjoint(world.messages(channel))
    world.run(names=[f"message:{channel.id}:1700000000.000001:", "nonsense", "message:a:b:c"])
    assert world.lake.rows_landed == 0
    assert world.lake.rejects[-1].reason == "unknown_name"


def test_deliveries_of_channels_and_people(world: World) -> None:
    slack = world.slack
    filled(world)
    private = slack.add_channel("private")
    ts = slack.post(private, "hello", user=slack.add_user("U0NEW"))
    world.run(names=[f"message:{private.id}:{ts}:"])
    assert world.lake.live(CHANNELS)[private.id]["members"] == sorted(private.members)
    assert "U0NEW" in world.lake.live(USERS)
    private.members.discard(BOT)
    world.run(names=[f"message:{private.id}:{ts}:"])
    assert private.id not in world.lake.live(CHANNELS)
    private.members.add(BOT)
    world.run(names=[f"channel:{private.id}"])
    assert private.id in world.lake.live(CHANNELS)
    slack.users["U0NEW"] = {**slack.users["U0NEW"], "real_name": "Newman"}
    world.run(names=["user:U0NEW"])
    assert world.lake.live(USERS)["U0NEW"]["real_name"] == "Newman"
    del slack.users["U0NEW"]
    world.run(names=["user:U0NEW", "user:U0NEVER"])
    assert "U0NEW" not in world.lake.live(USERS)
    world.run()
    assert world.is_true(private)


def test_a_late_reply_that_was_delivered_opens_its_thread_again(world: World) -> None:
    slack, channel = world.slack, filled(world)
    root = next(iter(channel.messages))
    slack.advance(60 * DAY)
    slack.post(channel, "now")
    world.run()
    slack.post(channel, "missed", thread=root)
    reply = slack.post(channel, "delivered", thread=root)
    world.run(names=[f"message:{channel.id}:{reply}:{root}"])
    assert "missed" not in world.messages(channel).values()
    world.run()
    assert world.is_true(channel)


def test_a_plan_asks_little(world: World) -> None:
    filled(world, 30)
    run = replace(world.source.settings, slack_rate="0.8")
    world.lake.settings = run
    plans = []
    for sweep in (False, True):
        world.server.clear()
        plans.append(world.lake.plan(world.source, sweep=sweep))
        assert world.server.answered == 1
    assert plans[0].requests < plans[1].requests
    assert plans[1].objects == 30
    assert plans[0].seconds == plans[0].requests / 0.8


def test_a_setting_leaves_kinds_of_conversations_out(world: World) -> None:
    direct = world.slack.add_channel("im")
    world.slack.post(direct, "between us")
    public = filled(world)
    assert world.messages(direct)
    world.lake.settings = replace(world.lake.settings, slack_conversations="public_channel")
    world.slack.post(direct, "more")
    world.run(sweep=True)
    assert direct.id in world.lake.live(CHANNELS)
    assert len(world.messages(direct)) == 1
    assert world.is_true(public)
    world.lake.settings = replace(world.lake.settings, slack_conversations="all")
    with pytest.raises(LorelineError, match="LORELINE_SLACK_CONVERSATIONS names all"):
        world.run()


def test_threads_are_read_less_often_the_longer_they_are_quiet() -> None:
    threads = Threads()
    threads.keep("1.0", "1.0", 1, 1.0)
    now, polls = 1.0, 0
    while threads.saved():
        now += 60
        if threads.overdue(now):
            threads.keep("1.0", "1.0", 1, now)
            polls += 1
        threads.close(now)
    assert now == pytest.approx(OPEN_SECONDS, rel=0.01)
    assert 50 < polls < 90


def test_no_run_reads_more_than_so_many_threads_again(world: World) -> None:
    slack, channel = world.slack, world.slack.add_channel()
    for _ in range(THREADS_PER_RUN + 20):
        slack.post(channel, "a reply", thread=slack.post(channel, "a message"))
    world.run(sweep=True)
    slack.advance(DAY)
    world.run()
    assert len(world.asked("conversations.replies")) == THREADS_PER_RUN
    world.run()
    assert len(world.asked("conversations.replies")) == 20


def test_an_export_and_the_api_say_the_same(world: World) -> None:
    slack = world.slack
    channels = [slack.add_channel(kind) for kind in ("public", "private", "mpim", "im")]
    for channel in channels:
        root = slack.post(channel, "a message")
        slack.post(channel, "a reply", thread=root, broadcast=True)
    world.run(sweep=True)
    files, now = slack.export(), datetime.now(UTC)
    lists = {"channels": "public", "groups": "private", "mpims": "dm", "dms": "dm"}
    for name, kind in lists.items():
        for entry in files[f"{name}.json"]:
            seen = channel_seen(Record(entry, ""), now, kind)
            assert isinstance(seen, Observation)
            landed = world.lake.tables["channels"][seen.external_id]
            assert CHANNELS.hashes(seen.payload) == landed.state[:2]
    for entry in files["users.json"]:
        seen = user_seen(Record(entry, ""), now)
        assert isinstance(seen, Observation)
        assert USERS.hashes(seen.payload) == world.lake.tables["users"][seen.external_id].state[:2]
    for channel in channels:
        folder = channel.id if channel.kind == "im" else channel.name
        days = [value for name, value in files.items() if name.startswith(f"{folder}/")]
        for entry in [message for day in days for message in day]:
            seen = message_seen(Record(entry, ""), now, channel.id)
            assert isinstance(seen, Observation)
            landed = world.lake.tables["messages"][seen.external_id]
            assert MESSAGES.hashes(seen.payload) == landed.state[:2]


def test_recorded_answers_are_understood(real_data: Path) -> None:
    now = datetime.now(UTC)

    def recorded(method: str, key: str) -> list[Record]:
        body = json.loads((real_data / "slack" / "api" / f"{method}.json").read_text())
        found = body[key] if isinstance(body[key], list) else [body[key]]
        records = [record_of(value, method) for value in found]
        assert all(isinstance(record, Record) for record in records)
        return [record for record in records if isinstance(record, Record)]

    for method, key in (("conversations.list", "channels"), ("conversations.info", "channel")):
        for record in recorded(method, key):
            assert isinstance(Conversation.of(record, now), Conversation)
            assert isinstance(channel_seen(record, now), Observation)
    for method, key in (("users.list", "members"), ("users.info", "user")):
        assert all(isinstance(user_seen(r, now), Observation) for r in recorded(method, key))
    for record in recorded("conversations.replies", "messages"):
        seen = message_seen(record, now, "C0")
        assert isinstance(seen, Observation)
        assert MESSAGES.hashes(seen.payload)
