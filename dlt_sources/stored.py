"""Rows of the settings' own Postgres, for sources that are kept there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from loreline.postgres import connect
from loreline.settings import Settings

ROWS_PER_FETCH = 2_000


def stored_rows(
    settings: Settings, schema: str, table: str, *, order_by: tuple[str, ...]
) -> Iterator[dict[str, Any]]:
    """All rows of a table or view, some at a time.

    One statement, and so one snapshot: it sees each transaction wholly or not at all.
    """
    with (
        connect(settings) as connection,
        connection.cursor(name=f"{table}_to_land", row_factory=dict_row) as cursor,
    ):
        cursor.itersize = ROWS_PER_FETCH
        cursor.execute(
            SQL("select * from {} order by {}").format(
                Identifier(f"{settings.prefix}{schema}", table),
                SQL(", ").join(map(Identifier, order_by)),
            )
        )
        yield from cursor
