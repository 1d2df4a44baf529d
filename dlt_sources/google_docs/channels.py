"""Channels on which Drive tells an address that something has changed; it does not tell what.

A channel ends after a while, and cannot be prolonged: another takes its place before. Both notify
for some time, which does no harm. There is one for each log of changes.
Format: https://developers.google.com/workspace/drive/api/guides/push
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from dlt_sources.api import ApiError
from dlt_sources.google_docs.client import Google
from dlt_sources.live import Batch, Run

Json = Any

# Cursors: the channel of each log, by the id of its shared drive.
CHANNEL = "channel:"
# The longest that Drive grants for changes; it may grant less.
LIFETIME = timedelta(days=7)
RENEWED_BEFORE = timedelta(hours=6)


def keep_channels(
    run: Run, google: Google, tokens: Mapping[str, str], address: str, secret: str
) -> Iterator[Batch]:
    """Make the channels that are missing, or that end soon or lead elsewhere.

    An address that Google does not take is said, and fails nothing: runs find the changes, too.

    Args:
        run: knows the channels that there are.
        google: is asked.
        tokens: where the log of each shared drive, and under no name the account's, goes on.
        address: HTTPS, where `loreline serve` can be reached.
        secret: told with each notification.
    """
    known = run.cursors.named(CHANNEL)
    soon = datetime.now(UTC) + RENEWED_BEFORE
    for drive, token in tokens.items():
        channel = known.get(drive)
        if channel and channel["address"] == address and _time(channel["expires_at"]) > soon:
            continue
        try:
            made = _made(google, drive, token, address, secret)
        except ApiError as error:
            run.progress(f"no notifications come from Google Drive: {error}")
            return
        yield Batch(cursors={CHANNEL + drive: made})
    if gone := known.keys() - tokens.keys():
        yield Batch(cursors=dict.fromkeys((CHANNEL + drive for drive in gone), None))


def _made(google: Google, drive: str, token: str, address: str, secret: str) -> dict[str, str]:
    wanted = datetime.now(UTC) + LIFETIME
    channel = {
        "id": str(uuid.uuid4()),
        "type": "web_hook",
        "address": address,
        "token": secret,
        "expiration": str(int(wanted.timestamp() * 1000)),
    }
    answer = google.watch(token, drive, channel)
    told = answer.get("expiration") if isinstance(answer, dict) else None
    granted = int(told) / 1000 if isinstance(told, str) and told.isdecimal() else 0.0
    ends = datetime.fromtimestamp(min(granted, wanted.timestamp()), UTC) if granted else wanted
    return {"id": channel["id"], "address": address, "expires_at": ends.isoformat()}


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
