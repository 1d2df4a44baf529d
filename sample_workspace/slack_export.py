"""Reads the channel files of the story and writes them as an unpacked Slack workspace export.

A channel file, one line a message:

    ## 2026-09-17
    11:45 jonas: A message, wrapped
      where it is convenient.
      | A line of its own.
      :eyes: priya amara
      [file] pool.png | Connection pool | 48211
      [attachment danger] Title | Text | Service=till; Since=11:42
      > 11:46 priya (edited 11:48): A reply in the thread.
      > 2026-09-18 09:10 amara (broadcast): A later reply, also sent to the channel.
    11:50 yuki (deleted): What a tombstone stands for: its replies stay.
    12:00 hannah joined

`@key` names a person, `#key` a channel, `[label](page:key)`,
`[label](https://…)` and the others of `links.py` a link. A file of a later state may begin a block
with `-> 2026-09-17 11:45 jonas` to reply to an old message.
"""

from __future__ import annotations

import copy
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from company import Company, Person, digest, iso, moment, slack_id, uuid_of
from links import address

Json = dict[str, Any]

MESSAGE = re.compile(
    r"(?P<reply> *> )?(?:(?P<day>\d{4}-\d\d-\d\d) )?(?P<time>\d\d:\d\d) (?P<who>\w+)"
    r"(?: \((?P<flags>[^)]*)\))?(?:: (?P<text>.*)| (?P<event>joined|left))$"
)
REACTION = re.compile(r":(?P<name>[\w+-]+):(?P<people>(?: \w+)+)$")
TEAM = slack_id("T", "team")


@dataclass
class Message:
    """One message of a channel, as written in the story."""

    channel: str
    author: Person
    sent_at: datetime
    ts: str
    lines: list[str]
    flags: dict[str, str]
    event: str = ""
    thread_ts: str = ""
    reactions: list[tuple[str, list[str]]] = field(default_factory=list)
    files: list[list[str]] = field(default_factory=list)
    attachments: list[list[str]] = field(default_factory=list)

    @property
    def handle(self) -> str:
        """How the story refers to a message: day, time and author."""
        return f"{self.sent_at:%Y-%m-%d %H:%M} {self.author.key}"


class Channel:
    """The messages of one channel, in the order of their times."""

    def __init__(self, company: Company, key: str) -> None:
        self.company = company
        self.key = key
        self.identity = channel_id(key, company)
        self.messages: list[Message] = []
        self.seconds: dict[datetime, int] = defaultdict(int)

    def read(self, path: Path) -> None:
        """Add the messages of one file."""
        day, parent_ts = "", ""
        for line in path.read_text().splitlines():
            if not line.strip() or line.startswith("# "):
                continue
            if line.startswith("## "):
                day = line[3:13]
            elif line.startswith("-> "):
                parent_ts = self.find(line[3:]).ts
            elif found := MESSAGE.match(line):
                message = self.message(found, day)
                if found["reply"]:
                    message.thread_ts = parent_ts
                else:
                    parent_ts = message.ts
                self.messages.append(message)
            else:
                self.extend(self.messages[-1], line.strip())
        self.messages.sort(key=lambda message: message.ts)

    def message(self, found: re.Match[str], day: str) -> Message:
        """A message from its first line; seconds make times of one minute distinct."""
        sent_at = moment(f"{found['day'] or day}T{found['time']}")
        author = self.company.people[found["who"]]
        position = self.seconds[sent_at]
        self.seconds[sent_at] += 1
        fraction = int(digest("ts", self.key, str(sent_at), author.key, str(position)), 16)
        second = min(59, position * 9 + fraction % 9)
        ts = f"{int(sent_at.timestamp()) + second}.{fraction % 999_983:06d}"
        flags = dict(
            flag.partition(" ")[::2] for flag in (found["flags"] or "").split(", ") if flag
        )
        lines = [found["text"]] if found["text"] else []
        return Message(self.key, author, sent_at, ts, lines, flags, found["event"] or "")

    @staticmethod
    def extend(message: Message, line: str) -> None:
        """Add a further line of the story to a message."""
        if found := REACTION.match(line):
            message.reactions.append((found["name"], found["people"].split()))
        elif line.startswith("[file]"):
            message.files.append([part.strip() for part in line[6:].split("|")])
        elif line.startswith("[attachment"):
            color, _, rest = line[12:].partition("]")
            message.attachments.append([color, *(part.strip() for part in rest.split("|"))])
        elif line.startswith("|"):
            message.lines.append(line[1:].removeprefix(" "))
        else:
            message.lines[-1] += " " + line

    def find(self, handle: str) -> Message:
        """The one message sent by somebody in a minute."""
        found = [message for message in self.messages if message.handle == handle.strip()]
        if len(found) != 1:
            raise ValueError(f"#{self.key}: {len(found)} messages are {handle!r}")
        return found[0]


