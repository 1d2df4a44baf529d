"""What happened to a table: its snapshots, and who made them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table.snapshots import Snapshot

    from loreline.settings import Settings


@dataclass(frozen=True)
class TableSnapshot:
    """One snapshot of a table, newest first in a history.

    Attributes:
        snapshot_id: as in `AT (VERSION => …)`.
        committed_at: when, in UTC.
        operation: Iceberg's: append, overwrite, delete or replace.
        rows_added: rows that it wrote.
        rows_deleted: rows that it took away; an update does both.
        rows_total: rows that the table has since.
        model: the dbt model, source or command that made it; None when it is not recorded.
        invocation_id: the run.
        code_version: of the model's code.
        seconds: how long the write took.
    """

    snapshot_id: int
    committed_at: datetime
    operation: str
    rows_added: int
    rows_deleted: int
    rows_total: int
    model: str | None = None
    invocation_id: str | None = None
    code_version: str | None = None
    seconds: float | None = None


def history(
    table: Annotated[str, typer.Argument(help="knowledge.documents, or documents.")],
    as_json: Json = False,
) -> None:
    """Show a table's snapshots, and who made them."""
    from loreline.lake.catalog import load_catalog
    from loreline.settings import Settings

    settings = Settings.load()
    catalog = load_catalog(settings)
    name = resolve(catalog, settings, table)
    snapshots = read(catalog, settings, name)
    if as_json:
        print_json([asdict(snapshot) for snapshot in snapshots])
    elif snapshots:
        _print(name, snapshots)
    else:
        say(f"lake.{name} has no snapshot: nothing was ever written to it.")


def resolve(catalog: Catalog, settings: Settings, given: str) -> str:
    """The `namespace.table` that a person means by its whole name, or by a unique part of it.

    Names are looked for among the tables that this target has written; one that somebody else has
    written is found by its whole name.

    Raises:
        LorelineError: there is none, or more than one.
    """
    from loreline.lake.catalog import find_table

    asked = given.removeprefix("lake.")
    wanted = {asked, settings.prefix + asked}
    written = _written(settings)
    names = [name for name in written if name in wanted or name.rsplit(".", 1)[-1] == asked]
    if len(names) > 1:
        # Documents are those of all sources rather than what one source calls so.
        raw = f"{settings.prefix}raw_"
        names = [name for name in names if not name.startswith(raw)] or names
    if len(names) > 1:
        raise LorelineError(f"{given} is in {', '.join(names)}", "say which")
    if names:
        return names[0]
    if "." in asked and find_table(catalog, asked):
        return asked
    raise LorelineError(
        f"there is no table {given} in the lake", "`loreline sql .tables` lists what is there"
    )


def _written(settings: Settings) -> list[str]:
    from psycopg import sql

    from loreline.postgres import connect

    commits = sql.Identifier(f"{settings.prefix}operations", "commits")
    query = sql.SQL("select distinct table_name from {} order by table_name").format(commits)
    with connect(settings.as_reader()) as connection:
        return [row[0] for row in connection.execute(query)]


def read(catalog: Catalog, settings: Settings, name: str) -> list[TableSnapshot]:
    """The kept snapshots of `namespace.table`, newest first, with what `commits` knows of them."""
    from psycopg import sql

    from loreline.postgres import connect

    with connect(settings.as_reader()) as connection:
        query = sql.SQL(
            "select snapshot_id, model, invocation_id, code_version, seconds"
            " from {} where table_name = %s"
        ).format(sql.Identifier(f"{settings.prefix}operations", "commits"))
        recorded = {row[0]: row[1:] for row in connection.execute(query, (name,))}
    snapshots = catalog.load_table(name).metadata.snapshots
    newest_first = sorted(snapshots, key=lambda s: (s.timestamp_ms, s.sequence_number or 0))[::-1]
    return [
        _described(snapshot, *recorded.get(snapshot.snapshot_id, ())) for snapshot in newest_first
    ]


def _described(
    snapshot: Snapshot,
    model: str | None = None,
    invocation_id: str | None = None,
    code_version: str | None = None,
    seconds: float | None = None,
) -> TableSnapshot:
    summary = snapshot.summary.additional_properties if snapshot.summary else {}

    def number(*keys: str) -> int:
        return sum(int(summary.get(key, 0)) for key in keys)

    return TableSnapshot(
        snapshot_id=snapshot.snapshot_id,
        committed_at=datetime.fromtimestamp(snapshot.timestamp_ms / 1000, UTC),
        operation=snapshot.summary.operation.value if snapshot.summary else "unknown",
        rows_added=number("added-records"),
        rows_deleted=number("deleted-records", "added-position-deletes"),
        rows_total=number("total-records") - number("total-position-deletes"),
        model=model,
        invocation_id=invocation_id,
        code_version=code_version,
        seconds=seconds,
    )


def _print(name: str, snapshots: list[TableSnapshot]) -> None:
    rows = [
        [
            s.snapshot_id,
            s.committed_at.replace(tzinfo=None, microsecond=0),
            s.operation,
            s.rows_added,
            s.rows_deleted,
            s.rows_total,
            s.model or "not recorded",
            (s.code_version or "")[:8],
            (s.invocation_id or "")[:8],
            None if s.seconds is None else round(s.seconds, 2),
        ]
        for s in snapshots
    ]
    columns = ["snapshot", "at (UTC)", "operation", "added", "deleted", "rows"]
    print_table(
        [*columns, "made by", "code", "run", "seconds"],
        rows,
        title=f"lake.{name}",
        optional=["run", "code", "seconds", "deleted", "operation"],
    )
