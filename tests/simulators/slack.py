"""A Slack workspace: its Web API, as far as the source asks for it, and what people do in it.

Answers are shaped after recorded ones. Time goes as fast as it is told to: `advance` puts the clock
of the server forward, by which messages are stamped.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.simulators.api import Answer, Asked, Server

Json = Any
BOT = "U0BOT"


@dataclass
class Channel:
    """A conversation.

    Attributes:
        id: C…, G…, D….
        kind: public, private, mpim or im.
        name: as people see it.
        members: their ids; the bot is one of them where it is in.
        is_archived: whether it is archived.
        messages: by `ts`, replies included; deleted ones are not there.
        newest: the latest `ts` that was ever in its history.
        updated: when it was changed, in milliseconds.
    """

    id: str
    kind: str
    name: str
    members: set[str]
    is_archived: bool = False
    topic: str = ""
    messages: dict[str, Json] = field(default_factory=dict)
    newest: str = "0.000000"
    updated: int = 0

    @property
    def is_readable(self) -> bool:
        """Whether the bot is in it."""
        return BOT in self.members

    def replies(self, root: str) -> list[str]:
        """The replies in a thread, first to last."""
        return sorted(ts for ts, m in self.messages.items() if m.get("thread_ts") == root != ts)

    def history(self) -> list[str]:
        """What history shows, first to last."""
        return sorted(
            ts
            for ts, m in self.messages.items()
            if m.get("thread_ts", ts) == ts or m.get("subtype") == "thread_broadcast"
        )

    def shown(self, ts: str) -> Json:
        """A message as an answer has it."""
        message = dict(self.messages[ts])
        if message.get("subtype") == "thread_broadcast":
            root = message["thread_ts"]
            message["root"] = self.shown(root) if root in self.messages else {"ts": root}
        if message.get("thread_ts", ts) == ts and (replies := self.replies(ts)):
            message |= {
                "thread_ts": ts,
                "reply_count": len(replies),
                "latest_reply": replies[-1],
                "reply_users": sorted({self.messages[each]["user"] for each in replies}),
                "subscribed": False,
                "is_locked": False,
            }
        return message


class Slack:
    """A workspace.

    Attributes:
        channels: by id.
        users: by id.
        page_size: elements of a list at most, whatever is asked for.
        before_request: called with the number of each request before it is answered.
        is_limited: whether history says that it would show more for money.
        server: where it is served; its clock follows.
    """

    def __init__(self, page_size: int = 1_000) -> None:
        self.channels: dict[str, Channel] = {}
        self.users: dict[str, Json] = {}
        self.page_size = page_size
        self.before_request: Callable[[int], None] | None = None
        self.is_limited = False
        self.server: Server | None = None
        self.answered = 0
        self.offset = 0.0
        self._last = 0.0
        self._numbers = count(1)
        self._replacements: dict[str, Json] = {}
        for user in (BOT, "U0ADA", "U0BOB", "U0CYD"):
            self.add_user(user)

    # What people do

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.offset += seconds
        if self.server:
            self.server.clock_skew = self.offset

    def ts(self) -> str:
        """The present, later than any `ts` before."""
        self._last = max(time.time() + self.offset, self._last + 0.000_002)
        return f"{self._last:.6f}"

    def add_user(self, user: str, **fields: Json) -> str:
        """Somebody comes."""
        self.users[user] = {
            "id": user,
            "name": user.lower(),
            "deleted": False,
            "is_bot": user == BOT,
            "updated": int(time.time()),
            "profile": {"real_name": f"{user} Real", "email": f"{user.lower()}@example.com"},
            "team_id": "T0",
            "color": "ff0000",
            **fields,
        }
        return user

    def add_channel(
        self, kind: str = "public", *, with_bot: bool = True, name: str = ""
    ) -> Channel:
        """A conversation begins."""
        number = next(self._numbers)
        letter = {"public": "C", "private": "G", "mpim": "G", "im": "D"}[kind]
        members = {"U0ADA"} if kind == "im" else {"U0ADA", "U0BOB"}
        channel = Channel(
            f"{letter}0{number:04}", kind, name or f"{kind}-{number}", members, updated=self._ms()
        )
        if with_bot or kind in ("im", "mpim"):
            channel.members.add(BOT)
        self.channels[channel.id] = channel
        return channel

    def post(
        self,
        channel: Channel,
        text: str,
        *,
        thread: str = "",
        broadcast: bool = False,
        **fields: Json,
    ) -> str:
        """Write a message, or a reply; gives its `ts`."""
        ts = self.ts()
        message = {
            "type": "message",
            "user": "U0ADA",
            "text": text,
            "ts": ts,
            "team": "T0",
            **fields,
        }
        if thread:
            message |= {"thread_ts": thread, "parent_user_id": "U0ADA"}
        if broadcast:
            message["subtype"] = "thread_broadcast"
        channel.messages[ts] = message
        if not thread or broadcast:
            channel.newest = ts
        return ts

    def edit(self, channel: Channel, ts: str, text: str) -> None:
        """Change what a message says."""
        channel.messages[ts] |= {"text": text, "edited": {"user": "U0ADA", "ts": self.ts()}}

    def delete(self, channel: Channel, ts: str) -> None:
        """Delete a message; where there are replies, a tombstone stays."""
        root = channel.messages[ts].get("thread_ts", ts)
        if channel.replies(ts) and root == ts:
            channel.messages[ts] = {
                "type": "message",
                "subtype": "tombstone",
                "user": "USLACKBOT",
                "text": "This message was deleted.",
                "hidden": True,
                "ts": ts,
                "thread_ts": ts,
            }
            return
        del channel.messages[ts]
        parent = channel.messages.get(root, {})
        if parent.get("subtype") == "tombstone" and not channel.replies(root):
            del channel.messages[root]

    def change(self, channel: Channel, **fields: Json) -> None:
        """Rename, archive, …"""
        for name, value in fields.items():
            setattr(channel, name, value)
        channel.updated = self._ms()

    def _ms(self) -> int:
        return int((time.time() + self.offset) * 1000)

    # What is true

    def truth(self, channel: Channel) -> dict[str, Json]:
        """The messages of a channel that are not deleted, by `ts`."""
        return {
            ts: channel.shown(ts)
            for ts, message in channel.messages.items()
            if message.get("subtype") != "tombstone"
        }

    # What is answered

    def answer(self, asked: Asked) -> Answer:
        """Answer a request, changes before it included."""
        if self.before_request:
            self.before_request(self.answered)
        self.answered += 1
        method = asked.path.rpartition("/")[2]
        form = asked.body or {}
        if asked.headers.get("authorization") != "Bearer xoxb-1":
            return _no("invalid_auth")
        handler = getattr(self, "_" + method.replace(".", "_"), None)
        if asked.method != "POST" or handler is None:
            return _no("unknown_method")
        if method in self._replacements:
            return self._replacements[method]
        return handler(form)

    def replace(self, method: str, answer: Json = None) -> None:
        """Answer a method so from now on; as ever where nothing is given."""
        if answer is None:
            self._replacements.pop(method, None)
        else:
            self._replacements[method] = answer if isinstance(answer, Answer) else Answer(answer)

    def _auth_test(self, form: Json) -> Answer:
        return Answer({"ok": True, "user_id": BOT, "team_id": "T0", "bot_id": "B0"})

    def _users_list(self, form: Json) -> Answer:
        return self._list("members", list(self.users.values()), form)

    def _users_info(self, form: Json) -> Answer:
        user = self.users.get(form.get("user"))
        return Answer({"ok": True, "user": user}) if user else _no("user_not_found")

    def _conversations_list(self, form: Json) -> Answer:
        types = form.get("types", "public_channel").split(",")
        kinds = {each.removesuffix("_channel") for each in types}
        found = [
            self._object(channel)
            for channel in self.channels.values()
            if channel.kind in kinds and (channel.kind == "public" or channel.is_readable)
        ]
        return self._list("channels", found, form)

    def _conversations_info(self, form: Json) -> Answer:
        channel = self.channels.get(form.get("channel"))
        if channel is None or (channel.kind != "public" and not channel.is_readable):
            return _no("channel_not_found")
        return Answer({"ok": True, "channel": self._object(channel)})

    def _conversations_members(self, form: Json) -> Answer:
        channel, refusal = self._readable(form)
        return refusal or self._list("members", sorted(channel.members), form)

    def _conversations_history(self, form: Json) -> Answer:
        channel, refusal = self._readable(form)
        if refusal:
            return refusal
        shown = [ts for ts in reversed(channel.history()) if _is_within(ts, form)]
        below = _cursor(form)
        if below:
            shown = [ts for ts in shown if ts <= below]
        return self._messages(channel, shown, form, {"is_limited": True} if self.is_limited else {})

    def _conversations_replies(self, form: Json) -> Answer:
        channel, refusal = self._readable(form)
        if refusal:
            return refusal
        root = form.get("ts", "")
        if root not in channel.messages and not channel.replies(root):
            return _no("thread_not_found")
        replies = [ts for ts in channel.replies(root) if _is_within(ts, form)]
        if above := _cursor(form):
            replies = [ts for ts in replies if ts >= above]
        elif root in channel.messages:
            replies = [root, *replies]
        return self._messages(channel, replies, form, {})

    def _messages(self, channel: Channel, shown: list[str], form: Json, more: Json) -> Answer:
        size = min(int(form.get("limit", 100)), self.page_size)
        following = shown[size] if len(shown) > size else ""
        return Answer(
            {
                "ok": True,
                "messages": [channel.shown(ts) for ts in shown[:size]],
                "has_more": bool(following),
                "response_metadata": {"next_cursor": _opaque(following)},
                **more,
            }
        )

    def _list(self, key: str, elements: list[Json], form: Json) -> Answer:
        begin = int(_cursor(form) or 0)
        end = begin + min(int(form.get("limit", 100)), self.page_size)
        following = str(end) if end < len(elements) else ""
        return Answer(
            {
                "ok": True,
                key: elements[begin:end],
                "response_metadata": {"next_cursor": _opaque(following)},
            }
        )

    def _readable(self, form: Json) -> tuple[Channel, Answer | None]:
        channel = self.channels.get(form.get("channel"))
        if channel is None or (channel.kind != "public" and not channel.is_readable):
            return Channel("", "", "", set()), _no("channel_not_found")
        return channel, None if channel.is_readable else _no("not_in_channel")

    def _object(self, channel: Channel) -> Json:
        if channel.kind == "im":
            others = sorted(channel.members - {BOT})
            return {"id": channel.id, "created": 1, "is_im": True, "user": others[0], "updated": 1}
        return {
            "id": channel.id,
            "name": channel.name,
            "created": 1,
            "creator": "U0ADA",
            "is_archived": channel.is_archived,
            "is_channel": channel.kind == "public",
            "is_im": False,
            "is_mpim": channel.kind == "mpim",
            "is_private": channel.kind != "public",
            "is_member": channel.is_readable,
            "num_members": len(channel.members),
            "topic": {"value": channel.topic, "creator": "U0ADA", "last_set": 1},
            "purpose": {"value": "", "creator": "", "last_set": 0},
            "updated": channel.updated,
        }

    # The same as an export

    def export(self) -> dict[str, Json]:
        """The files of a workspace export: all conversations, the bot's or not."""
        lists: dict[str, list[Json]] = {
            f"{name}.json": [] for name in ("channels", "groups", "mpims", "dms")
        }
        files: dict[str, Json] = {**lists, "users.json": list(self.users.values())}
        places = {"public": "channels", "private": "groups", "mpim": "mpims", "im": "dms"}
        for channel in self.channels.values():
            entry = {"id": channel.id, "created": 1, "members": sorted(channel.members)}
            if channel.kind != "im":
                entry |= {
                    "name": channel.name,
                    "creator": "U0ADA",
                    "is_archived": channel.is_archived,
                    "topic": {"value": channel.topic, "creator": "U0ADA", "last_set": 1},
                    "purpose": {"value": "", "creator": "", "last_set": 0},
                }
            lists[f"{places[channel.kind]}.json"].append(entry)
            folder = channel.id if channel.kind == "im" else channel.name
            for ts in sorted(channel.messages):
                day = time.strftime("%Y-%m-%d", time.gmtime(float(ts)))
                message = {"user_profile": {"name": "ada"}, "source_team": "T0"}
                files.setdefault(f"{folder}/{day}.json", []).append(
                    message | channel.shown(ts) | {"replies": []}
                )
        return files


def _no(error: str) -> Answer:
    return Answer({"ok": False, "error": error})


def _is_within(ts: str, form: Json) -> bool:
    inclusive = form.get("inclusive") == "true"
    oldest, latest = form.get("oldest", ""), form.get("latest", "")
    if oldest and (float(ts) < float(oldest) or (ts == oldest and not inclusive)):
        return False
    return not latest or ts < latest or (ts == latest and inclusive)


def _opaque(bound: str) -> str:
    return base64.b64encode(f"next:{bound}".encode()).decode() if bound else ""


def _cursor(form: Json) -> str:
    given = form.get("cursor")
    return base64.b64decode(given).decode().removeprefix("next:") if given else ""
