"""Values as gateways write them: times in seconds or in words, JSON inside of texts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

Json = Any


def text(value: Json) -> str | None:
    """A text that says something; a number is one, too."""
    if isinstance(value, str):
        return value or None
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return None


def number(value: Json) -> int | float | None:
    """A number that is one; a text may hold it."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None


def flag(value: Json) -> bool | None:
    """Yes or no, where a text may say so; None where it is said neither way."""
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def instant(value: Json) -> datetime | None:
    """A time in seconds of Unix time, or in ISO 8601; without a zone it is UTC."""
    try:
        if isinstance(value, str) and not _is_number(value):
            moment = datetime.fromisoformat(value)
            return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
        seconds = number(value)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def milliseconds(start: datetime | None, end: datetime | None) -> int | None:
    """From one time to another; None where they are not both known, in that order."""
    if start is None or end is None or end < start:
        return None
    return round((end - start).total_seconds() * 1000)


def mapping(value: Json) -> dict[str, Json]:
    """An object, which may be written as a text; empty where it is none."""
    value = embedded(value)
    return value if isinstance(value, dict) else {}


def embedded(value: Json) -> Json:
    """The object or list that a text holds; any other value as it is.

    What would not be allowed in by itself, such as a NUL, stays a text.
    """
    if not isinstance(value, str) or value[:1] not in ("{", "["):
        return value
    try:
        held = orjson.loads(value)
        written = orjson.dumps(held)
    except (orjson.JSONDecodeError, TypeError):
        return value
    return value if b"\\u0000" in written else held


def without_nothing(value: Mapping[str, Json]) -> dict[str, Json]:
    """An object without the fields that say nothing."""
    return {k: v for k, v in value.items() if v is not None and v not in ("", [], {})}


def _is_number(value: str) -> bool:
    return value.replace(".", "", 1).isdigit()
