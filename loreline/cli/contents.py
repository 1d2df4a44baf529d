"""What Postgres should hold, compared with what it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    import duckdb

    from loreline.settings import Settings

# The models that push what a table of each kind holds.
PUSHES = {"collection": "vector_collections", "copy": "lineage_copies"}

# The fingerprint of a served row is computed in Postgres from what the row holds.
COMPARISON = """
with expected as (
    select vector_collection, chunk_id, fingerprint
    from lake.{prefix}serving.vector_manifest
    where not is_deleted
),

actual as (
    select vector_collection, chunk_id, fingerprint
    from pg.{prefix}serving.vector_rows
),

compared as (
    select
        coalesce(expected.vector_collection, actual.vector_collection) as vector_collection,
        expected.chunk_id is not null as is_expected,
        actual.chunk_id is not null as is_there,
        expected.fingerprint is not distinct from actual.fingerprint as is_equal
    from expected
    full join actual
        on expected.vector_collection = actual.vector_collection
        and expected.chunk_id = actual.chunk_id
),

collections as (
    select vector_collection, is_default
    from pg.{prefix}serving.collections
    where status = 'served'
),

counted as (
    select
        vector_collection,
        count(*) filter (is_expected) as expected,
        count(*) filter (is_there) as actual,
        count(*) filter (is_expected and not is_there) as missing,
        count(*) filter (is_there and not is_expected) as extra,
        count(*) filter (is_expected and is_there and not is_equal) as different
    from compared
    group by vector_collection
)

select
    coalesce(counted.vector_collection, collections.vector_collection) as vector_collection,
    coalesce(collections.is_default, false) as is_default,
    coalesce(counted.expected, 0) as expected,
    coalesce(counted.actual, 0) as actual,
    coalesce(counted.missing, 0) as missing,
    coalesce(counted.extra, 0) as extra,
    coalesce(counted.different, 0) as different
from counted
full join collections
    on counted.vector_collection = collections.vector_collection
order by is_default desc, vector_collection
"""


# Of a copied table, too, from what Postgres holds.
COPY_COMPARISON = """
with expected as (
    select {keys}, {fingerprint_in_lake} as fingerprint
    from lake.{prefix}conversations.{name}
),

actual as (
    select *
    from postgres_query('pg', $$
        select {keys}, {fingerprint_in_postgres} as fingerprint
        from {prefix}lineage.{name}
    $$)
)

select
    count(expected.fingerprint) as expected,
    count(actual.fingerprint) as actual,
    count(*) filter (actual.fingerprint is null) as missing,
    count(*) filter (expected.fingerprint is null) as extra,
    count(*) filter (expected.fingerprint <> actual.fingerprint) as different
from expected
full join actual using ({keys})
"""


@dataclass(frozen=True)
class Contents:
    """A table of Postgres: rows that it should hold, rows that it holds, and how they differ.

    Attributes:
        name: a collection of chunks, or `lineage.` and a copied table.
        kind: collection or copy.
        missing: rows that should be there.
        extra: rows that should not.
        different: rows that hold something else; of a chunk its text, vector or permissions.
    """

    name: str
    kind: str
    is_default: bool
    expected: int
    actual: int
    missing: int
    extra: int
    different: int

    @property
    def has_drifted(self) -> bool:
        """Whether what is there is not what should be."""
        return bool(self.missing or self.extra or self.different)


def contents(as_json: Json = False) -> None:
    """Compare what Postgres serves with what it should.

    Row by row: chunks by text, vector and permissions, conversations by all that is copied. Exit
    code 1 on drift.
    """
    from loreline.settings import Settings

    found = compare(Settings.load())
    if as_json:
        print_json([asdict(each) for each in found])
    else:
        _print(found)
    if any(each.has_drifted for each in found):
        raise typer.Exit(1)


def compare(settings: Settings) -> list[Contents]:
    """Every collection that is served or should be, the default one first, then every copy.

    Raises:
        LorelineError: nothing was built yet.
    """
    from loreline.lake.duck import connect

    with connect(settings.as_reader()) as connection:
        parts = [_collections(connection, settings), *_copies(connection, settings)]
    if not any(part is not None for part in parts):
        raise LorelineError("nothing was built yet", "run `loreline build`")
    return [each for part in parts for each in part or []]


def _collections(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> list[Contents] | None:
    from loreline.lake.duck import rows_if_built

    rows = rows_if_built(connection, COMPARISON.format(prefix=settings.prefix))
    if rows is None:
        return None
    return [Contents(name, "collection", default, *counts) for name, default, *counts in rows]


def _copies(
    connection: duckdb.DuckDBPyConnection, settings: Settings
) -> Iterator[list[Contents] | None]:
    from loreline.lake.duck import rows_if_built
    from loreline.serving.lineage import COPIES, fingerprint_in_lake, fingerprint_in_postgres

    for copy in COPIES:
        rows = rows_if_built(
            connection,
            COPY_COMPARISON.format(
                prefix=settings.prefix,
                name=copy.name,
                keys=", ".join(copy.key),
                fingerprint_in_lake=fingerprint_in_lake(copy),
                fingerprint_in_postgres=fingerprint_in_postgres(copy),
            ),
        )
        yield rows and [Contents(f"lineage.{copy.name}", "copy", False, *rows[0])]


def _print(found: list[Contents]) -> None:
    if not found:
        say("No collection is served, and none should be.")
        return
    print_table(
        ["table", "expected", "actual", "drift"],
        [[each.name, each.expected, each.actual, _drift(each)] for each in found],
    )
    if any(each.has_drifted for each in found):
        models = dict.fromkeys(PUSHES[each.kind] for each in found if each.has_drifted)
        say("What is served is not what should be. If `loreline build` does not mend it, somebody")
        say(f"changed Postgres itself: loreline build --select {' '.join(models)} --full-refresh")
    else:
        say("No drift: each row is there, and holds what it should.")


def _drift(each: Contents) -> str:
    kinds = ("missing", "extra", "different")
    counts = {kind: getattr(each, kind) for kind in kinds}
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count) or "none"
