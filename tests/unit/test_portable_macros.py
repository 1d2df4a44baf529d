"""Each macro of macros/portable/ gives the stated result on DuckDB, and on Spark where it is there.

Spark is not among the requirements: `pip install "pyspark==3.5.*"` beside a Java 17 runs its half.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import hashlib
import importlib.util
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import pytest

from loreline.settings import PROJECT_ROOT, Settings

FOLDER = PROJECT_ROOT / "macros" / "portable"
MACROS = sorted(file.stem for file in FOLDER.glob("*.sql"))
ENGINES = ("duckdb", "spark")

MOMENT = dt.datetime(2026, 10, 1, 23, 59, 59, 999_900)
SLACK_MESSAGE = json.dumps({"text": "hi <@U1>", "type": "message"})
NOTION_PAGE = json.dumps(
    {
        "page": {
            "object": "page",
            "properties": {
                "title": {"type": "title", "title": [{"type": "text", "plain_text": "Über Käse"}]}
            },
        },
        "blocks": [],
    }
)


@dataclasses.dataclass(frozen=True)
class Case:
    """A query over the table `input`, and the values that it gives.

    Attributes:
        macro: the macro that it tries.
        why: what is special about it.
        query: the query as a model would write it; it gives one column.
        schema: the columns of `input`, types as Spark writes them.
        rows: the rows of `input`.
        expected: the values in order.
        read: what is done to each value before it is compared.
    """

    macro: str
    why: str
    query: str
    schema: str
    rows: list[tuple[Any, ...]]
    expected: list[Any]
    read: Callable[[Any], Any] = lambda value: value

    def __str__(self) -> str:
        return f"{self.macro}: {self.why}"


def each(
    macro: str, expression: str, column: str, values: dict[str, tuple[Any, Any]]
) -> list[Case]:
    """One case per value of a single column: why → (value, expected)."""
    query = f"select {{{{ {expression} }}}} as result from input"
    return [Case(macro, why, query, column, [(a,)], [b]) for why, (a, b) in values.items()]


def grouped(
    macro: str,
    expression: str,
    schema: str,
    values: dict[str, tuple[list[Any], Any]],
    **options: Any,
) -> list[Case]:
    """One case per group of rows: why → (rows, expected)."""
    query = f"select {{{{ {expression} }}}} as result from input"
    return [Case(macro, why, query, schema, a, [b], **options) for why, (a, b) in values.items()]


UNNEST = (
    "select cast(link.position as string) || link.element as result"
    " from input, {{ unnest_with_position('input.l', 'link') }}"
    " order by input.l is null, link.position nulls last"
)

CASES = [
    *grouped(
        "arg_max",
        "arg_max('v', 'n')",
        "v string, n int",
        {
            "the greatest": ([("a", 1), ("b", 3), ("c", 2)], "b"),
            "rows without `by` do not count": ([("a", 1), ("b", None)], "a"),
            "a null value at the greatest is the answer": ([("a", 1), (None, 2)], None),
            "no rows": ([], None),
        },
    ),
    *grouped(
        "arg_min",
        "arg_min('v', 'n')",
        "v string, n int",
        {
            "the least": ([("a", 2), ("b", 1), ("c", 3)], "b"),
            "rows without `by` do not count": ([("a", 1), ("b", None)], "a"),
            "a null value at the least is the answer": ([("a", 2), (None, 1)], None),
        },
    ),
    *each(
        "day_text",
        "day_text('t')",
        "t timestamp",
        {
            "the last moment of a day": (MOMENT, "2026-10-01"),
            "padded": (dt.datetime(2026, 1, 2), "2026-01-02"),
            "null": (None, None),
        },
    ),
    *each(
        "minute_text",
        "minute_text('t')",
        "t timestamp",
        {
            "cut, not rounded": (MOMENT, "2026-10-01 23:59"),
            "padded": (dt.datetime(2026, 1, 2, 3, 4), "2026-01-02 03:04"),
            "null": (None, None),
        },
    ),
    *each(
        "epoch_text_to_timestamp",
        "epoch_text_to_timestamp('x')",
        "x string",
        {
            "to the microsecond": (
                "1760000000.000101",
                dt.datetime(2025, 10, 9, 8, 53, 20, 101),
            ),
            "whole seconds": ("0", dt.datetime(1970, 1, 1)),
            "not a number": ("soon", None),
            "null": (None, None),
        },
    ),
    *each(
        "hash_share",
        "hash_share('x')",
        "x string",
        {
            # The first 32 bits of its SHA-256, 0xca978112 and 0xe3b0c442, of 2 to the power of 32.
            "a text": ("a", 0xCA978112 / 2**32),
            "no text": ("", 0xE3B0C442 / 2**32),
            "null": (None, None),
        },
    ),
    *each(
        "iso_to_timestamp",
        "iso_to_timestamp('x')",
        "x string",
        {
            "Z with milliseconds": (
                "2026-10-01T10:00:00.120Z",
                dt.datetime(2026, 10, 1, 10, 0, 0, 120_000),
            ),
            "Z without": ("2026-10-01T10:00:00Z", dt.datetime(2026, 10, 1, 10)),
            "an offset is taken off": (
                "2026-10-01T01:30:00+02:00",
                dt.datetime(2026, 9, 30, 23, 30),
            ),
            "not a time": ("soon", None),
            "null": (None, None),
        },
    ),
    *each(
        "joined_list",
        "joined_list('l', ', ')",
        "l array<string>",
        {
            "in the list's order": (["b", "a", "ß"], "b, a, ß"),
            "nulls left out": (["a", None, "b"], "a, b"),
            "one": (["a"], "a"),
            "empty": ([], ""),
            "null": (None, None),
        },
    ),
    *each(
        "replace_all",
        "replace_all('x', regex('[0-9]+\\\\s'), \"'#'\")",
        "x string",
        {
            "every match": ("1 a 22 b", "#a #b"),
            "no match": ("a1", "a1"),
            "empty": ("", ""),
            "null": (None, None),
        },
    ),
    *grouped(
        "distinct_list",
        "distinct_list('v')",
        "v string, n int",
        {
            "sorted, each once": ([("b", 1), ("a", 2), ("b", 3)], ["a", "b"]),
            "nulls left out": ([(None, 1), ("a", 2)], ["a"]),
            "only nulls": ([(None, 1)], []),
        },
    ),
    *grouped(
        "json_object_agg",
        "json_object_agg('k', 'v')",
        "k string, v string",
        {
            "quotes and Unicode": ([("U1", 'Ana "A" Ü')], {"U1": 'Ana "A" Ü'}),
            "several": ([("U1", "a"), ("U2", "c")], {"U1": "a", "U2": "c"}),
            "a null value stays": ([("U1", None)], {"U1": None}),
        },
        read=json.loads,
    ),
    *each(
        "json_quoted",
        "json_quoted('t')",
        "t string",
        {
            "text": ("ü", '"ü"'),
            "quotes and line ends": ('a "b"\nc\\', '"a \\"b\\"\\nc\\\\"'),
            "empty": ("", '""'),
            "null": (None, "null"),
        },
    ),
    *each(
        "list_at",
        "list_at('l', 2)",
        "l array<string>",
        {"there": (["a", "b"], "b"), "too short": (["a"], None), "null": (None, None)},
    ),
    *each(
        "json_text",
        "json_text('p', '$.a.b')",
        "p string",
        {
            "nested": ('{"a": {"b": "x"}}', "x"),
            "Unicode and escapes": ('{"a": {"b": "d\\u00fc \\"q\\"\\n\U0001f980"}}', 'dü "q"\n🦀'),
            "number": ('{"a": {"b": 12}}', "12"),
            "boolean": ('{"a": {"b": true}}', "true"),
            "empty text": ('{"a": {"b": ""}}', ""),
            "JSON null": ('{"a": {"b": null}}', None),
            "missing leaf": ('{"a": {}}', None),
            "missing branch": ("{}", None),
            "branch of another type": ('{"a": [1]}', None),
            "null": (None, None),
        },
    ),
    *each(
        "json_text_list",
        "json_text_list('p', '$.a.l')",
        "p string",
        {
            "texts": ('{"a": {"l": ["x", "ü"]}}', ["x", "ü"]),
            "numbers": ('{"a": {"l": [1, 2]}}', ["1", "2"]),
            "null element": ('{"a": {"l": ["x", null]}}', ["x", None]),
            "empty": ('{"a": {"l": []}}', []),
            "JSON null": ('{"a": {"l": null}}', None),
            "missing": ("{}", None),
            "null": (None, None),
        },
    ),
    *each(
        "json_list",
        "json_list('p', '$.l')",
        "p string",
        {
            "objects": ('{"l": [{"a": 1}, {"b": [2]}]}', ['{"a":1}', '{"b":[2]}']),
            "numbers": ('{"l": [1, null]}', ["1", None]),
            "empty": ('{"l": []}', []),
            "no list": ('{"l": {"a": 1}}', None),
            "missing": ("{}", None),
            "null": (None, None),
        },
    ),
    *each(
        "json_list",
        """json_text(list_at(json_list('p', '$.l'), 1), '$.a')""",
        "p string",
        {"object": ('{"l": [{"a": "x"}]}', "x"), "no object": ('{"l": ["{"]}', None)},
    ),
    *each(
        "list_head",
        "list_head('l', 2)",
        "l array<string>",
        {
            "cut": (["a", "b", "c"], ["a", "b"]),
            "shorter": (["a"], ["a"]),
            "empty": ([], []),
            "null": (None, None),
        },
    ),
    *each(
        "ngrams",
        "ngrams('l', 2)",
        "l array<string>",
        {
            "neighbours": (["a", "b", "c"], ["a b", "b c"]),
            "as long": (["a", "b"], ["a b"]),
            "shorter": (["a"], []),
            "empty": ([], []),
        },
    ),
    *each(
        "list_length",
        "list_length('l')",
        "l array<string>",
        {"nulls count": (["a", None], 2), "empty": ([], 0), "null": (None, None)},
    ),
    *each(
        "list_of",
        """list_of(["x", "upper(x)", "'public'"])""",
        "x string",
        {"in order": ("a", ["a", "A", "public"]), "null element": (None, [None, None, "public"])},
    ),
    Case(
        "list_of",
        "empty, as the default of a list of text",
        "select coalesce(l, {{ list_of([]) }}) as result from input",
        "l array<string>",
        [(None,)],
        [[]],
    ),
    *each(
        "notion_title",
        "notion_title('p')",
        "p string",
        {"the title property": (NOTION_PAGE, "Über Käse"), "null": (None, None)},
    ),
    *each(
        "notion_markdown",
        "notion_markdown('p')",
        "p string",
        {"no blocks": (NOTION_PAGE, ""), "null": (None, None)},
    ),
    *each(
        "google_docs_markdown",
        "google_docs_markdown('p')",
        "p string",
        {"no tabs": ('{"documentId": "d"}', ""), "null": (None, None)},
    ),
    *each(
        "notion_same_text",
        "notion_same_text('p', \"'- **a** b'\")",
        "p string",
        {
            "another bullet": ("* a *b*", True),
            "another word": ("- a c", False),
            "null": (None, None),
        },
    ),
    *each(
        "linear_markdown",
        "linear_markdown('p', keeps_headings=false)",
        "p string",
        {"no heading": ("# Till\r\nis down", "**Till**\nis down"), "null": (None, None)},
    ),
    *each(
        "json_field_list",
        "json_field_list('j', '$.labels.nodes', '$.id')",
        "j string",
        {
            "in order": ('{"labels": {"nodes": [{"id": "b"}, {"id": "a"}]}}', ["b", "a"]),
            "one": ('{"labels": {"nodes": [{"id": "a"}]}}', ["a"]),
            "absent field": ('{"labels": {"nodes": [{"id": "a"}, {"name": "n"}]}}', ["a", None]),
            "null field": ('{"labels": {"nodes": [{"id": null}]}}', [None]),
            "empty": ('{"labels": {"nodes": []}}', []),
            "no list": ('{"labels": null}', None),
            "null": (None, None),
        },
    ),
    *each(
        "json_field_list",
        "json_field_list('j', '$.l', '$.user.id')",
        "j string",
        {"deeper": ('{"l": [{"user": {"id": "u"}}]}', ["u"])},
    ),
    *each(
        "slack_markdown",
        """slack_markdown('p', "'{\\"U1\\": \\"Ana\\"}'")""",
        "p string",
        {"a mention has its name": (SLACK_MESSAGE, "hi @Ana"), "null": (None, None)},
    ),
    *grouped(
        "ordered_string_agg",
        r"ordered_string_agg('v', '\n\n', 'n')",
        "v string, n int",
        {
            "ordered, not as given": ([("b", 2), ("a", 1), ("c", 10)], "a\n\nb\n\nc"),
            "nulls left out": ([("b", 2), (None, 1)], "b"),
            "only nulls": ([(None, 1)], ""),
        },
    ),
    Case(
        "ordered_string_agg",
        "per group",
        "select {{ ordered_string_agg('v', '-', 'n') }} as result from input"
        " group by g order by g nulls last",
        "g string, v string, n string",
        [("y", "d", "2"), ("x", "a", "1"), ("y", "c", "1"), ("x", "b", "10")],
        ["a-b", "c-d"],
    ),
    *each(
        "prefixed_list",
        "prefixed_list('l', 'slack:')",
        "l array<string>",
        {
            "each": (["U1", ""], ["slack:U1", "slack:"]),
            "null element": (["U1", None], ["slack:U1", None]),
            "empty": ([], []),
            "null": (None, None),
        },
    ),
    Case(
        "raw_payload",
        "the row's own, or none",
        "select {{ raw_payload('p', 'u') }} as result from input order by p nulls last",
        "p string, u string",
        [("{}", None), (None, None)],
        ["{}", None],
    ),
    Case(
        "regex",
        "backslashes stay",
        r"select regexp_extract(x, {{ regex('\\](\\()\\s([0-9]{2})') }}, 2) as result from input",
        "x string",
        [("a]( 42",)],
        ["42"],
    ),
    Case(
        "milliseconds_between",
        "whole milliseconds, cut towards zero",
        "select {{ milliseconds_between('a', 'b') }} as result from input order by a nulls last",
        "a timestamp, b timestamp",
        [
            (dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, 0, 0, 1, 2_999)),
            (dt.datetime(2026, 1, 2), dt.datetime(2026, 1, 1, 23, 59, 59, 998_500)),
            (dt.datetime(2026, 1, 3), None),
        ],
        [1_002, -1, None],
    ),
    Case(
        "ordered_list",
        "by another column, nulls kept",
        "select {{ ordered_list('x', '-n') }} as result from input"
        " group by g order by g nulls last",
        "g string, n int, x string",
        [("a", 1, "last"), ("a", 3, "first"), ("a", 2, None), ("b", 1, "alone")],
        [["first", None, "last"], ["alone"]],
    ),
    *each(
        "canonical_text",
        "canonical_text('x')",
        "x string",
        {
            "line ends, blanks, composed letters": ("\n a  \r\nu\u0308\n\n", " a\nü"),
            "null": (None, None),
        },
    ),
    Case(
        "each_element",
        "a row for each, none for an empty list",
        "select {{ each_element('l') }} as result from input",
        "l array<string>",
        [(["a", "b"],), ([],), (["c"],)],
        ["a", "b", "c"],
    ),
    Case(
        "json_texts",
        "in the order of the paths, null where there is none",
        "select {{ json_texts('x', ['$.b', '$.a.c', '$.d']) }} as result from input",
        "x string",
        [('{"a": {"c": 1.5}, "b": "x"}',)],
        [["x", "1.5", None]],
    ),
    Case(
        "window_start",
        "counted from 1970",
        "select {{ window_start('t', 60) }} as result from input order by t nulls last",
        "t timestamp",
        [(MOMENT,), (dt.datetime(1969, 12, 31, 23, 1),), (None,)],
        [dt.datetime(1969, 12, 31, 23), dt.datetime(2026, 10, 1, 23), None],
    ),
    Case(
        "list_append",
        "at the end",
        "select {{ list_append('l', 'x') }} as result from input order by x nulls last",
        "l array<string>, x string",
        [(["a"], "b"), ([], "c"), (None, "d")],
        [["a", "b"], ["c"], None],
    ),
    Case(
        "ratio",
        "of whole numbers",
        "select {{ ratio('a', 'b') }} as result from input order by n nulls last",
        "n int, a int, b int",
        [(1, 1, 2), (2, 1, 0), (3, None, 2)],
        [0.5, None, None],
    ),
    Case(
        "seconds_between",
        "whole seconds, cut towards zero",
        "select {{ seconds_between('a', 'b') }} as result from input order by a nulls last",
        "a timestamp, b timestamp",
        [
            (dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, 0, 0, 1, 999_999)),
            (dt.datetime(2026, 1, 2), dt.datetime(2026, 1, 1, 23, 59, 58, 500_000)),
            (dt.datetime(2026, 1, 3), dt.datetime(2026, 1, 4)),
            (dt.datetime(2026, 1, 4), None),
            (None, dt.datetime(2026, 1, 4)),
        ],
        [1, -1, 86_400, None, None],
    ),
    *each(
        "sha256_hex",
        "sha256_hex('x')",
        "x string",
        {
            "Unicode, of its UTF-8 bytes": ("dü 🦀", hashlib.sha256("dü 🦀".encode()).hexdigest()),
            "empty": ("", hashlib.sha256(b"").hexdigest()),
            "null": (None, None),
        },
    ),
    *each(
        "sorted_list",
        "sorted_list('l')",
        "l array<string>",
        {
            "by code point": (["b", "a", "B", "ä"], ["B", "a", "b", "ä"]),
            "nulls last": ([None, "a"], ["a", None]),
            "empty": ([], []),
            "null": (None, None),
        },
    ),
    Case(
        "unnest_with_position",
        "counted from 1; null and empty lists give no row",
        UNNEST,
        "l array<string>",
        [(["x", "y"],), (None,), ([],)],
        ["1x", "2y"],
    ),
]


def rendered(query: str, engine: str) -> str:
    """The SQL of a query whose macros are dispatched to one engine."""
    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined)
    modules: dict[str, Any] = {}

    class Adapter:
        @staticmethod
        def dispatch(name: str, package: str) -> Any:
            assert package == "loreline"
            return getattr(modules[name], f"{engine}__{name}")

    environment.globals.update({"adapter": Adapter, "return": lambda value: value})
    modules |= {name: environment.get_template(f"{name}.sql").module for name in MACROS}
    environment.globals.update({name: getattr(modules[name], name) for name in MACROS})
    return environment.from_string(query).render()


@pytest.fixture
def lake_functions() -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB with the scalar functions that models call."""
    from loreline.lake.sql_functions import register

    with duckdb.connect() as connection:
        register(connection, Settings())
        yield connection


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """A local Spark with the same scalar functions."""
    from pyspark import sql

    from loreline.knowledge.google_docs_markdown import google_docs_markdown
    from loreline.knowledge.linear_markdown import linear_markdown
    from loreline.knowledge.notion_export import same_text
    from loreline.knowledge.notion_markdown import notion_markdown, notion_title
    from loreline.knowledge.slack_markdown import slack_markdown
    from loreline.knowledge.source_text import canonical_text

    functions = {
        "canonical_text": canonical_text,
        "google_docs_markdown": google_docs_markdown,
        "linear_markdown": linear_markdown,
        "notion_markdown": notion_markdown,
        "notion_same_text": same_text,
        "notion_title": notion_title,
        "slack_markdown": lambda message, names: slack_markdown(message, json.loads(names)),
        "stored_payload": lambda uri: pytest.fail(f"{uri} was asked for"),
    }
    builder = sql.SparkSession.builder.master("local[1]")
    builder = builder.config("spark.sql.session.timeZone", "UTC").config(
        "spark.ui.enabled", "false"
    )
    with pytest.MonkeyPatch.context() as patch:
        # pyspark reads and gives naive times in the zone of its process.
        patch.setenv("TZ", "UTC")
        time.tzset()
        session = builder.getOrCreate()
        for name, function in functions.items():
            session.udf.register(name, null_for_null(function))
        yield session
        session.stop()
    time.tzset()


