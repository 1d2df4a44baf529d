"""When known objects were last seen to be as they are.

An unchanged object lands no row, so its latest row tells when that version was seen first, not when
last. An export made between the two and landed afterwards would then outrank what was seen later.
Sightings are kept beside the lake, as small files of ids in the landing bucket, and read only when
something older than the newest of them arrives.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from pathlib import Path

import duckdb

from dlt_sources.landed_versions import registered
from dlt_sources.objects import ObjectStore

# Files are merged into one when there are as many.
MAX_FILES = 8


class Sightings:
    """The sightings of one raw table.

    Args:
        connection: DuckDB, used by this load alone.
        objects: the landing bucket.
        table: the raw table, namespace included.
        folder: where to put files on their way.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, objects: ObjectStore, table: str, folder: Path
    ) -> None:
        self.connection = connection
        self.objects = objects
        self.location = f"sightings/{table}"
        self.folder = folder
        self.local = f'memory.main."sightings of {table}"'
        self.files = objects.list(self.location)
        # The time of the newest sighting, in microseconds of Unix time.
        self.newest = max((_time(name) for name in self.files), default=0)
        self._is_read = False
        connection.execute(
            f"create or replace table {self.local} (external_id varchar, seen_at bigint)"
        )

    def last_seen(self, external_ids: Sequence[str], observed: Sequence[int]) -> dict[str, int]:
        """When those objects were last seen of which something older may have arrived.

        Args:
            external_ids: the objects.
            observed: when they were observed now, in microseconds.
        """
        if min(observed) >= self.newest:
            return {}
        with registered(self.connection, "wanted", external_id=external_ids):
            rows = self.connection.execute(
                f"""
                select external_id, max(seen_at)
                from ({self._all()})
                where external_id in (select external_id from wanted)
                group by external_id
                """  # noqa: S608 - the names in it are our own
            )
            return dict(rows.fetchall())

    def add(self, external_ids: Sequence[str], seen_at: Sequence[int]) -> None:
        """Note objects that were seen unchanged, and when."""
        with registered(self.connection, "sighted", external_id=external_ids, seen_at=seen_at):
            self.connection.execute(f"insert into {self.local} select * from sighted")  # noqa: S608
        self.newest = max(self.newest, *seen_at)

    def catch_up(self) -> None:
        """Know what others have noted."""
        self.files = self.objects.list(self.location)
        self.newest = max([self.newest, *map(_time, self.files)])
        self._is_read = False

    def save(self) -> None:
        """Keep what was noted, once the rows that it speaks of are committed."""
        row = self.connection.execute(f"select count(*) from {self.local}").fetchone()  # noqa: S608
        if row == (0,):
            return
        is_merged = len(self.files) >= MAX_FILES
        path = self.folder / f"{self.newest}-{uuid.uuid4()}.parquet"
        self.connection.execute(
            f"""
            copy (
                select external_id, max(seen_at) as seen_at
                from ({self._all() if is_merged else self._noted()})
                group by external_id
                order by external_id
            ) to '{_quoted(path)}' (format parquet, compression zstd)
            """  # noqa: S608
        )
        self.objects.put_file(path, f"{self.location}/{path.name}")
        if is_merged:
            self.objects.remove(self.files)

    def _noted(self) -> str:
        """SQL for the sightings of this load."""
        return f"select external_id, seen_at from {self.local}"  # noqa: S608

    def _all(self) -> str:
        """SQL for these and the stored ones, which are fetched once."""
        if not self.files:
            return self._noted()
        folder = self.folder / "sightings"
        if not self._is_read:
            self._is_read = True
            for name in self.files:
                self.objects.get_file(name, folder / Path(name).name)
        stored = f"select external_id, seen_at from '{_quoted(folder)}/*.parquet'"  # noqa: S608
        return f"{self._noted()} union all {stored}"


def _time(name: str) -> int:
    return int(Path(name).stem.partition("-")[0])


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
