"""The company of the story: its people, and ids that depend on nothing but names."""

from __future__ import annotations

import hashlib
import string
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import yaml

ALPHABET = string.digits + string.ascii_uppercase


def digest(*names: str) -> str:
    """SHA-256 of the names, in hex: the only source of ids and of small variations."""
    return hashlib.sha256("\x1f".join(names).encode()).hexdigest()


def uuid_of(*names: str) -> str:
    """A UUID-shaped id, as Notion uses."""
    h = digest(*names)
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:32]}"


def slack_id(prefix: str, *names: str) -> str:
    """A Slack id: a letter for the kind and ten characters of base 36."""
    number = int(digest("slack", prefix, *names), 16)
    letters = []
    for _ in range(9):
        number, remainder = divmod(number, 36)
        letters.append(ALPHABET[remainder])
    return prefix + "0" + "".join(letters)


def moment(value: str | date | datetime) -> datetime:
    """A story time (`2026-09-17T11:42`, or what YAML made of it) in UTC."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, 9)
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def iso(when: datetime, digits: str = "milliseconds") -> str:
    """ISO 8601 in UTC with a `Z`, as the APIs print it."""
    return when.isoformat(timespec=digits).replace("+00:00", "Z")


@dataclass(frozen=True)
class Person:
    """A member of the company, or one of its bots."""

    key: str
    name: str
    title: str
    display: str = ""
    tz: str = "Europe/London"
    is_bot: bool = False
    posts_as: str = ""
    emoji: str = ""

    @property
    def notion_id(self) -> str:
        """Id of the Notion user."""
        return uuid_of("notion user", self.key)

    @property
    def slack_user_id(self) -> str:
        """Id of the Slack user."""
        return slack_id("U", self.key)

    @property
    def slack_bot_id(self) -> str:
        """Id of the Slack bot."""
        return slack_id("B", self.key)

    def email(self, domain: str) -> str:
        """Work address: the account that joins a person's names across sources."""
        return f"{self.key}@{domain}"


@dataclass(frozen=True)
class Company:
    """What `story/company.yaml` says."""

    name: str
    domain: str
    people: dict[str, Person]
    channels: dict[str, dict[str, Any]]
    dms: dict[str, list[str]]

    @classmethod
    def read(cls, story: Path) -> Company:
        """Read the company from the story folder."""
        raw = yaml.safe_load((story / "company.yaml").read_text())
        people = {key: Person(key=key, **fields) for key, fields in raw["people"].items()}
        bots = {
            key: Person(key=key, is_bot=True, display=key, **fields)
            for key, fields in raw["bots"].items()
        }
        return cls(raw["company"], raw["domain"], people | bots, raw["channels"], raw["dms"])

    @property
    def humans(self) -> list[Person]:
        """The people, without the bots."""
        return [person for person in self.people.values() if not person.is_bot]
