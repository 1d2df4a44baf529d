"""What was set aside: looked at, landed after all, or dropped by somebody who says why.

Nothing is deleted: what leaves `operations.quarantine` is a row of `operations.quarantine_log`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from psycopg import Connection
from psycopg.rows import class_row, dict_row
from psycopg.sql import SQL, Composed, Identifier

from loreline.errors import LorelineError
from loreline.operations.account import who
from loreline.postgres import connect
from loreline.settings import Settings

# An id shorter than this may soon mean another input.
SHORTEST_ID = 4
EXAMPLES = 2


@dataclass(frozen=True)
class Kept:
    """An input that was set aside.

    Attributes:
        fingerprint: its id; a beginning of it that is unique will do.
        source: notion, slack, …; `embedding` for texts without a usable vector.
        resource: the table that it was meant for.
        external_id: the object's id, where it has one.
        reason: a short name of what is wrong.
        detail: what exactly is wrong.
        payload: the input as text; None where it is an object of the landing bucket.
        payload_uri: that object.
        origin: where it was read.
        landed_at: when it was set aside.
        observed_at: when the source said it, where that is known.
        source_updated_at: when the source says that the object changed, likewise.
        retried_at: when it was last tried to land it again.
        retry_result: what came of that.
        outcome: landed, known or dropped, once it has left the quarantine.
        note: why it was dropped.
        decided_by: who decided that.
        decided_at: when.
    """

    fingerprint: str
    source: str
    resource: str
    external_id: str | None
    reason: str
    detail: str
    payload: str | None
    payload_uri: str | None
    origin: str
    landed_at: datetime
    observed_at: datetime | None
    source_updated_at: datetime | None
    retried_at: datetime | None = None
    retry_result: str | None = None
    outcome: str | None = None
    note: str | None = None
    decided_by: str | None = None
    decided_at: datetime | None = None


@dataclass(frozen=True)
class Group:
    """Inputs of one source that were set aside for one reason.

    Attributes:
        inputs: how many.
        retried: how many of them were tried again, in vain.
        first_at: when the first was set aside.
        last_at: when the last was.
        examples: `{"id", "origin", "detail"}` of a few, the last ones.
    """

    source: str
    resource: str
    reason: str
    inputs: int
    retried: int
    first_at: datetime
    last_at: datetime
    examples: list[dict[str, Any]]


@dataclass(frozen=True)
class Selection:
    """Which inputs are meant: all that fulfil each condition that is given.

    Attributes:
        ids: beginnings of fingerprints.
        source: of these sources only.
        reason: set aside for this; `contract:` means every reason that begins so.
    """

    ids: tuple[str, ...] = ()
    source: str | None = None
    reason: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing limits it."""
        return not (self.ids or self.source or self.reason)


_IN_LOG = {"outcome", "note", "decided_by", "decided_at"}
_IN_QUARANTINE = {"retried_at", "retry_result"}
_COMMON = [f.name for f in fields(Kept) if f.name not in _IN_LOG | _IN_QUARANTINE]


def groups(settings: Settings, selection: Selection) -> list[Group]:
    """What is set aside, counted by source, table and reason; the most first."""
    query = SQL(
        "with listed as ("
        " select *, row_number() over ("
        "  partition by source, resource, reason order by landed_at desc, fingerprint) as place"
        " from {table} where {condition})"
        " select source, resource, reason, count(*) as inputs, count(retried_at) as retried,"
        " min(landed_at) as first_at, max(landed_at) as last_at,"
        " jsonb_agg(jsonb_build_object("
        "  'id', fingerprint, 'origin', origin, 'detail', detail) order by place)"
        "  filter (where place <= %(examples)s) as examples"
        " from listed group by source, resource, reason"
        " order by count(*) desc, source, resource, reason"
    ).format(table=_table(settings, "quarantine"), condition=_condition(selection))
    parameters = _parameters(selection) | {"examples": EXAMPLES}
    with (
        connect(settings.as_reader()) as connection,
        connection.cursor(row_factory=class_row(Group)) as cursor,
    ):
        return cursor.execute(query, parameters).fetchall()


def inputs(
    settings: Settings, selection: Selection, *, limit: int | None = None, offset: int = 0
) -> list[Kept]:
    """Single inputs, the last ones first."""
    query = SQL(
        "select * from {} where {} order by landed_at desc, fingerprint"
        " limit %(limit)s offset %(offset)s"
    ).format(_table(settings, "quarantine"), _condition(selection))
    parameters = _parameters(selection) | {"limit": limit, "offset": offset}
    with (
        connect(settings.as_reader()) as connection,
        connection.cursor(row_factory=class_row(Kept)) as cursor,
    ):
        return cursor.execute(query, parameters).fetchall()


