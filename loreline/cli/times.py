"""Times and spans of time, as a person reads them."""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = (("day", 86_400), ("h", 3_600), ("min", 60))


def span(seconds: float) -> str:
    """`3 days`, `5 h`, `12 min` or `40 s`, of the largest unit that fits."""
    for unit, length in _UNITS:
        if seconds >= length:
            count = int(seconds // length)
            return f"{count:,} {unit}{'s' if unit == 'day' and count > 1 else ''}"
    return f"{max(0, int(seconds))} s"


def minute(moment: datetime | None) -> str | None:
    """`2026-11-22 14:51`, in UTC."""
    return moment and f"{moment.astimezone(UTC):%Y-%m-%d %H:%M}"
