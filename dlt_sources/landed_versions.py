"""What a raw table already holds of the objects that arrive.

The first slice of a load looks up just its own objects in the lake, so that one webhook costs one
narrow scan. A second slice means bulk: the table's keys and hashes are then copied once into
DuckDB's memory, which spills to disk, and every further slice is a join there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import duckdb
import pyarrow as pa
from pyiceberg.table import Table

from dlt_sources.versions import ABSENT_TIME, Key, State

LOOKUP_COLUMNS = (
    "external_id",
    "observed_at",
    "source_updated_at",
    "content_hash",
    "metadata_hash",
    "is_deleted",
    "landed_at",
)


@dataclass(slots=True)
class Latest:
    """The newest versions of an object: more than one where only their landing order tells.

    Attributes:
        key: the time they share.
        states: the versions in the order in which they landed.
    """

    key: Key
    states: list[State]

    @property
    def state(self) -> State:
        """The newest version."""
        return self.states[-1]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A slice beside what is known of its objects.

    Attributes:
        unchanged: positions of objects that come once and equal their one newest version.
        later: those of them that were observed later than that version.
        latest: the newest versions of the known objects at all other positions.
    """

    unchanged: set[int]
    later: list[int]
    latest: dict[str, Latest]


class LandedVersions:
    """The versions of one raw table: those in the lake when the load began, and those since.

    Args:
        connection: DuckDB with the lake attached as `lake`, used by this load alone.
        table: the raw table as it is now; None when nothing was ever landed.
        name: a name for the local tables, unique within the connection.
    """

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, table: Table | None, name: str
    ) -> None:
        self.connection = connection
        self.local = f'memory.main."versions of {name}"'
        self.seen = f'memory.main."seen of {name}"'
        snapshot = table.current_snapshot() if table else None
        self.lake = ""
        if table and snapshot:
            path = ".".join(f'"{part}"' for part in table.name())
            self.lake = f"lake.{path} at (version => {snapshot.snapshot_id})"
        self._slices = 0
        self._is_copied = False
        connection.execute(
            f"create or replace table {self.local} (external_id varchar, observed_at timestamp,"
            " source_updated_at timestamp, content_hash varchar, metadata_hash varchar,"
            " is_deleted boolean, landed_at timestamp, _batch bigint)"
        )
        connection.execute(f"create or replace table {self.seen} (external_id varchar)")

    def compare(self, arriving: pa.Table) -> Comparison:
        """Compare a slice with the newest versions of its objects.

        Args:
            arriving: `n` (the position in the slice), `external_id`, `content_hash`,
                `metadata_hash`, `is_deleted`, `observed_at` in microseconds, and `is_single`:
                whether the slice holds nothing else of the object.
        """
        self._slices += 1
        if self.lake and self._slices == 2:
            self._copy()
        with registered(self.connection, "arriving", arriving):
            self.connection.execute(
                f"""
                create or replace temp table known as
                select
                    external_id,
                    epoch_us(observed_at) as observed_at,
                    coalesce(epoch_us(source_updated_at), {ABSENT_TIME}) as source_updated_at,
                    content_hash,
                    metadata_hash,
                    is_deleted,
                    row_number() over (order by _batch nulls last, landed_at) as landing_order,
                    count(*) over (partition by external_id) = 1 as is_single
                from (
                    {self._versions()}
                    where external_id in (select external_id from arriving)
                    qualify rank() over (
                        partition by external_id
                        order by observed_at desc, source_updated_at desc nulls last
                    ) = 1
                )
                """  # noqa: S608 - here and below, the names in it are our own
            )
            unchanged = self.connection.execute(
                """
                select
                    arriving.n,
                    arriving.observed_at > known.observed_at as is_later
                from arriving
                inner join known
                    on arriving.external_id = known.external_id
                    and arriving.content_hash = known.content_hash
                    and arriving.metadata_hash = known.metadata_hash
                    and arriving.is_deleted = known.is_deleted
                where arriving.is_single and known.is_single
                """
            ).to_arrow_table()
            self.connection.register("settled", unchanged)
            others = self.connection.execute(
                """
                select
                    external_id,
                    observed_at,
                    source_updated_at,
                    content_hash,
                    metadata_hash,
                    is_deleted
                from known
                where external_id in (
                    select arriving.external_id
                    from arriving
                    where arriving.n not in (select settled.n from settled)
                )
                order by landing_order
                """
            ).to_arrow_table()
        return Comparison(
            set(unchanged["n"].to_pylist()),
            unchanged.filter(unchanged["is_later"])["n"].to_pylist(),
            _latest(others),
        )

    def remember(self, rows: pa.Table) -> None:
        """Know the rows that this load has just made."""
        with registered(self.connection, "landing", rows.select(LOOKUP_COLUMNS)):
            self.connection.execute(f"insert into {self.local} select *, null from landing")  # noqa: S608

    def forget(self, rows: pa.Table) -> None:
        """No longer know rows that this load has made and that do not land."""
        with registered(self.connection, "refused", rows.select(["landed_at"])):
            # No two rows of a load landed at the same time; those of the lake have a batch.
            self.connection.execute(
                f"delete from {self.local} where _batch is null and landed_at in"  # noqa: S608
                " (select refused.landed_at from refused)"
            )

    def last_batch(self, table: str | None) -> int:
        """The number of the last commit in the lake; -1 where nothing is landed.

        Args:
            table: the raw table as it is now, as `connection` knows it.
        """
        if table is None:
            return -1
        row = self.connection.execute(f"select max(_batch) from {table}").fetchone()  # noqa: S608
        return -1 if row is None or row[0] is None else row[0]

    def catch_up(self, table: str | None, batch: int) -> None:
        """Know what others have landed.

        Args:
            table: the raw table as it is now, as `connection` knows it.
            batch: the number of the last commit before theirs; all that this load made is in it, or
                in earlier ones.
        """
        self.connection.execute(
            f"update {self.local} set _batch = $batch where _batch is null",  # noqa: S608
            {"batch": batch},
        )
        if table:
            columns = ", ".join(LOOKUP_COLUMNS)
            self.connection.execute(
                f"insert into {self.local} select {columns}, _batch from {table}"  # noqa: S608
                " where _batch > $batch",
                {"batch": batch},
            )

    def payloads(self, external_ids: Sequence[str]) -> dict[str, tuple[str | None, str | None]]:
        """The newest `payload` and `raw_object_uri` in the lake of each of the given objects."""
        if not self.lake:
            return {}
        with registered(self.connection, "wanted", external_id=external_ids):
            rows = self.connection.execute(
                f"""
                select external_id, payload, raw_object_uri
                from {self.lake}
                where external_id in (select external_id from wanted)
                qualify row_number() over (
                    partition by external_id
                    order by
                        observed_at desc,
                        source_updated_at desc nulls last,
                        _batch desc,
                        landed_at desc
                ) = 1
                """  # noqa: S608
            ).fetchall()
        return {external_id: (payload, uri) for external_id, payload, uri in rows}

    def latest(self) -> str:
        """SQL for the newest row in the lake of each object."""
        columns = "external_id, payload, raw_object_uri, source_updated_at, observed_at, is_deleted"
        if not self.lake:
            empty = "null::varchar, null::varchar, null::varchar, null::timestamp, null::timestamp"
            return f"select * from (values ({empty}, null::boolean)) as none ({columns}) limit 0"  # noqa: S608
        # Two looks at the table, so that the one that sorts holds keys alone, never payloads.
        return f"""
            select {columns}
            from {self.lake}
            where _dlt_id in (
                select _dlt_id
                from {self.lake}
                qualify row_number() over (
                    partition by external_id
                    order by
                        observed_at desc,
                        source_updated_at desc nulls last,
                        _batch desc,
                        landed_at desc
                ) = 1
            )
        """  # noqa: S608

    def mark_seen(self, external_ids: Sequence[str]) -> None:
        """Note objects that a complete observation has shown, for `absent`."""
        with registered(self.connection, "shown", external_id=external_ids):
            self.connection.execute(f"insert into {self.seen} select external_id from shown")  # noqa: S608

    def absent(self, covered: str, observed_before: datetime) -> tuple[list[str], int]:
        """Which objects a complete observation should have shown and did not.

        Args:
            covered: SQL condition on `external_id`: what the observation covers.
            observed_before: when it was made; what was observed later is left alone.

        Returns:
            The ids of objects that are not deleted and were not seen, and how many objects that are
            not deleted the observation covers.
        """
        if not self.lake:
            return [], 0
        rows = self.connection.execute(
            f"""
            with latest as (
                select
                    external_id,
                    arg_max(
                        is_deleted,
                        (observed_at, coalesce(source_updated_at, '-infinity'), _batch, landed_at)
                    ) as is_deleted,
                    max(observed_at) as observed_at
                from {self.lake}
                where {covered}
                group by external_id
            )
            select
                latest.external_id,
                seen.external_id is null as is_absent
            from latest
            left join (select distinct external_id from {self.seen}) as seen
                on latest.external_id = seen.external_id
            where not latest.is_deleted and latest.observed_at < $observed_before
            order by latest.external_id
            """,  # noqa: S608
            {"observed_before": observed_before},
        ).fetchall()
        return [external_id for external_id, is_absent in rows if is_absent], len(rows)

    def _copy(self) -> None:
        columns = ", ".join(LOOKUP_COLUMNS)
        self.connection.execute(
            f"insert into {self.local} select {columns}, _batch from {self.lake}"  # noqa: S608
        )
        self._is_copied = True

    def _versions(self) -> str:
        """SQL for all known versions, open for a `where`."""
        columns = ", ".join((*LOOKUP_COLUMNS, "_batch"))
        local = f"select {columns} from {self.local}"  # noqa: S608
        if not self.lake or self._is_copied:
            return local
        lake = f"select {columns} from {self.lake}"  # noqa: S608
        return f"select {columns} from ({local} union all {lake})"  # noqa: S608


def _latest(versions: pa.Table) -> dict[str, Latest]:
    found: dict[str, Latest] = {}
    columns = [column.to_pylist() for column in versions.itercolumns()]
    for external_id, observed_at, updated_at, *state in zip(*columns, strict=True):
        if known := found.get(external_id):
            known.states.append(State(*state))
        else:
            found[external_id] = Latest(Key(observed_at, updated_at), [State(*state)])
    return found


@contextmanager
def registered(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    table: pa.Table | None = None,
    **columns: object,
) -> Iterator[None]:
    """Show DuckDB an Arrow table, or columns of Python values, under a name for a while."""
    connection.register(name, pa.table(columns) if table is None else table)
    try:
        yield
    finally:
        connection.unregister(name)
