"""Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime

from loreline.errors import LorelineError


def instant(text: str, option: str) -> datetime:
    """The instant that an ISO date or time names; UTC unless it says otherwise.

    Raises:
        LorelineError: it is neither; `option` is named.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise LorelineError(
            f"{option} {text!r} is no time",
            "write it as 2026-10-16, 2026-10-16T18:00 or 2026-10-16T18:00:00+02:00",
            exit_code=2,
        ) from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
