"""What Postgres should serve, compared with what it does."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.settings import Settings

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


@dataclass(frozen=True)
class CollectionContents:
    """A collection: rows that should be served, rows that are, and how they differ.

    Attributes:
        missing: rows that should be there.
        extra: rows that should not.
        different: rows whose text, vector or permissions are others.
    """

    vector_collection: str
    is_default: bool
    expected: int
    actual: int
    missing: int
    extra: int
    different: int

    @property
    def has_drifted(self) -> bool:
        """Whether what is served is not what should be."""
        return bool(self.missing or self.extra or self.different)


def contents(as_json: Json = False) -> None:
    """Compare what is served with what should be.

    Row by row, by text, vector and permissions. Exit code 1 on drift.
    """
    from loreline.settings import Settings

    found = compare(Settings.load())
    if as_json:
        print_json([asdict(collection) for collection in found])
    else:
        _print(found)
    if any(collection.has_drifted for collection in found):
        raise typer.Exit(1)


def compare(settings: Settings) -> list[CollectionContents]:
    """Every collection that is served or should be, the default one first.

    Raises:
        LorelineError: nothing was built yet.
    """
    import duckdb

    from loreline.lake.duck import connect

    query = COMPARISON.format(prefix=settings.prefix)
    try:
        rows = connect(settings.as_reader()).execute(query).fetchall()
    except duckdb.CatalogException as error:
        raise LorelineError("nothing was built yet", "run `loreline build`") from error
    return [CollectionContents(*row) for row in rows]


def _print(found: list[CollectionContents]) -> None:
    if not found:
        say("No collection is served, and none should be.")
        return
    rows = [[c.vector_collection, c.expected, c.actual, _drift(c)] for c in found]
    print_table(["collection", "expected", "actual", "drift"], rows)
    if any(c.has_drifted for c in found):
        say("What is served is not what should be. If `loreline build` does not mend it, somebody")
        say("changed Postgres itself: loreline build --select vector_collections --full-refresh")
    else:
        say("No drift: each row is there, with the text, vector and permissions it should have.")


def _drift(collection: CollectionContents) -> str:
    kinds = ("missing", "extra", "different")
    counts = {kind: getattr(collection, kind) for kind in kinds}
    return ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count) or "none"