@dataclass
class SlackState:
    """The workspace at one moment: messages and members."""

    exported_at: datetime
    channels: dict[str, Channel]
    members: dict[str, list[str]]

    @classmethod
    def read(cls, company: Company, folder: Path, exported_at: datetime) -> SlackState:
        """The state that the story's channel files tell."""
        channels = {}
        for key in [*company.channels, *company.dms]:
            channels[key] = Channel(company, key)
            if (folder / f"{key}.txt").exists():
                channels[key].read(folder / f"{key}.txt")
        members = {key: list(channel["members"]) for key, channel in company.channels.items()}
        return cls(exported_at, channels, members | company.dms)

    def change(self, changes: Json, folder: Path, exported_at: datetime) -> SlackState:
        """The state after the section `slack` of a `changes/*.yaml` and new channel files."""
        channels = copy.deepcopy(self.channels)
        for edit in changes.get("edits", []):
            message = channels[edit["channel"]].find(edit["message"])
            message.lines = edit["text"].splitlines()
            message.flags = message.flags | {"edited": edit["at"]}
        for deleted in changes.get("deletions", []):
            channel = channels[deleted["channel"]]
            channel.messages.remove(channel.find(deleted["message"]))
        for path in sorted(folder.glob("*.txt")):
            channels[path.stem].read(path)
        removed = changes.get("members_removed", {})
        members = {
            key: [member for member in people if member not in removed.get(key, [])]
            for key, people in self.members.items()
        }
        return SlackState(exported_at, channels, members)


