"""A Slack workspace from its export."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dlt
import pyarrow as pa
from dlt.extract import DltResource

from dlt_sources.landing import Landing, raw_resource
from dlt_sources.slack.archive import Export
from dlt_sources.slack.messages import Conversations
from dlt_sources.slack.settings import (
    CHANNELS,
    MAX_DELETED_SHARE,
    MESSAGES,
    MIN_SUSPICIOUS_DELETIONS,
    USERS,
)

_CHANNEL = "split_part(external_id, ':', 1)"
_DAY = "cast(to_timestamp(cast(split_part(external_id, ':', 2) as double)) as date)"


@dlt.source(name="slack")
def slack(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
    max_deleted_share: float = MAX_DELETED_SHARE,
) -> list[DltResource]:
    """Channels, users and messages.

    The export speaks for every channel of which it has a day file, from its first day to its last:
    a message that was landed before and is not there was deleted.

    Args:
        location: the ZIP that Slack made, or the folder that it was unpacked to.
        observed_at: when the export was made, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
        max_deleted_share: a larger share of absent messages, 0 to 1, is taken for a broken export.
    """
    export = Export(Path(location))
    found = Conversations(export, observed_at or export.observed_at())
    landing = landing or Landing.begin("slack")
    landing.quarantine.observed_at = found.observed_at
    landing.told_complete = None if export.is_complete() else False
    return [
        raw_resource(landing.rows(CHANNELS, found.channels()), CHANNELS.name),
        raw_resource(landing.rows(USERS, found.users()), USERS.name),
        raw_resource(_messages(landing, found, max_deleted_share), MESSAGES.name),
    ]


def _messages(
    landing: Landing, found: Conversations, max_deleted_share: float
) -> Iterator[pa.Table]:
    yield from landing.rows(MESSAGES, found.messages())
    if not found.export.is_complete() or not found.days:
        return
    first, last = min(found.days), max(found.days)
    unreadable = set(found.unreadable)
    if not found.days_are_utc:
        # Slack does not say by whose midnight it cuts its files: leave out what may lie beyond.
        day = timedelta(days=1)
        first, last = first + day, last - day
        unreadable |= {(c, d + shift) for c, d in found.unreadable for shift in (-day, day)}
    landing.duckdb.register("covered_channels", pa.table({"id": sorted(found.channels_read)}))
    days = {"id": [c for c, _ in unreadable], "day": [d for _, d in unreadable]}
    schema = pa.schema({"id": pa.string(), "day": pa.date32()})
    landing.duckdb.register("unreadable_days", pa.table(days, schema=schema))
    covered = f"""
        {_CHANNEL} in (select id from covered_channels)
        and {_DAY} between date '{first}' and date '{last}'
        and ({_CHANNEL}, {_DAY}) not in (select id, day from unreadable_days)
    """  # noqa: S608 - the names and days in it are our own
    yield from landing.tombstones(
        MESSAGES,
        covered,
        found.observed_at,
        max_deleted_share,
        MIN_SUSPICIOUS_DELETIONS,
    )
