"""What one run knows of a workspace: what earlier runs have read, and what this one may read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from dlt_sources.json_files import Record
from dlt_sources.landed_versions import registered
from dlt_sources.live import Run
from dlt_sources.quarantine import Reject
from dlt_sources.slack.client import Page, SlackApi
from dlt_sources.slack.coverage import Coverage
from dlt_sources.slack.observations import kind_of, message_seen, moment_of
from dlt_sources.slack.settings import CHANNELS, MESSAGES, USERS
from dlt_sources.slack.threads import Threads
from dlt_sources.slices import Observation
from dlt_sources.versions import Resource

Json = Any
Seen = tuple[Resource, Observation | Reject]

_CHANNEL_ID = re.compile(r"[A-Z][A-Z0-9]{1,30}")
# Authors and mentions, as a model finds them in a landed message.
_USER_ID = re.compile(rb'(?:<@|"user_id":"|"user":")([UW][A-Z0-9]{2,30})\b')


@dataclass
class Progress:
    """How far a channel was read; its cursor.

    Attributes:
        kind: public, private or dm.
        newest: `ts` of the newest message that history has shown.
        walk: `ts` down to which the walk that goes on was done; None where none goes on.
        walk_began: which walk that is.
        swept: the last walk that came to the beginning of the channel.
        is_archived: whether it was read since it was archived: nobody writes in it any more.
        is_lost: whether it is gone, or the bot was taken out.
    """

    kind: str = ""
    newest: str | None = None
    walk: str | None = None
    walk_began: str | None = None
    swept: str | None = None
    is_archived: bool = False
    is_lost: bool = False

    def sees(self, ts: str, now: float) -> None:
        """Note a message; one from the future would hide what comes before it."""
        if float(ts) <= now + 1 and (self.newest is None or Decimal(ts) > Decimal(self.newest)):
            self.newest = ts


@dataclass(frozen=True)
class Conversation:
    """A channel as the list shows it.

    Attributes:
        id: of the channel.
        kind: public, private or dm.
        record: what the list says.
        observed_at: when.
        is_readable: whether the bot is in it.
        is_archived: whether it is archived.
    """

    id: str
    kind: str
    record: Record
    observed_at: datetime
    is_readable: bool
    is_archived: bool

    @classmethod
    def of(cls, record: Record | Reject, observed_at: datetime) -> Conversation | Reject:
        """What a channel object says."""
        if isinstance(record, Reject):
            return record
        value = record.value
        identity = value.get("id") if isinstance(value, dict) else None
        if not isinstance(identity, str) or not _CHANNEL_ID.fullmatch(identity):
            return record.reject("missing_id", "it has no id", resource=CHANNELS.name)
        kind = kind_of(value)
        is_readable = kind == "dm" or value.get("is_member") is True
        is_archived = value.get("is_archived") is True
        return cls(identity, kind, record, observed_at, is_readable, is_archived)

    @property
    def has_members(self) -> bool:
        """Whether its members are to be asked for: nobody joins a conversation of two."""
        return (
            self.is_readable
            and self.kind != "public"
            and self.record.value.get("is_im") is not True
        )


class Workspace:
    """The state of one run.

    Args:
        run: what lands it.
        api: Slack.

    Attributes:
        progress: of each channel that was ever read.
        readable: the channels that the bot is in.
        refused: those that it turned out not to be in.
        coverage: what was shown, and what therefore is gone.
        people: ids of users in messages.
    """

    def __init__(self, run: Run, api: SlackApi) -> None:
        self.run = run
        self.api = api
        self.progress = {
            channel: Progress(**saved) for channel, saved in run.cursors.named("history:").items()
        }
        self.readable: dict[str, Conversation] = {}
        self.refused: set[str] = set()
        self.coverage = Coverage(run.landing)
        self.people: set[str] = set()
        self._threads: dict[str, Threads] = {}

    def threads(self, channel: str) -> Threads:
        """The open threads of a channel."""
        if channel not in self._threads:
            self._threads[channel] = Threads(self.run.cursors.get(f"threads:{channel}"))
        return self._threads[channel]

    def begun(self, conversations: Iterable[Conversation]) -> dict[str, Json]:
        """The cursors of channels that are there for the first time, or again."""
        cursors = {}
        for found in conversations:
            progress = self.progress.get(found.id)
            if progress is None or progress.is_lost:
                self.progress[found.id] = Progress(found.kind)
                cursors[f"history:{found.id}"] = asdict(self.progress[found.id])
            else:
                progress.kind = found.kind
        return cursors

    def refuse(self, channel: str) -> None:
        """A channel that cannot be read says nothing; the next list tells whether it is lost."""
        if channel not in self.refused:
            self.refused.add(channel)
            self.run.landing.summary.passed_over["channels"] += 1
        self.coverage.forget(channel)

    def messages(self, channel: str, page: Page) -> list[Seen]:
        """What a page shows of a channel's messages, which the coverage is told."""
        found: list[Seen] = []
        shown: list[str] = []
        for record in page.records:
            found.append((MESSAGES, message_seen(record, page.observed_at, channel)))
            if ts := ts_of(record):
                shown.append(f"{channel}:{ts}")
            if isinstance(record, Record) and record.raw:
                self.people.update(match.decode() for match in _USER_ID.findall(record.raw))
        self.coverage.show(shown)
        return found

    def now(self) -> float:
        """Unix time by Slack's clock, which `ts` go by."""
        return (self.api.server_time or datetime.now(UTC)).timestamp()

    def landed(self, resource: Resource, ids: Collection[str]) -> set[str]:
        """Which of these are landed, and not as deleted."""
        if not ids:
            return set()
        landing = self.run.landing
        with registered(landing.duckdb, "asked", id=list(ids)):
            rows = landing.duckdb.execute(
                f"""
                select external_id
                from ({landing.latest(resource)}) as latest
                where not is_deleted and external_id in (select id from asked)
                """  # noqa: S608 - here and below, the names are our own
            ).fetchall()
        return {row[0] for row in rows}

    def landed_roots(self, ids: Iterable[str]) -> dict[str, str]:
        """The threads of those messages that are landed replies, deleted or not."""
        landing = self.run.landing
        wanted = list(ids)
        if not wanted:
            return {}
        with registered(landing.duckdb, "asked", id=wanted):
            rows = landing.duckdb.execute(
                f"""
                select external_id, json_extract_string(payload, '$.thread_ts') as root
                from ({landing.latest(MESSAGES)}) as latest
                where external_id in (select id from asked)
                    and root <> split_part(external_id, ':', 2)
                """  # noqa: S608
            ).fetchall()
        return dict(rows)

    def count_messages(self) -> int:
        """Landed messages of the channels that the bot is in."""
        row = self.run.landing.duckdb.execute(
            f"""
            select count(*)
            from ({self.run.landing.latest(MESSAGES)}) as latest
            where not is_deleted and list_contains($ids, split_part(external_id, ':', 1))
            """,  # noqa: S608
            {"ids": list(self.readable)},
        ).fetchone()
        return row[0] if row else 0

    def count_threads(self) -> int:
        """Landed threads of the channels that the bot is in."""
        row = self.run.landing.duckdb.execute(
            f"""
            select count(distinct (
                split_part(external_id, ':', 1), json_extract_string(payload, '$.thread_ts')
            ))
            from ({self.run.landing.latest(MESSAGES)}) as latest
            where not is_deleted
                and list_contains($ids, split_part(external_id, ':', 1))
                and json_extract_string(payload, '$.thread_ts') is not null
            """,  # noqa: S608
            {"ids": list(self.readable)},
        ).fetchone()
        return row[0] if row else 0

    def count_users(self) -> int:
        """Landed users."""
        row = self.run.landing.duckdb.execute(
            f"select count(*) from ({self.run.landing.latest(USERS)})"  # noqa: S608
        ).fetchone()
        return row[0] if row else 0


def tombstone(resource: Resource, identity: str) -> Seen:
    """That an object is gone."""
    return resource, Observation(identity, None, datetime.now(UTC), is_deleted=True)


def ts_of(record: Record | Reject) -> str | None:
    """The `ts` of a message; None where it has none."""
    value = record.value if isinstance(record, Record) else None
    ts = value.get("ts") if isinstance(value, dict) else None
    return ts if isinstance(ts, str) and moment_of(ts) else None


def parent_of(record: Record | Reject) -> tuple[str, int] | None:
    """The last reply to a message and how many there are; None where it begins no thread."""
    value = record.value if isinstance(record, Record) else None
    if not isinstance(value, dict) or value.get("thread_ts") not in (None, value.get("ts")):
        return None
    replies, latest = value.get("reply_count"), value.get("latest_reply")
    count = replies if isinstance(replies, int) else 0
    if count < 1 and not value.get("thread_ts"):
        return None
    return (latest if isinstance(latest, str) and moment_of(latest) else value["ts"]), count
