"""When each source was last read to its end: an unchanged input lands no row, and is read all the
same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psycopg
from psycopg.sql import SQL, Identifier

from dlt_sources.landing import Landing

ERROR_CHARACTERS = 2_000


@contextmanager
def recorded(landing: Landing) -> Iterator[None]:
    """Record in `operations.source_loads` whether what is done here came to its end.

    A load that is killed, or given up with Ctrl-C, says nothing of its source.
    """
    try:
        yield
    except Exception as error:
        # Where Postgres itself failed, that is what is to be said.
        with suppress(psycopg.Error):
            _record(landing, str(error) or type(error).__name__)
        raise
    _record(landing, None)


def _record(landing: Landing, error: str | None) -> None:
    landing.postgres.execute(
        SQL(
            "insert into {} as loads (source, loaded_at, attempted_at, error)"
            " values (%s, case when %s::text is null then now() end, now(), %s)"
            " on conflict (source) do update set"
            " loaded_at = coalesce(excluded.loaded_at, loads.loaded_at),"
            " attempted_at = excluded.attempted_at,"
            " error = excluded.error"
        ).format(Identifier(f"{landing.settings.prefix}operations", "source_loads")),
        (landing.source, error, error and error[:ERROR_CHARACTERS].replace("\0", "\\0")),
    )