def null_for_null(function: Callable[..., str]) -> Callable[..., str | None]:
    """A function as SQL has it: DuckDB does this by itself."""
    return lambda *values: None if None in values else function(*values)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_gives_the_stated_result_on_duckdb(
    case: Case, lake_functions: duckdb.DuckDBPyConnection
) -> None:
    columns = case.schema.replace("array<string>", "string[]")
    lake_functions.execute(f"create table input ({columns})")
    if case.rows:
        places = ", ".join("?" for _ in case.rows[0])
        lake_functions.executemany(f"insert into input values ({places})", case.rows)
    found = lake_functions.execute(rendered(case.query, "duckdb")).fetchall()
    assert [case.read(value) for (value,) in found] == case.expected


if importlib.util.find_spec("pyspark"):

    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_gives_the_stated_result_on_spark(case: Case, spark: Any) -> None:
        spark.createDataFrame(case.rows, case.schema).createOrReplaceTempView("input")
        found = spark.sql(rendered(case.query, "spark")).collect()
        assert [case.read(value) for (value,) in found] == case.expected


@pytest.mark.parametrize("name", MACROS)
def test_every_macro_is_written_for_both_engines(name: str) -> None:
    text = Path(FOLDER / f"{name}.sql").read_text()
    defined = jinja2.Environment().from_string(text).module
    assert [engine for engine in ENGINES if hasattr(defined, f"{engine}__{name}")] == [*ENGINES]
    assert text.startswith("{#"), "a macro begins with what it is for"


def test_every_macro_is_tried() -> None:
    assert sorted({case.macro for case in CASES}) == MACROS
