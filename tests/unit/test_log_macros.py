"""What the macros of log files make of single texts, on DuckDB."""

from __future__ import annotations

import datetime as dt
from typing import Any

import duckdb
import jinja2
import pytest

from loreline.settings import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "macros" / "log_files"
FORMATS = [
    {"log_format": "json", "time_format": "iso"},
    {"log_format": "access", "time_format": "%d/%b/%Y:%H:%M:%S %z"},
]
MOMENT = dt.datetime(2026, 9, 17, 11, 42, 3)


def rendered(macro: str, *given: Any) -> str:
    """The SQL of a macro for DuckDB."""
    texts = [(FOLDER / f"{name}.sql").read_text() for name in ("sql_text", macro)]
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)

    class Adapter:
        @staticmethod
        def dispatch(name: str, package: str) -> Any:
            return getattr(environment.from_string("".join(texts)).module, f"duckdb__{name}")

    environment.globals.update({"adapter": Adapter, "return": lambda value: value})
    return getattr(environment.from_string("".join(texts)).module, macro)(*given)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-09-17T11:42:03Z", MOMENT),
        ("2026-09-17 11:42:03,000", MOMENT),
        ("2026-09-17T13:42:03+02:00", MOMENT),
        ("1789645323", MOMENT),
        ("1789645323000", MOMENT),
        ("1789645323000000", MOMENT),
        ("1789645323000000000", MOMENT),
        ("0001-01-01T00:00:00Z", dt.datetime(1, 1, 1)),
        ("340282366920938463463374607431768211455", None),
        ("1e300", None),
        ("-1e300", None),
        ("-99999999999", None),
        ("nan", None),
        ("inf", None),
        ("-infinity", None),
        ("infinity", None),
        ("290000-01-01", None),
        ("0044-03-15 (BC)", None),
        ("", None),
        ("soon", None),
        (None, None),
    ],
)
def test_a_time_is_read_and_what_is_none_stops_nothing(text: str | None, expected: Any) -> None:
    sql = rendered("log_time", "log_format", "said", "written_at", FORMATS)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        found = connection.execute(
            f"select {sql} from (select 'json' as log_format, ?::varchar as said,"
            " timestamp '2026-09-18' as written_at)",
            [text],
        ).fetchone()
    assert found == (expected,)


def test_a_seed_may_hold_no_format_but_those_with_iso_times() -> None:
    for formats in ([], FORMATS[:1]):
        query = rendered("log_time", "'json'", "'1789645323'", "timestamp '2026-09-18'", formats)
        assert duckdb.sql(f"select {query}").fetchall() == [(MOMENT,)]
