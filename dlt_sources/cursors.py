"""How far a source was read through its API, kept in `operations.source_cursors`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from dlt_sources.inputs import tables_exist
from dlt_sources.landing import Landing

Json = Any


class Cursors:
    """The cursors of one source, during a load of it.

    Cursors without the tables that the source once filled are not believed: they are removed.

    Args:
        landing: the load.
    """

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._table = Identifier(f"{landing.settings.prefix}operations", "source_cursors")
        if not tables_exist(landing):
            landing.postgres.execute(
                SQL("delete from {} where source = %s").format(self._table), [landing.source]
            )
        self._values: dict[str, Json] = {}
        self.read()

    def read(self) -> None:
        """Know what was saved, by whomever."""
        rows = self._landing.postgres.execute(
            SQL("select name, value from {} where source = %s").format(self._table),
            [self._landing.source],
        )
        self._values = dict(rows.fetchall())

    def get(self, name: str, unless_known: Json = None) -> Json:
        """What was saved last under a name."""
        return self._values.get(name, unless_known)

    def time(self, name: str) -> datetime | None:
        """A cursor that holds a time."""
        told = self.get(name)
        return datetime.fromisoformat(told) if told else None

    def named(self, prefix: str) -> dict[str, Json]:
        """The cursors whose names begin so, without that beginning."""
        return {
            name.removeprefix(prefix): value
            for name, value in self._values.items()
            if name.startswith(prefix)
        }

    def save(self, values: Mapping[str, Json]) -> None:
        """Keep values, all of them or none; None removes one."""
        with self._landing.postgres.transaction(), self._landing.postgres.cursor() as cursor:
            cursor.executemany(
                SQL(
                    "insert into {} (source, name, value) values (%s, %s, %s)"
                    " on conflict (source, name) do update set"
                    " value = excluded.value, saved_at = now()"
                ).format(self._table),
                [
                    (self._landing.source, name, Jsonb(value))
                    for name, value in values.items()
                    if value is not None
                ],
            )
            gone = [name for name, value in values.items() if value is None]
            if gone:
                cursor.execute(
                    SQL("delete from {} where source = %s and name = any(%s)").format(self._table),
                    (self._landing.source, gone),
                )
        self._values.update(values)
        for name in gone:
            del self._values[name]
