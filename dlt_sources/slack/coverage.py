"""What a run has been shown, and which landed messages it should have been shown and was not.

It is kept in DuckDB, which spills to disk, and compared a part at a time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from dlt_sources.landed_versions import registered
from dlt_sources.landing import Landing
from dlt_sources.slack.settings import MESSAGES

Columns = Sequence[Sequence[str | None]]

# `ts` has at most 11 digits and 9 decimals; a float would not tell two messages apart.
MOMENT = "decimal(20, 9)"
MANY = 20_000
_TABLES = {
    "shown": ("external_id",),
    "ranges": ("channel", "low", "high"),
    "threads": ("channel", "root"),
    "unread": ("channel", "root"),
}


class Coverage:
    """What lists of a channel's messages have shown since it was last asked what is gone.

    A message belongs to the moment of its thread's first message: a range of history that was read
    with its threads covers their replies, whenever they were written.
    """

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._rows: dict[str, list[tuple[str | None, ...]]] = defaultdict(list)

    def show(self, external_ids: Iterable[str]) -> None:
        """These messages are there."""
        self._rows["shown"].extend((external_id,) for external_id in external_ids)

    def read(self, channel: str, low: str, high: str | None) -> None:
        """History was read to its end between two moments, the later one not included."""
        self._rows["ranges"].append((channel, low, high))

    def read_thread(self, channel: str, root: str) -> None:
        """A thread was read to its end."""
        self._rows["threads"].append((channel, root))

    def leave_out(self, channel: str, root: str) -> None:
        """A thread within what was read was not read."""
        self._rows["unread"].append((channel, root))

    def forget(self, channel: str) -> None:
        """Conclude nothing about a channel."""
        for table in ("ranges", "threads"):
            self._rows[table] = [row for row in self._rows[table] if row[0] != channel]

    @property
    def is_large(self) -> bool:
        """Whether to ask for what is gone before more is read."""
        return len(self._rows["shown"]) >= MANY

    def gone(self) -> dict[str, list[str]]:
        """Ids of messages that are landed, not as deleted, and are not there, by channel.

        Afterwards it knows nothing.
        """
        channels = sorted({row[0] or "" for t in ("ranges", "threads") for row in self._rows[t]})
        if not channels:
            self._rows.clear()
            return {}
        connection = self._landing.duckdb
        for table, columns in _TABLES.items():
            rows = self._rows[table]
            values = list(zip(*rows, strict=True)) or [()] * len(columns)
            with registered(
                connection,
                "given",
                **{name: _texts(column) for name, column in zip(columns, values, strict=True)},
            ):
                connection.execute(
                    f"create or replace table memory.main.slack_{table} as select * from given"  # noqa: S608 - here and below, the names are our own
                )
        self._rows.clear()
        return self._absent(channels)

    def _absent(self, channels: Sequence[str]) -> dict[str, list[str]]:
        connection, latest = self._landing.duckdb, self._landing.latest(MESSAGES)
        channel, sent = "split_part(external_id, ':', 1)", "split_part(external_id, ':', 2)"
        connection.execute(
            f"""
            create or replace table memory.main.slack_candidates as
            select external_id
            from ({latest}) as latest
            where not is_deleted
                and list_contains($channels, {channel})
                and try_cast({sent} as {MOMENT}) >= (
                    select min(cast(low as {MOMENT}))
                    from (
                        select low from memory.main.slack_ranges
                        union all
                        select root as low from memory.main.slack_threads
                    )
                )
                and external_id not in (select shown.external_id from memory.main.slack_shown shown)
            """,  # noqa: S608
            {"channels": list(channels)},
        )
        if connection.execute("select count(*) from memory.main.slack_candidates").fetchone() == (
            0,
        ):
            return {}
        rows = connection.execute(
            f"""
            with candidate as (
                select
                    external_id,
                    {channel} as channel,
                    {sent} as sent,
                    coalesce(json_extract_string(payload, '$.thread_ts'), {sent}) as root,
                    json_extract_string(payload, '$.subtype') = 'thread_broadcast' as is_broadcast
                from ({latest}) as latest
                where external_id in (
                        select each.external_id from memory.main.slack_candidates as each
                    )
                    and payload is not null
            )

            select external_id, channel
            from candidate
            where exists (
                    select 1
                    from memory.main.slack_ranges as ranges
                    where ranges.channel = candidate.channel
                        and (
                            (
                                {_within("candidate.root")}
                                and not exists (
                                    select 1
                                    from memory.main.slack_unread as unread
                                    where unread.channel = candidate.channel
                                        and unread.root = candidate.root
                                )
                            )
                            or (
                                {_within("candidate.sent")}
                                and (candidate.root = candidate.sent or candidate.is_broadcast)
                            )
                        )
                )
                or exists (
                    select 1
                    from memory.main.slack_threads as threads
                    where threads.channel = candidate.channel and threads.root = candidate.root
                )
            order by external_id
            """  # noqa: S608
        ).fetchall()
        found = defaultdict(list)
        for external_id, of_channel in rows:
            found[of_channel].append(external_id)
        return dict(found)


def _within(moment: str) -> str:
    return (
        f"try_cast({moment} as {MOMENT}) >= cast(ranges.low as {MOMENT})"
        f" and (ranges.high is null or try_cast({moment} as {MOMENT})"
        f" < cast(ranges.high as {MOMENT}))"
    )


def _texts(values: Sequence[str | None]) -> object:
    import pyarrow as pa

    return pa.array(values, pa.string())
