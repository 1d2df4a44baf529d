"""Comparing what a source lists with what is landed of it: what is new, what has changed, what is
gone.

Lists give ids and times, a hundred objects in one answer; what they show is kept in DuckDB, which
spills to disk, so that memory does not grow with the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from dlt_sources.landed_versions import registered
from dlt_sources.landing import Landing
from dlt_sources.versions import Resource
from loreline.errors import LorelineError

# Fewer absent objects than this are never too many.
MIN_SUSPICIOUS_DELETIONS = 10
IDS_PER_FETCH = 2_000


@dataclass(frozen=True)
class Rails:
    """How much a sweep may delete.

    Attributes:
        max_share: of the landed objects that it covers, 0 to 1.
        least: fewer than this are never too many.
    """

    max_share: float
    least: int = MIN_SUSPICIOUS_DELETIONS

    def check(self, source: str, what: str, absent: int, covered: int) -> None:
        """Refuse to delete too much.

        Raises:
            LorelineError: more is absent than that; nothing is to be deleted.
        """
        if absent >= self.least and absent > self.max_share * covered:
            raise LorelineError(
                f"{absent:,} of {covered:,} {source} {what} are gone, more than"
                f" {self.max_share:.0%}: none was deleted",
                f"see whether {source} still shares them with Loreline; if they are gone indeed,"
                f" loreline ingest {source} --sweep --allow-deletes",
            )


class Sweep:
    """One complete list of the objects of a table.

    Args:
        landing: the load.
        resource: the table.

    Attributes:
        shown: the table in DuckDB that holds what was shown, by `external_id`.
    """

    def __init__(self, landing: Landing, resource: Resource) -> None:
        self._landing = landing
        self._resource = resource
        self.shown = f'memory.main."shown of {resource.name}"'
        landing.duckdb.execute(
            f"create or replace table {self.shown}"
            " (external_id varchar, updated_at timestamp, is_deleted boolean)"
        )

    def show(
        self, objects: Iterable[tuple[str, datetime | None]], *, are_deleted: bool = False
    ) -> None:
        """Note ids that a list shows, each with the time of its last change where it tells it.

        Args:
            objects: ids and times.
            are_deleted: whether they are shown as what is deleted, such as in a bin.
        """
        rows = [
            (identity, moment and moment.astimezone(UTC).replace(tzinfo=None))
            for identity, moment in objects
        ]
        if not rows:
            return
        ids, times = zip(*rows, strict=True)
        with registered(self._landing.duckdb, "listed", id=list(ids), updated_at=list(times)):
            self._landing.duckdb.execute(
                f"insert into {self.shown}"  # noqa: S608 - here and below, the names are our own
                " select id, cast(updated_at as timestamp), $are_deleted from listed",
                {"are_deleted": are_deleted},
            )

    def changed(self) -> Iterator[str]:
        """Ids that were shown, and are not landed, or otherwise: of another time, deleted or not.

        They are those of the moment of the call; more may be shown while they are read.
        """
        yield from self._ids(
            f"""
            select shown.external_id
            from (
                select
                    external_id,
                    max(updated_at) as updated_at,
                    bool_and(is_deleted) as is_deleted
                from {self.shown}
                group by external_id
            ) as shown
            left join ({self._landing.latest(self._resource)}) as latest
                on shown.external_id = latest.external_id
            where shown.is_deleted is distinct from latest.is_deleted
                or shown.updated_at is distinct from latest.source_updated_at
            order by shown.updated_at desc nulls last, shown.external_id
            """  # noqa: S608
        )

    def unchanged(self) -> Iterator[str]:
        """Ids that were shown, and are landed as of that time."""
        yield from self._ids(
            f"""
            select shown.external_id
            from (
                select external_id, max(updated_at) as updated_at
                from {self.shown}
                group by external_id
            ) as shown
            inner join ({self._landing.latest(self._resource)}) as latest
                on shown.external_id = latest.external_id
            where not latest.is_deleted
                and shown.updated_at is not distinct from latest.source_updated_at
            order by shown.external_id
            """  # noqa: S608
        )

    def unknown(self, ids: Iterable[str]) -> list[str]:
        """Which of some ids were not shown, and are not landed or landed as deleted."""
        connection = self._landing.duckdb
        with registered(connection, "met", external_id=pa.array(ids, pa.string())):
            rows = connection.execute(
                f"""
                select distinct external_id
                from met
                where external_id not in (select shown.external_id from {self.shown} as shown)
                """  # noqa: S608
            ).fetchall()
        if not rows:
            return []
        with registered(connection, "met", external_id=[row[0] for row in rows]):
            rows = connection.execute(
                f"""
                select met.external_id
                from met
                left join (
                    select external_id, is_deleted
                    from ({self._landing.latest(self._resource)}) as latest
                    where external_id in (select met.external_id from met)
                ) as latest
                    on met.external_id = latest.external_id
                where coalesce(latest.is_deleted, true)
                order by met.external_id
                """  # noqa: S608
            ).fetchall()
        return [row[0] for row in rows]

    def absent(self, covered: str = "true") -> Iterator[str]:
        """Ids that are landed, not as deleted, and were not shown.

        Args:
            covered: SQL condition on `external_id` and `payload`: what the list would show.
        """
        yield from self._ids(self._absent(covered))

    def count_absent(self, covered: str = "true") -> tuple[int, int]:
        """How many those are, and how many landed objects the list covers."""
        found = self._landing.duckdb.execute(
            f"""
            select
                (select count(*) from ({self._absent(covered)})),
                (
                    select count(*)
                    from ({self._landing.latest(self._resource)}) as latest
                    where not is_deleted and ({covered})
                )
            """  # noqa: S608
        ).fetchone()
        assert found is not None
        return found[0], found[1]

    def _absent(self, covered: str) -> str:
        return f"""
            select external_id
            from ({self._landing.latest(self._resource)}) as latest
            where not is_deleted
                and ({covered})
                and external_id not in (select shown.external_id from {self.shown} as shown)
            order by external_id
        """  # noqa: S608

    def _ids(self, query: str) -> Iterator[str]:
        # A cursor of its own: the connection goes on to be used while ids are read.
        with self._landing.duckdb.cursor() as cursor:
            cursor.execute(query)
            while rows := cursor.fetchmany(IDS_PER_FETCH):
                yield from (row[0] for row in rows)