class SlackWriter:
    """Turns one state into the files of an export."""

    def __init__(self, company: Company, state: SlackState) -> None:
        self.company = company
        self.state = state
        self.public = [key for key, c in company.channels.items() if not c.get("private")]

    def files(self) -> dict[str, Any]:
        """Content of every file of the export by its path."""
        private = [key for key in self.company.channels if key not in self.public]
        files: dict[str, Any] = {
            "export.json": {"exported_at": iso(self.state.exported_at), "complete": True},
            "channels.json": [self.channel(key) for key in self.public],
            "groups.json": [self.channel(key) for key in private],
            "dms.json": [self.direct(key) for key in self.company.dms],
            "users.json": [self.user(person) for person in self.company.people.values()],
        }
        for key, channel in self.state.channels.items():
            folder = key if key in self.company.channels else channel_id(key, self.company)
            by_day: dict[str, list[Json]] = defaultdict(list)
            for message in channel.messages:
                by_day[f"{message.sent_at:%Y-%m-%d}"].append(self.message(message, channel))
            files |= {f"{folder}/{day}.json": messages for day, messages in by_day.items()}
        return files

    def channel(self, key: str) -> Json:
        """An entry of channels.json or groups.json."""
        about = self.company.channels[key]
        created = int(moment(about["created"]).timestamp())
        creator = self.company.people[about["creator"]].slack_user_id
        members = [self.company.people[member].slack_user_id for member in self.state.members[key]]
        entry = {
            "id": channel_id(key, self.company),
            "name": key,
            "created": created,
            "creator": creator,
            "is_archived": False,
            "members": members,
            "topic": {"value": about["topic"], "creator": creator, "last_set": created},
            "purpose": {"value": about["purpose"], "creator": creator, "last_set": created},
        }
        return entry if about.get("private") else entry | {"is_general": key == "general"}

    def direct(self, key: str) -> Json:
        """An entry of dms.json."""
        members = [self.company.people[member].slack_user_id for member in self.state.members[key]]
        created = int(moment("2024-02-01").timestamp())
        return {"id": channel_id(key, self.company), "created": created, "members": members}

    def user(self, person: Person) -> Json:
        """An entry of users.json."""
        profile: Json = {
            "title": person.title,
            "real_name": person.name,
            "real_name_normalized": person.name,
            "display_name": person.display,
            "display_name_normalized": person.display,
            "first_name": person.name.split()[0],
            "last_name": " ".join(person.name.split()[1:]),
            "team": TEAM,
        }
        if person.is_bot:
            profile |= {"bot_id": person.slack_bot_id, "api_app_id": slack_id("A", person.key)}
        else:
            profile["email"] = person.email(self.company.domain)
        return {
            "id": person.slack_user_id,
            "team_id": TEAM,
            "name": person.key,
            "deleted": False,
            "real_name": person.name,
            "tz": person.tz,
            "profile": profile,
            "is_admin": person.key in ("ines", "tomasz", "jonas"),
            "is_owner": person.key == "ines",
            "is_bot": person.is_bot,
            "is_app_user": False,
            "updated": int(moment("2026-09-01").timestamp()),
        }

    def message(self, message: Message, channel: Channel) -> Json:
        """A message as the export spells it."""
        entry = self.head(message)
        if message.event:
            return entry
        if "edited" in message.flags:
            edited_at = moment(full_time(message.flags["edited"], message.sent_at))
            edited = {"user": message.author.slack_user_id}
            entry["edited"] = edited | {"ts": f"{int(edited_at.timestamp())}.000000"}
        if message.reactions:
            entry["reactions"] = [
                {
                    "name": name,
                    "users": [self.company.people[person].slack_user_id for person in people],
                    "count": len(people),
                }
                for name, people in message.reactions
            ]
        if message.files:
            entry["files"] = [self.file(message, *parts) for parts in message.files]
            entry["upload"] = True
        if message.attachments:
            entry["attachments"] = [
                self.attachment(i, *parts) for i, parts in enumerate(message.attachments, start=1)
            ]
        return entry | self.thread(message, channel)

    def head(self, message: Message) -> Json:
        """Type, author and text, by the kind of author or event."""
        author, text = message.author, self.render("\n".join(message.lines))
        user = author.slack_user_id
        if message.event:
            kind = {"joined": "join", "left": "leave"}[message.event]
            where = "group" if self.company.channels[message.channel].get("private") else "channel"
            told = f"<@{user}> has {message.event} the channel"
            entry = {"type": "message", "subtype": f"{where}_{kind}"}
            return entry | {"ts": message.ts, "user": user, "text": told}
        if "deleted" in message.flags:
            entry = {"type": "message", "subtype": "tombstone", "text": "This message was deleted."}
            return entry | {"user": "USLACKBOT", "hidden": True, "ts": message.ts}
        if author.posts_as == "classic":
            entry = {"type": "message", "subtype": "bot_message", "text": text, "ts": message.ts}
            icons = {"emoji": author.emoji}
            return entry | {"username": author.name, "icons": icons, "bot_id": author.slack_bot_id}
        entry = {"type": "message", "text": text, "user": user, "ts": message.ts, "team": TEAM}
        if author.is_bot:
            profile = {
                "id": author.slack_bot_id,
                "app_id": slack_id("A", author.key),
                "name": author.name,
                "deleted": False,
                "team_id": TEAM,
            }
            return entry | {"bot_id": author.slack_bot_id, "bot_profile": profile}
        return {"client_msg_id": uuid_of("message", message.channel, message.ts)} | entry

    def thread(self, message: Message, channel: Channel) -> Json:
        """What ties a message to its thread, as parent or as reply."""
        if message.thread_ts:
            parent = next(m for m in channel.messages if m.ts == message.thread_ts)
            ties: Json = {"thread_ts": parent.ts}
            if parent.author.posts_as != "classic":
                ties["parent_user_id"] = parent.author.slack_user_id
            if "broadcast" in message.flags:
                root = self.head(parent) | {"thread_ts": parent.ts}
                ties |= {"subtype": "thread_broadcast", "root": root}
            return ties
        replies = [reply for reply in channel.messages if reply.thread_ts == message.ts]
        if not replies:
            return {}
        people = list(dict.fromkeys(reply.author.slack_user_id for reply in replies))
        return {
            "thread_ts": message.ts,
            "reply_count": len(replies),
            "reply_users_count": len(people),
            "latest_reply": replies[-1].ts,
            "reply_users": people,
            "replies": [{"user": r.author.slack_user_id, "ts": r.ts} for r in replies],
            "is_locked": False,
            "subscribed": False,
        }

    def file(self, message: Message, name: str, title: str, size: str) -> Json:
        """Metadata of an uploaded file; the file itself stays on Slack's servers."""
        identity = slack_id("F", message.channel, message.ts, name)
        extension = name.rpartition(".")[2]
        mimetypes = {"png": "image/png", "pdf": "application/pdf", "csv": "text/csv"}
        address = f"https://files.slack.com/files-pri/{TEAM}-{identity}/{name}"
        return {
            "id": identity,
            "created": int(message.sent_at.timestamp()),
            "name": name,
            "title": title,
            "mimetype": mimetypes.get(extension, "text/plain"),
            "filetype": extension,
            "user": message.author.slack_user_id,
            "size": int(size),
            "mode": "hosted",
            "is_external": False,
            "is_public": message.channel in self.public,
            "url_private": address,
        }

    def attachment(self, number: int, color: str, title: str, text: str, fields: str = "") -> Json:
        """A legacy attachment, as alerting tools send them."""
        pairs = [pair.partition("=")[::2] for pair in fields.split(";") if pair.strip()]
        return {
            "id": number,
            "color": {"danger": "a30200", "good": "2eb886", "warning": "daa038"}[color],
            "fallback": f"{title}: {text}",
            "title": title,
            "text": self.render(text),
            "fields": [
                {"title": title.strip(), "value": value.strip(), "short": True}
                for title, value in pairs
            ],
        }

    def render(self, text: str) -> str:
        """Slack's own notation: escaped text, then links, people and channels."""
        escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
        return "".join(self.render_runs(escaped))

    def render_runs(self, text: str) -> Iterator[str]:
        """Render prose and leave code as it is."""
        for i, run in enumerate(re.split(r"(```.*?```|`[^`\n]+`)", text, flags=re.DOTALL)):
            yield run if i % 2 else self.render_prose(run)

    def render_prose(self, text: str) -> str:
        """Links, mentions of people, mentions of channels."""

        def link(found: re.Match[str]) -> str:
            label, target = found.groups()
            url = address(target)
            return f"<{url}|{label}>" if label != "_" else f"<{url}>"

        def person(found: re.Match[str]) -> str:
            return f"<@{self.company.people[found[1]].slack_user_id}>"

        def channel(found: re.Match[str]) -> str:
            return f"<#{channel_id(found[1], self.company)}|{found[1]}>"

        text = re.sub(
            r"\[([^\]]+)\]\(((?:page:|doc:|issue:|report:|https://)[^)\s]+)\)", link, text
        )
        text = re.sub(r"@(here|channel)\b", r"<!\1>", text)
        text = re.sub(rf"@({'|'.join(self.company.people)})\b", person, text)
        return re.sub(rf"(?<!\w)#({'|'.join(self.company.channels)})\b", channel, text)


def channel_id(key: str, company: Company) -> str:
    """Id of a channel, a private channel or a direct conversation."""
    if key in company.dms:
        return slack_id("D", key)
    return slack_id("C", key)


def full_time(text: str, day: datetime) -> str:
    """A time of day on the given day, or a full time as it is."""
    return text if len(text) > 5 else f"{day:%Y-%m-%d}T{text}"
