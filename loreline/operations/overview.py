"""What a person wants to know first: is all well, and if not, what is to be done.

Everything here is counted, nothing compared row by row: it stays quick whatever the lake holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.sql import SQL, Identifier

from loreline.errors import LorelineError
from loreline.operations import builds, freshness
from loreline.operations.builds import Build
from loreline.operations.freshness import Freshness, State
from loreline.postgres import check_schema, connect
from loreline.settings import Settings

if TYPE_CHECKING:
    import duckdb

# So many writes to a table since its last compaction have left at least as many small files.
WRITES_WORTH_COMPACTING = 50
NAMES_SHOWN = 3


@dataclass(frozen=True)
class Source:
    """A source that somebody has tried to land, or of which something is set aside.

    Attributes:
        name: notion, slack, …
        state: whether it was looked at in time; None of what no load lands.
        lag_seconds: how long ago it was looked at last.
        was_loaded: whether a load of it has ever come to its end.
        error: why the last load failed; None where it did not.
        last_landed_at: when something was new last.
        rows: rows landed, of all its tables.
        set_aside: inputs in the quarantine.
    """

    name: str
    state: str | None = None
    lag_seconds: float | None = None
    was_loaded: bool = False
    error: str | None = None
    last_landed_at: datetime | None = None
    rows: int = 0
    set_aside: int = 0


@dataclass(frozen=True)
class Collection:
    """A collection of chunks, counted.

    Attributes:
        name: as one asks for it.
        is_default: searched where none is named.
        expected: chunks that it should hold.
        actual: chunks that it does.
        documents: that there are to be found.
        built: those of them whose current version it was given, as `loreline coverage` says.
    """

    name: str
    is_default: bool
    expected: int
    actual: int
    documents: int
    built: int


@dataclass(frozen=True)
class Attention:
    """Something to be done: what is the matter, and the command that helps."""

    what: str
    command: str


@dataclass(frozen=True)
class Overview:
    """How a lakehouse is.

    Attributes:
        sources: by name.
        documents: current documents by source; None where none was ever built.
        collections: the default one first; None where the manifest was never built.
        builds: the last one, and the last one of everything where that is another.
        unread: raw tables with rows that no model has read yet.
        fragmented: tables that many writes have left in small files.
        parked: deliveries of webhooks that failed too often.
    """

    sources: list[Source] = field(default_factory=list)
    documents: dict[str, int] | None = None
    collections: list[Collection] | None = None
    builds: list[Build] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    fragmented: int = 0
    parked: int = 0


def overview(settings: Settings) -> Overview:
    """Look at the stores.

    Raises:
        LorelineError: one does not answer, or Postgres holds another schema.
    """
    import duckdb

    from loreline.lake.duck import connect as connect_lake

    settings.require_stores()
    check_schema(settings)
    reader = settings.as_reader()
    with connect(reader) as postgres, connect_lake(reader) as lake:
        try:
            documents = _documents(lake, settings)
            collections = _collections(postgres, lake, settings)
        except duckdb.Error as error:
            cause = next(iter(str(error).splitlines()), "")
            raise LorelineError(
                f"the lake cannot be read ({cause})", "`loreline doctor` says more"
            ) from error
        return Overview(
            sources=_sources(postgres, settings),
            documents=documents,
            collections=collections,
            builds=builds.last(postgres, settings),
            unread=_unread(postgres, settings),
            fragmented=len(fragmented(postgres, settings)),
            parked=_parked(postgres, settings),
        )


def attention(found: Overview) -> list[Attention]:
    """What needs somebody, the most urgent first."""
    return [*_of_sources(found), *_of_builds(found), *_of_serving(found), *_of_upkeep(found)]


def fragmented(
    connection: psycopg.Connection[Any], settings: Settings, writes: int | None = None
) -> list[str]:
    """Tables, as `namespace.table`, written to so often since all of their files were rewritten.

    Args:
        connection: to Postgres.
        settings: the stores.
        writes: how often; `WRITES_WORTH_COMPACTING` unless given.
    """
    query = SQL(
        "with rewritten as ("
        " select table_name, max(committed_at) as at from {commits}"
        " where operation in ('compact', 'overwrite') group by table_name)"
        " select commits.table_name from {commits} as commits"
        " left join rewritten on commits.table_name = rewritten.table_name"
        " where commits.operation not in ('compact', 'overwrite')"
        " and commits.committed_at > coalesce(rewritten.at, '-infinity')"
        " group by commits.table_name having count(*) >= %s order by 1"
    ).format(commits=_table(settings, "commits"))
    rows = connection.execute(query, [writes or WRITES_WORTH_COMPACTING]).fetchall()
    return [name for (name,) in rows]


def _of_sources(found: Overview) -> Iterator[Attention]:
    if not any(source.rows for source in found.sources):
        yield Attention("nothing is landed yet", "loreline ingest --sample day_one")
    for source in found.sources:
        if source.error:
            yield Attention(
                f"the last load of {source.name} failed: {source.error}",
                f"loreline ingest {source.name}",
            )
        elif source.state in (State.late, State.due):
            yield Attention(
                f"{source.name} is {source.state}: nobody looked at it for a while",
                f"loreline ingest {source.name}",
            )
    aside = {source.name: source.set_aside for source in found.sources if source.set_aside}
    if aside:
        count = sum(aside.values())
        yield Attention(
            f"{_counted(count, 'input')} set aside ({', '.join(aside)})",
            "loreline quarantine list",
        )
    if found.parked:
        yield Attention(
            f"{_counted(found.parked, 'delivery', 'deliveries')} of webhooks parked",
            "loreline inbox list --state parked",
        )


def _of_builds(found: Overview) -> Iterator[Attention]:
    for build in found.builds:
        command = f"loreline build{build.selection and ' --select '}{build.selection}"
        if build.failures:
            parts = [failure["node"].split(".") for failure in build.failures]
            names = _some([part[2] for part in parts if len(part) > 2])
            yield Attention(
                f"{_counted(len(build.failures), 'failure')} in the last"
                f" {build.command}{build.selection and ' of '}{build.selection}: {names}",
                command,
            )
        elif build.ended_at is None:
            yield Attention(f"the last {build.command} has no end: it runs, or was killed", command)
    if found.documents is None and any(source.rows for source in found.sources):
        yield Attention("nothing is built yet", "loreline build")
    if found.unread:
        yield Attention(f"landed, but not built: {_some(found.unread)}", "loreline build")


def _of_serving(found: Overview) -> Iterator[Attention]:
    for each in found.collections or []:
        if each.expected != each.actual:
            yield Attention(
                f"{each.name} serves {each.actual:,} chunks, not {each.expected:,}",
                "loreline contents",
            )
        if missing := each.documents - each.built:
            yield Attention(
                f"{_counted(missing, 'document')} of {each.documents:,} not built in {each.name}",
                "loreline coverage --documents",
            )


def _of_upkeep(found: Overview) -> Iterator[Attention]:
    if found.fragmented:
        yield Attention(
            f"{_counted(found.fragmented, 'table')} in many small files", "loreline maintain"
        )


def _parked(connection: psycopg.Connection[Any], settings: Settings) -> int:
    query = SQL("select count(*) from {} where state = 'parked'").format(_table(settings, "inbox"))
    row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def _sources(connection: psycopg.Connection[Any], settings: Settings) -> list[Source]:
    query = SQL("select source, count(*) from {} group by source").format(
        _table(settings, "quarantine")
    )
    aside = dict(connection.execute(query).fetchall())
    found = [
        _source(name, list(tables), aside.pop(name, 0))
        for name, tables in groupby(freshness.read(connection, settings), lambda f: f.source)
    ]
    found += [Source(name, set_aside=count) for name, count in aside.items()]
    return sorted(found, key=lambda source: source.name)


def _source(name: str, tables: list[Freshness], set_aside: int) -> Source:
    one = tables[0]
    landed = [table.last_landed_at for table in tables if table.last_landed_at]
    return Source(
        name=name,
        state=one.state,
        lag_seconds=one.lag_seconds,
        was_loaded=one.loaded_at is not None,
        error=one.error,
        last_landed_at=max(landed, default=None),
        rows=sum(table.rows for table in tables),
        set_aside=set_aside,
    )


def _documents(lake: duckdb.DuckDBPyConnection, settings: Settings) -> dict[str, int] | None:
    from loreline.lake.duck import rows_if_built

    rows = rows_if_built(
        lake,
        f"""
        select source, count(*)
        from lake.{settings.prefix}knowledge.documents_current
        where not is_deleted
        group by source
        order by source
        """,  # noqa: S608 - here and below, the names in it are our own
    )
    return None if rows is None else dict(rows)


def _collections(
    postgres: psycopg.Connection[Any], lake: duckdb.DuckDBPyConnection, settings: Settings
) -> list[Collection] | None:
    found = _expected(lake, settings)
    if found is None:
        return None
    documents, wanted = found
    schema = f"{settings.prefix}serving"
    served = postgres.execute(
        SQL(
            "select vector_collection, is_default, {}.chunk_table(table_number)"
            " from {} where status = 'served' and pushed_batch is not null"
            " order by is_default desc, vector_collection"
        ).format(Identifier(schema), Identifier(schema, "collections"))
    ).fetchall()
    collections = []
    for name, is_default, table in served:
        query = SQL("select count(*) from {}").format(Identifier(*table.split(".")))
        ((actual,),) = postgres.execute(query).fetchall()
        expected, built = wanted.pop(name, (0, 0))
        collections.append(Collection(name, is_default, expected, actual, documents, built))
    for name, (expected, built) in sorted(wanted.items()):
        collections.append(Collection(name, False, expected, 0, documents, built))
    return collections


def _expected(
    lake: duckdb.DuckDBPyConnection, settings: Settings
) -> tuple[int, dict[str, tuple[int, int]]] | None:
    """How many documents there are to be found; and by collection how many chunks it should hold,
    and of how many documents it was given the current version."""
    from loreline.lake.duck import rows_if_built

    rows = rows_if_built(
        lake,
        f"""
        with findable as (
            select document_version_id
            from lake.{settings.prefix}knowledge.documents_current
            where not is_deleted and not is_blank
        ),

        expected as (
            select
                manifest.vector_collection,
                count(*) as chunks,
                count(distinct findable.document_version_id) filter (
                    manifest._batch <= collections.pushed_batch
                ) as built
            from lake.{settings.prefix}serving.vector_manifest as manifest
            left join findable on manifest.document_version_id = findable.document_version_id
            left join pg.{settings.prefix}serving.collections as collections
                on manifest.vector_collection = collections.vector_collection
                and collections.status = 'served'
            where not manifest.is_deleted
            group by manifest.vector_collection
        )

        select findable.documents, expected.vector_collection, expected.chunks, expected.built
        from (select count(*) as documents from findable) as findable
        left join expected on true
        """,  # noqa: S608
    )
    if rows is None:
        return None
    by_collection = {name: (chunks, built) for _, name, chunks, built in rows if name}
    return rows[0][0], by_collection


def _unread(connection: psycopg.Connection[Any], settings: Settings) -> list[str]:
    """Raw tables that models read, and have not read to their end."""
    query = SQL(
        "with landed as ("
        " select table_name, max(batch) as last_batch from {commits}"
        " where starts_with(table_name, %s) group by table_name),"
        " read as (select upstream, max(last_batch) as last_batch from {watermarks}"
        " group by upstream)"
        " select landed.table_name from landed"
        " inner join read on landed.table_name = read.upstream"
        " where landed.last_batch > read.last_batch order by 1"
    ).format(commits=_table(settings, "commits"), watermarks=_table(settings, "watermarks"))
    return [name for (name,) in connection.execute(query, [f"{settings.prefix}raw_"])]


def _counted(count: int, thing: str, things: str = "") -> str:
    return f"{count:,} {thing if count == 1 else things or f'{thing}s'}"


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:NAMES_SHOWN])
    left = len(names) - NAMES_SHOWN
    return f"{shown} and {left:,} more" if left > 0 else shown


def _table(settings: Settings, name: str) -> Identifier:
    return Identifier(f"{settings.prefix}operations", name)