def fingerprints(settings: Settings, selection: Selection) -> dict[str, list[str]]:
    """The ids of the inputs that are meant, by source.

    Raises:
        LorelineError: an id means none of them, or more than one.
    """
    for beginning in selection.ids:
        _only(beginning, _beginning_with(settings, "quarantine", beginning))
    query = SQL(
        "select source, array_agg(fingerprint order by landed_at, fingerprint)"
        " from {} where {} group by source order by source"
    ).format(_table(settings, "quarantine"), _condition(selection))
    with connect(settings) as connection:
        return dict(connection.execute(query, _parameters(selection)).fetchall())


def find(settings: Settings, beginning: str) -> Kept:
    """One input, whether it is still set aside or has left the quarantine.

    Raises:
        LorelineError: an id begins so of none, or of more than one.
    """
    found = _beginning_with(settings, "quarantine", beginning)
    # The same input may have been set aside, landed, and set aside again.
    found += [
        each
        for each in _beginning_with(settings, "quarantine_log", beginning)
        if each.fingerprint not in {other.fingerprint for other in found}
    ]
    return _only(beginning, found)


def kept(settings: Settings, wanted: Sequence[str]) -> list[Kept]:
    """The inputs with these fingerprints that are set aside, the first ones first."""
    query = SQL(
        "select * from {} where fingerprint = any(%s) order by landed_at, fingerprint"
    ).format(_table(settings, "quarantine"))
    with (
        connect(settings) as connection,
        connection.cursor(row_factory=class_row(Kept)) as cursor,
    ):
        return cursor.execute(query, [list(wanted)]).fetchall()


def content(settings: Settings, one: Kept) -> bytes:
    """The input as it was received."""
    from dlt_sources.objects import ObjectStore

    if one.payload is not None:
        return one.payload.encode()
    return ObjectStore(settings).get(one.payload_uri) if one.payload_uri else b""


def drop(settings: Settings, wanted: Sequence[str], why: str) -> int:
    """Take inputs out of the quarantine for good; how many were there.

    The same input is not set aside again: it is counted when it comes, and no more.
    """
    with connect(settings) as connection:
        return leave(connection, settings, wanted, "dropped", why)


def leave(
    connection: Connection,
    settings: Settings,
    wanted: Sequence[str],
    outcome: str,
    note: str | None = None,
) -> int:
    """Move inputs from the quarantine to its log; how many were there."""
    columns = SQL(", ").join(map(Identifier, _COMMON))
    query = SQL(
        "with gone as (delete from {} where fingerprint = any(%s) returning *)"
        " insert into {} ({}, outcome, note, decided_by) select {}, %s, %s, %s from gone"
    ).format(_table(settings, "quarantine"), _table(settings, "quarantine_log"), columns, columns)
    return connection.execute(query, [list(wanted), outcome, note, who()]).rowcount


def stay(connection: Connection, settings: Settings, results: dict[str, str]) -> None:
    """Note of inputs that they were tried again in vain, and why."""
    query = SQL(
        "update {} set retried_at = now(), retry_result = %s where fingerprint = %s"
    ).format(_table(settings, "quarantine"))
    with connection.cursor() as cursor:
        cursor.executemany(query, [(said, id_) for id_, said in results.items()])


def _beginning_with(settings: Settings, table: str, beginning: str) -> list[Kept]:
    if len(beginning) < SHORTEST_ID or not beginning.isalnum():
        raise LorelineError(
            f"{beginning} is no id of an input", "see `loreline quarantine list --each`"
        )
    query = SQL(
        "select distinct on (fingerprint) * from {} where starts_with(fingerprint, %s)"
        " order by fingerprint, landed_at desc limit 3"
    ).format(_table(settings, table))
    known = {f.name for f in fields(Kept)}
    with (
        connect(settings.as_reader()) as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        rows = cursor.execute(query, [beginning.lower()]).fetchall()
    return [Kept(**{name: row[name] for name in row if name in known}) for row in rows]


def _only(beginning: str, found: Sequence[Kept]) -> Kept:
    if len(found) == 1:
        return found[0]
    what = "more than one input has" if found else "no input has"
    raise LorelineError(
        f"{what} an id that begins with {beginning}", "see `loreline quarantine list --each`"
    )


def _condition(selection: Selection) -> Composed:
    conditions = [SQL("true")]
    if selection.ids:
        conditions.append(SQL("fingerprint like any (%(ids)s)"))
    if selection.source:
        conditions.append(SQL("source = %(source)s"))
    if selection.reason:
        conditions.append(
            SQL(
                "(reason = %(reason)s"
                " or (right(%(reason)s, 1) = ':' and starts_with(reason, %(reason)s)))"
            )
        )
    return SQL(" and ").join(conditions)


def _parameters(selection: Selection) -> dict[str, Any]:
    return {
        "ids": [f"{beginning.lower()}%" for beginning in selection.ids],
        "source": selection.source,
        "reason": selection.reason,
    }


def _table(settings: Settings, name: str) -> Identifier:
    return Identifier(f"{settings.prefix}operations", name)
