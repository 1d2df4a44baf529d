"""Materializations, tried on a small dbt project with Loreline's own macros and plugin."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import Any

import pyarrow as pa
import pytest
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.cli.main import dbtRunner

from loreline.lake import commits, duck
from loreline.lake.catalog import find_table, load_catalog
from loreline.lake.commits import Writer, locked
from loreline.postgres import connect
from loreline.settings import PROJECT_ROOT, Settings

UPSTREAM = Writer("test", "raw.things", "1")
KILLS = [0, *(pytest.param(i, marks=pytest.mark.soak) for i in range(1, 33))]

PROJECT = f"""
name: loreline
profile: loreline
macro-paths: ["{PROJECT_ROOT / "macros"}"]
flags: {{send_anonymous_usage_stats: false}}
models:
  +database: lake
  +schema: models
  +materialized: table
  +on_schema_change: append_new_columns
seeds: {{+database: lake, +schema: models}}
"""

SOURCES = """
sources:
  - name: raw
    database: lake
    schema: "{{ env_var('LORELINE_NAMESPACE') }}_raw"
    tables: [{name: things}, {name: others}]
"""

APPEND = """
    {{ config(materialized="incremental", unique_key="id") }}
    select id, name from {{ source("raw", "things") }}
    where {{ newer_than_watermark(source("raw", "things")) }}
"""

MERGE = """
    {{ config(materialized="incremental", incremental_strategy="merge", unique_key="id") }}
    select id, name, score from {{ source("raw", "things") }}
    where {{ newer_than_watermark(source("raw", "things")) }}
"""


@dataclass
class Project:
    """A dbt project of one test, and what its models have made."""

    folder: Path
    settings: Settings

    def write(self, path: str, text: str) -> None:
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text).lstrip())

    def arguments(self, *command: str) -> list[str]:
        folders = ["--project-dir", str(self.folder), "--profiles-dir", str(PROJECT_ROOT)]
        return [*command, *folders, "--quiet"]

    def dbt(self, *command: str) -> dict[str, str]:
        """Run dbt in this process; gives each node's message, and `error:` before a failure's."""
        result = dbtRunner().invoke(self.arguments(*command))
        assert result.exception is None, result.exception
        messages = {}
        for outcome in result.result:
            failed = outcome.status in ("error", "fail", "runtime error", "skipped")
            messages[outcome.node.name] = "error: " * failed + str(outcome.message)
        return messages

    def run(self, *options: str) -> str:
        """Run one model and give its message."""
        messages = self.dbt("run", *options)
        assert len(messages) == 1
        return next(iter(messages.values()))

    def start(self, *command: str, **environment: str) -> subprocess.Popen:
        """Run dbt as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "dbt.cli.main", *self.arguments(*command)],
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def land(self, source: str = "things", /, **columns: list) -> int:
        """Append rows to a source; gives their `_batch`."""
        table = f"{self.settings.prefix}raw.{source}"
        commit = commits.append(self.settings, table, _table(columns), writer=UPSTREAM)
        assert commit
        return commit.batch

    def table(self, name: str = "model") -> str:
        return f"{self.settings.prefix}models.{name}"

    def rows(self, columns: str = "*", name: str = "model", at: int | None = None) -> list[tuple]:
        version = f" at (version => {at})" if at else ""
        hidden = "exclude (_batch, _code_version)" if columns == "*" else ""
        with duck.connect(self.settings) as connection:
            query = f"select {columns} {hidden} from lake.{self.table(name)}{version} order by all"
            return connection.execute(query).fetchall()

    def snapshots(self, name: str = "model") -> list[int]:
        table = find_table(load_catalog(self.settings), self.table(name))
        return [snapshot.snapshot_id for snapshot in table.snapshots()] if table else []

    def commit_count(self) -> int:
        with connect(self.settings) as connection:
            statement = f"select count(*) from {self.settings.prefix}operations.commits"
            return connection.execute(statement).fetchone()[0]

    def watermarks(self, name: str = "model") -> dict[tuple[str, str], int]:
        with connect(self.settings) as connection:
            statement = (
                "select upstream, variant, last_batch"
                f" from {self.settings.prefix}operations.watermarks where model = %s"
            )
            rows = connection.execute(statement, (self.table(name),)).fetchall()
        prefix = self.settings.prefix
        return {(upstream.removeprefix(prefix), variant): n for upstream, variant, n in rows}


@pytest.fixture(scope="module")
def project_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all tests: dbt parses the macros once, then only what a test has written."""
    return tmp_path_factory.mktemp("project")


@pytest.fixture
def project(settings: Settings, project_folder: Path) -> Iterator[Project]:
    for folder in ("models", "seeds"):
        shutil.rmtree(project_folder / folder, ignore_errors=True)
    project = Project(project_folder, settings)
    project.write("dbt_project.yml", PROJECT)
    project.write("models/sources.yml", SOURCES)
    yield project
    # dbt-duckdb keeps the plugin, and with it the settings of this test, for the whole process.
    DuckDBConnectionManager.close_all_connections()


def _table(columns: dict[str, list]) -> pa.Table:
    types = {"id": pa.int64(), "name": pa.string(), "score": pa.float64()}
    return pa.table({k: pa.array(v, types.get(k)) for k, v in columns.items()})


# table


def test_a_table_is_written_when_its_content_changes(project: Project) -> None:
    project.write("models/model.sql", "select 1 as id, 'a' as name union all select 2, null")
    assert project.run() == "2 rows"
    first = project.snapshots()
    assert project.run() == "nothing changed"
    assert project.snapshots() == first

    # Another text and another order, the same rows.
    project.write("models/model.sql", "select 2 as id, null as name union all select 1, 'a'")
    assert project.run() == "nothing changed"

    project.write("models/model.sql", "select 1 as id, 'b' as name union all select 1, 'b'")
    assert project.run() == "2 rows"
    assert len(project.snapshots()) == 2
    assert project.rows() == [(1, "b"), (1, "b")]
    assert project.rows(at=first[0]) == [(1, "a"), (2, None)]


def test_a_table_follows_its_models_columns(project: Project) -> None:
    project.write("models/model.sql", "select 1 as id, 'a' as name, 1 as score")
    project.run()
    project.write("models/model.sql", "select 'one' as id, 1.5 as score, true as is_new")
    assert project.run() == "1 rows"
    assert project.rows() == [("one", 1.5, True)]
    assert project.rows("id, name, score", at=project.snapshots()[0]) == [(1, "a", 1)]
    assert project.run() == "nothing changed"


def test_a_python_table_may_be_arrow_pandas_or_a_relation(project: Project) -> None:
    for result in (
        'pa.table({"id": [1, 2], "name": ["a", None]})',
        'pa.table({"id": [1, 2], "name": ["a", None]}).to_pandas()',
        "session.sql(\"select 2 as id, null as name union all select 1, 'a'\")",
    ):
        project.write(
            "models/model.py",
            f"""
            import pyarrow as pa

            def model(dbt, session):
                dbt.config(materialized="table")
                return {result}
            """,
        )
        project.run()
        assert project.rows() == [(1, "a"), (2, None)], result
    assert project.run() == "nothing changed"


def test_names_and_types_of_any_kind(project: Project) -> None:
    project.write(
        "models/model.sql",
        """
        {{ config(unique_key="order") }}
        select
            1 as "order",
            'x' as "Group By",
            [1.5, 'nan'::double, null] as numbers,
            {'a': 1, 'b': [true]} as pair,
            map {'k': 1} as mapping,
            12345678901234567890123456789.123456789::decimal(38, 9) as amount,
            sum(5) as total,
            'ab'::blob as bytes,
            date '2026-01-02' as day,
            timestamp '2026-01-02 03:04:05.678901' as at,
            timestamptz '2026-01-02 03:04:05+02' as instant,
            '{"a": 1}'::json as payload,
            cast(3 as tinyint) as small
        """,
    )
    assert project.run() == "1 rows"
    assert project.run() == "nothing changed"
    [row] = project.rows('"order", "Group By", pair, mapping, amount, total, bytes, payload, small')
    assert row[:4] == (1, "x", {"a": 1, "b": [True]}, {"k": 1})
    assert str(row[4]) == "12345678901234567890123456789.123456789"
    assert row[5:] == (5, b"ab", '{"a": 1}', 3)

    project.write("models/model.sql", "select 1 as id, interval 1 day as lapse")
    message = project.run()
    assert "lapse" in message and "cast the column" in message
    assert len(project.snapshots()) == 1


# seed


def test_a_seed_is_written_when_its_content_changes(project: Project) -> None:
    project.write(
        "seeds/model.csv", 'code,label,weight\\n007,"a; b",1\\n008,,2.5\\n'.replace("\\n", "\n")
    )
    project.write(
        "seeds/seeds.yml", "seeds: [{name: model, config: {column_types: {code: varchar}}}]"
    )
    project.dbt("seed")
    first = project.snapshots()
    assert project.rows() == [("007", "a; b", 1.0), ("008", None, 2.5)]
    project.dbt("seed")
    assert project.snapshots() == first
    project.write("seeds/model.csv", "code,label,weight\n")
    project.dbt("seed", "--full-refresh")
    assert project.rows() == []
    assert len(project.snapshots()) == 2


def test_a_seed_of_one_column_is_not_taken_apart(project: Project) -> None:
    project.write("seeds/model.csv", "text\na;b\nc;d\n")
    project.dbt("seed")
    assert project.rows() == [("a;b",), ("c;d",)]


# incremental, append


def test_an_append_reads_what_is_new(project: Project) -> None:
    project.write("models/model.sql", APPEND)
    first = project.land(id=[1, 2], name=["a", "b"])
    assert project.run() == "2 rows"
    assert project.watermarks() == {("raw.things", ""): first}
    before = project.snapshots()
    assert project.run() == "nothing changed"
    assert project.snapshots() == before

    second = project.land(id=[3], name=["c"])
    assert project.run() == "1 rows"
    assert project.rows() == [(1, "a"), (2, "b"), (3, "c")]
    assert project.snapshots()[:-1] == before
    assert project.watermarks() == {("raw.things", ""): second}
    assert [n for (n,) in project.rows("_batch")] == sorted(n for (n,) in project.rows("_batch"))


def test_an_append_reads_up_to_a_bound_that_is_fixed_beforehand(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that land while the model runs are for its next run, all of them."""
    project.write("models/model.sql", APPEND)
    project.land(id=[1], name=["a"])
    project.run()
    project.land(id=[2], name=["b"])
    from loreline.lake import materialize

    check = materialize._check_contract
    late = iter([3])

    def land_meanwhile(*arguments: Any) -> None:
        for value in late:
            project.land(id=[value], name=["late"])
        check(*arguments)

    monkeypatch.setattr(materialize, "_check_contract", land_meanwhile)
    assert project.run() == "1 rows"
    assert project.rows("id") == [(1,), (2,)]
    assert project.run() == "1 rows"
    assert project.rows("id") == [(1,), (2,), (3,)]


def test_an_upstream_that_is_written_anew_doubles_nothing(project: Project) -> None:
    project.write("models/model.sql", APPEND)
    project.land(id=[1, 2], name=["a", "b"])
    project.run()
    with locked(project.settings, f"{project.settings.prefix}raw.things") as table:
        table.overwrite(_table({"id": [1, 2, 3], "name": ["a", "b", "c"]}), UPSTREAM)
    assert project.run() == "1 rows"
    assert project.rows() == [(1, "a"), (2, "b"), (3, "c")]


def test_an_upstream_that_never_changes_does_not_make_the_run_look_back(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only keys since the last run are compared, whatever other upstreams there are."""
    project.write(
        "models/model.sql",
        APPEND
        + """
        union all
        select id, name from {{ source("raw", "others") }}
        where {{ newer_than_watermark(source("raw", "others")) }}
        """,
    )
    project.land("others", id=[0], name=["seldom"])
    project.land(id=[1], name=["a"])
    project.run()
    low = project.land(id=[2], name=["b"])
    project.run()
    project.land(id=[3], name=["c"])
    from loreline.lake.materialize import Reading

    since = []
    earliest = Reading.earliest_repeat
    monkeypatch.setattr(
        Reading, "earliest_repeat", lambda self: since.append(earliest(self)) or since[-1]
    )
    project.run()
    assert since == [low]
    assert project.rows("id") == [(0,), (1,), (2,), (3,)]


def test_an_append_refuses_keys_that_repeat_or_are_null(project: Project) -> None:
    project.write("models/model.sql", APPEND)
    project.land(id=[1], name=["a"])
    project.run()
    before = project.snapshots()
    project.land(id=[2, 2], name=["b", "c"])
    message = project.run()
    assert "several rows for id = (2,)" in message
    assert "the table is as it was" in message
    assert project.snapshots() == before
    project.write("models/model.sql", APPEND.replace("select id", "select nullif(id, 2) as id"))
    assert "id is null" in project.run()
    assert project.snapshots() == before


def test_an_append_may_be_partitioned(project: Project) -> None:
    project.write(
        "models/model.sql",
        """
        {{ config(
            materialized="incremental", unique_key="id", partition_by=["name", "month(at)"]
        ) }}
        select id, name, timestamp '2026-01-31' + interval (id) day as at
        from {{ source("raw", "things") }}
        where {{ newer_than_watermark(source("raw", "things")) }}
        """,
    )
    project.land(id=[0, 1, 2], name=["a", "a", None])
    project.run()
    project.land(id=[3], name=["a"])
    project.run()
    assert project.rows("id, name") == [(0, "a"), (1, "a"), (2, None), (3, "a")]
    table = find_table(load_catalog(project.settings), project.table())
    assert table and [f.name for f in table.spec().fields] == ["name", "at_month"]
    partitions = table.inspect.partitions()["partition"].to_pylist()
    assert sorted((str(p["name"]), p["at_month"]) for p in partitions) == [
        ("None", 673),
        ("a", 672),
        ("a", 673),
    ]

    text = (project.folder / "models/model.sql").read_text()
    project.write("models/model.sql", text.replace('"month(at)"', '"bucket(id, 4)"'))
    before = project.snapshots()
    assert project.run("--full-refresh") == "4 rows"
    table = find_table(load_catalog(project.settings), project.table())
    assert table and [f.name for f in table.spec().fields] == ["name", "id_bucket"]
    assert project.rows("id, name") == [(0, "a"), (1, "a"), (2, None), (3, "a")]
    assert [row[0] for row in project.rows("id", at=before[0])] == [0, 1, 2]


# incremental, merge


def test_a_merge_inserts_updates_and_else_does_nothing(project: Project) -> None:
    project.write("models/model.sql", MERGE)
    project.land(id=[1, 2, 3], name=["a", "b", None], score=[1.0, None, 3.0])
    assert project.run() == "3 rows"
    first = dict(project.rows("id, _batch"))
    before = project.snapshots()

    # The same rows anew, a null among them.
    project.land(id=[1, 2, 3], name=["a", "b", None], score=[1.0, None, 3.0])
    assert project.run() == "nothing changed"
    assert project.snapshots() == before

    # To null, from null, and a new key.
    project.land(id=[1, 2, 4], name=[None, "b", "d"], score=[1.0, 2.0, 4.0])
    assert project.run() == "3 rows"
    assert project.rows() == [(1, None, 1.0), (2, "b", 2.0), (3, None, 3.0), (4, "d", 4.0)]
    last = dict(project.rows("id, _batch"))
    assert last[3] == first[3]
    assert len({last[1], last[2], last[4]}) == 1
    assert last[1] > first[1]
    assert project.rows(at=before[-1]) == [(1, "a", 1.0), (2, "b", None), (3, None, 3.0)]
    # DuckDB commits the updates and the inserts at once, as two snapshots.
    with connect(project.settings) as connection:
        statement = (
            f"select sum(rows) from {project.settings.prefix}operations.commits"
            " where table_name = %s and operation = 'merge'"
        )
        assert connection.execute(statement, (project.table(),)).fetchone() == (3,)


def test_a_merge_of_new_keys_alone_is_one_append(project: Project) -> None:
    project.write("models/model.sql", MERGE.replace('="id"', '=["id", "name"]'))
    project.land(id=[1, 1], name=["a", "b"], score=[1.0, None])
    project.run()
    before = project.snapshots()

    # Each part of the new keys is known, and one row comes again as it was.
    project.land(id=[1, 2, 3], name=["b", "a", "b"], score=[None, 2.0, 3.0])
    assert project.run() == "2 rows"
    assert len(project.snapshots()) == len(before) + 1
    assert project.rows() == [(1, "a", 1.0), (1, "b", None), (2, "a", 2.0), (3, "b", 3.0)]

    project.land(id=[1, 2], name=["a", "b"], score=[None, 4.0])
    assert project.run() == "2 rows"
    assert project.rows()[0] == (1, "a", None)
    assert len(project.rows()) == 5


def test_a_merge_into_a_partitioned_table(project: Project) -> None:
    project.write("models/model.sql", MERGE.replace("config(", 'config(partition_by=["name"], '))
    project.land(id=[1, 2], name=["a b", "é/%"], score=[1.0, 2.0])
    project.run()
    project.land(id=[1, 2, 3], name=["c", "é/%", "a b"], score=[1.0, 2.5, 3.0])
    assert project.run() == "3 rows"
    assert project.rows() == [(1, "c", 1.0), (2, "é/%", 2.5), (3, "a b", 3.0)]


def test_a_merge_refuses_keys_that_repeat_or_are_null(project: Project) -> None:
    project.write("models/model.sql", MERGE)
    project.land(id=[1], name=["a"], score=[None])
    project.run()
    before = project.snapshots()
    for ids, cause in (([1, 1], "several rows for id = (1,)"), ([None, 5], "id is null")):
        project.land(id=ids, name=["x", "y"], score=[0.0, 0.0])
        message = project.run()
        assert cause in message and "the table is as it was" in message
        assert project.snapshots() == before
        assert project.rows() == [(1, "a", None)]


def test_a_downstream_of_a_merge_reads_the_rows_that_changed(project: Project) -> None:
    project.write("models/model.sql", MERGE)
    project.write(
        "models/after.sql",
        """
        {{ config(materialized="incremental", incremental_strategy="merge", unique_key="id") }}
        select id, upper(name) as name from {{ ref("model") }}
        where {{ newer_than_watermark(ref("model")) }}
        """,
    )
    project.land(id=[1, 2], name=["a", "b"], score=[0.0, 0.0])
    assert project.dbt("run") == {"model": "2 rows", "after": "2 rows"}
    project.land(id=[2, 3], name=["x", "c"], score=[0.0, 0.0])
    assert project.dbt("run") == {"model": "2 rows", "after": "2 rows"}
    assert project.rows(name="after") == [(1, "A"), (2, "X"), (3, "C")]
    assert project.dbt("run") == {"model": "nothing changed", "after": "nothing changed"}


# --full-refresh, --empty


@pytest.mark.parametrize("sql", [APPEND, MERGE.replace(", score", "")])
def test_a_full_refresh_is_one_overwrite_that_keeps_the_history(project: Project, sql: str) -> None:
    project.write("models/model.sql", sql)
    project.land(id=[1, 2], name=["a", "b"])
    project.run()
    project.write(
        "models/model.sql", sql.replace("select id, name", "select id, name || '!' as name")
    )
    last = project.land(id=[3], name=["c"])
    before = project.snapshots()
    assert project.run("--full-refresh") == "3 rows"
    assert project.rows() == [(1, "a!"), (2, "b!"), (3, "c!")]
    assert project.snapshots()[:-1] == before
    assert project.rows(at=before[-1]) == [(1, "a"), (2, "b")]
    assert project.watermarks() == {("raw.things", ""): last}
    assert project.run() == "nothing changed"


def test_empty_reads_nothing_and_remembers_nothing(project: Project) -> None:
    project.write("models/model.sql", APPEND)
    project.land(id=[1], name=["a"])
    project.run("--empty")
    assert project.rows() == []
    assert project.watermarks() == {}
    assert project.run() == "1 rows"
    project.land(id=[2], name=["b"])
    assert project.run("--empty") == "nothing changed"
    assert project.rows() == [(1, "a")]
    assert project.run() == "1 rows"
    project.run("--empty", "--full-refresh")
    assert project.rows() == []
    assert project.run() == "2 rows"
    assert project.rows() == [(1, "a"), (2, "b")]


# contracts and schema changes

CONTRACT = """
models:
  - name: model
    config: {contract: {enforced: true}}
    columns:
      - {name: id, data_type: bigint, constraints: [{type: not_null}]}
      - {name: name, data_type: varchar}
"""


@pytest.mark.parametrize(
    ("columns", "fault"),
    [
        ("1::bigint as id", "name: declared VARCHAR, is missing"),
        ("1 as id, 'a' as name", "id: declared BIGINT, is INTEGER"),
        ("null::bigint as id, 'a' as name", "id: 1 rows are null"),
        ("1::bigint as id, 'a' as name, 1 as extra", "extra: declared not at all, is INTEGER"),
    ],
)
@pytest.mark.parametrize("materialized", ["table", "incremental"])
def test_a_broken_contract_leaves_the_table_untouched(
    project: Project, columns: str, fault: str, materialized: str
) -> None:
    config = f'{{{{ config(materialized="{materialized}") }}}} '
    project.write("models/contract.yml", CONTRACT)
    project.write("models/model.sql", f"{config} select 7::bigint as id, 'a' as name")
    assert project.run() == "1 rows"
    before = project.snapshots()
    project.write("models/model.sql", f"{config} select {columns}")
    message = project.run()
    assert message.startswith("error: ")
    assert fault in message
    assert project.snapshots() == before
    assert project.rows() == [(7, "a")]


@pytest.mark.parametrize("strategy", ["append", "merge"])
def test_new_and_missing_columns(project: Project, strategy: str) -> None:
    def model(columns: str, on_schema_change: str = "") -> None:
        change = f', on_schema_change="{on_schema_change}"' if on_schema_change else ""
        project.write(
            "models/model.sql",
            f"""
            {{{{ config(materialized="incremental", incremental_strategy="{strategy}",
                unique_key="id"{change}) }}}}
            select {columns} from {{{{ source("raw", "things") }}}}
            where {{{{ newer_than_watermark(source("raw", "things")) }}}}
            """,
        )

    model("id, name")
    project.land(id=[1], name=["a"])
    project.run()
    before = project.snapshots()

    project.land(id=[2], name=["b"])
    model("id, name, id * 0.5 as half", "fail")
    message = project.run()
    assert "half" in message and "--full-refresh" in message
    assert project.snapshots() == before

    model("id, name, id * 0.5 as half", "ignore")
    project.run()
    assert project.rows() == [(1, "a"), (2, "b")]

    project.land(id=[3], name=["c"])
    model("id, id * 0.5 as half")
    project.run()
    assert project.rows("id, name, half::double") == [
        (1, "a", None),
        (2, "b", None),
        (3, None, 1.5),
    ]

    # A column that changes its type needs a decision.
    before = project.snapshots()
    project.land(id=[4], name=["d"])
    model("id, 'half' as half")
    message = project.run()
    assert "half" in message and "--full-refresh" in message
    assert project.snapshots() == before
    assert project.run("--full-refresh") == "4 rows"
    assert project.rows("id, half") == [(i, "half") for i in (1, 2, 3, 4)]


# Python models that append

BATCHES = """
    import os, signal
    import pyarrow as pa
    from loreline.dbt_plugin import new_rows, reader

    def model(dbt, session):
        dbt.config(materialized="incremental", unique_key="id")
        schema = pa.schema([("id", pa.int64()), ("name", pa.string())])
        unread = new_rows(dbt.source("raw", "things"))
        return reader(schema, batches(session, unread, schema))

    def batches(session, unread, schema):
        unread.create_view("unread", replace=True)
        found = session.execute("select id, name from unread order by id")
        made = 0
        while rows := found.fetchmany(2):
            if made == int(os.environ.get("KILLED_AFTER", -1)):
                os.kill(os.getpid(), signal.SIGKILL)
            yield pa.RecordBatch.from_pylist([dict(zip(schema.names, r)) for r in rows], schema)
            made += 1
"""


def test_each_batch_of_a_python_model_is_a_snapshot(project: Project) -> None:
    project.write("models/model.py", BATCHES)
    last = project.land(id=[1, 2, 3, 4, 5], name=list("abcde"))
    assert project.run() == "5 rows in 3 commits"
    assert len(project.snapshots()) == 3
    assert [len(project.rows(at=snapshot)) for snapshot in project.snapshots()] == [2, 4, 5]
    assert project.watermarks() == {("raw.things", ""): last}
    assert project.run() == "nothing changed"
    project.land(id=[6, 7, 8], name=list("fgh"))
    assert project.run() == "3 rows in 2 commits"
    assert project.rows() == list(zip(range(1, 9), "abcdefgh", strict=True))
    assert project.run("--full-refresh") == "8 rows in 1 commits"
    assert project.rows() == list(zip(range(1, 9), "abcdefgh", strict=True))


def test_a_python_model_that_is_killed_goes_on_where_it_was(project: Project) -> None:
    project.write("models/model.py", BATCHES)
    expected = list(zip(range(1, 10), "abcdefghi", strict=True))
    project.land(id=[1, 2, 3, 4, 5], name=list("abcde"))
    assert project.start("run", KILLED_AFTER="2").wait(60) == -signal.SIGKILL
    assert project.rows() == expected[:4]
    project.land(id=[6], name=["f"])
    assert project.run() == "2 rows in 1 commits"
    assert project.rows() == expected[:6]

    project.land(id=[7, 8, 9], name=list("ghi"))
    assert project.start("run", KILLED_AFTER="1").wait(60) == -signal.SIGKILL
    assert project.rows() == expected[:8]
    assert project.run() == "1 rows in 1 commits"
    assert project.rows() == expected
    assert project.run() == "nothing changed"


def test_batches_need_a_key(project: Project) -> None:
    project.write("models/model.py", BATCHES.replace(', unique_key="id"', ""))
    project.land(id=[1], name=["a"])
    assert "unique_key" in project.run()
    assert project.snapshots() == []


@pytest.mark.parametrize("result", ["unread", "unread.to_arrow_table()"])
def test_a_python_model_that_gives_a_table_remembers_what_it_read(
    project: Project, result: str
) -> None:
    project.write(
        "models/model.py",
        f"""
        from loreline.dbt_plugin import new_rows

        def model(dbt, session):
            dbt.config(materialized="incremental")
            unread = new_rows(dbt.source("raw", "things")).project("id, name")
            return {result}
        """,
    )
    project.land(id=[1, 2], name=["a", "b"])
    assert project.run() == "2 rows"
    assert project.run() == "nothing changed"
    last = project.land(id=[3], name=["c"])
    assert project.run() == "1 rows"
    assert project.rows() == [(1, "a"), (2, "b"), (3, "c")]
    assert project.watermarks() == {("raw.things", ""): last}


def test_each_variant_has_a_watermark_of_its_own(project: Project) -> None:
    project.write("seeds/variants.csv", "variant\nv1\n")
    project.write(
        "models/model.py",
        """
        import pyarrow as pa
        from loreline.dbt_plugin import new_rows, reader

        SCHEMA = pa.schema([("id", pa.int64()), ("variant", pa.string())])

        def model(dbt, session):
            dbt.config(materialized="incremental", unique_key=["id", "variant"])
            variants = [row[0] for row in dbt.ref("variants").fetchall()]
            return reader(SCHEMA, batches(dbt, dbt.source("raw", "things"), variants))

        def batches(dbt, things, variants):
            for variant in variants:
                ids = [row[0] for row in new_rows(things, variant=variant).project("id").fetchall()]
                yield pa.RecordBatch.from_pydict(
                    {"id": ids, "variant": [variant] * len(ids)}, SCHEMA
                )
        """,
    )
    first = project.land(id=[1, 2], name=["a", "b"])
    project.dbt("build")
    assert project.watermarks() == {("raw.things", "v1"): first}
    project.write("seeds/variants.csv", "variant\nv1\nv2\n")
    second = project.land(id=[3], name=["c"])
    assert project.dbt("build")["model"] == "4 rows in 2 commits"
    assert project.rows() == [(1, "v1"), (1, "v2"), (2, "v1"), (2, "v2"), (3, "v1"), (3, "v2")]
    assert project.watermarks() == {("raw.things", "v1"): second, ("raw.things", "v2"): second}


# builds that race, fail or are killed


def test_two_builds_at_once_double_nothing(project: Project) -> None:
    """They race for tables that are there, and for tables that neither has found."""
    models = {
        "appended.sql": APPEND,
        "merged.sql": MERGE.replace(", score", ""),
        "batched.py": BATCHES,
        "whole.sql": 'select id, name from {{ source("raw", "things") }}',
    }
    for file, text in models.items():
        project.write(f"models/{file}", text)
    project.land(id=[1, 2, 3], name=list("abc"))
    project.dbt("run")
    for file, text in models.items():
        project.write(f"models/new_{file}", text)
    project.land(id=[4, 5, 6], name=list("def"))
    processes = []
    for target in ("target-1", "target-2"):
        shutil.copytree(project.folder / "target", project.folder / target, dirs_exist_ok=True)
        processes.append(project.start("run", "--target-path", target))
    assert [process.wait(120) for process in processes] == [0, 0]
    for prefix, file in itertools.product(("", "new_"), models):
        name = prefix + file.partition(".")[0]
        assert [i for (i,) in project.rows("id", name)] == [1, 2, 3, 4, 5, 6], name


def test_a_failing_model_frees_its_lock(project: Project) -> None:
    project.write("models/model.sql", "select error('on purpose') as id")
    assert "on purpose" in project.run()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: locked(project.settings, project.table()).__enter__()).result(10)


@pytest.mark.parametrize("round_", KILLS)
def test_a_build_that_is_killed_anywhere_ends_like_an_undisturbed_one(
    project: Project, round_: int
) -> None:
    chance = random.Random(round_)
    names = ("appended", "merged", "batched")
    project.write("models/appended.sql", APPEND)
    project.write("models/merged.sql", MERGE.replace(", score", ""))
    project.write("models/batched.py", BATCHES)
    rows = [(i, str(i)) for i in range(30)]
    project.land(id=[i for i, _ in rows[:20]], name=[n for _, n in rows[:20]])
    if round_ % 3:
        project.dbt("run")
    project.land(id=[i for i, _ in rows[20:]], name=[n for _, n in rows[20:]])

    killed = project.start("run")
    before, commits_before = project.commit_count(), chance.randrange(0, 7)
    while killed.poll() is None and project.commit_count() < before + commits_before:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.1))
    killed.kill()
    killed.wait()

    for name in names:
        assert set(project.rows(name=name) if project.snapshots(name) else []) <= set(rows)
    project.dbt("run")
    for name in names:
        assert project.rows(name=name) == rows, name
    assert set(project.dbt("run").values()) == {"nothing changed"}


# dbt unit tests


def test_unit_tests_work_before_the_table_exists(project: Project) -> None:
    project.write("models/model.sql", APPEND)
    project.write(
        "models/unit_tests.yml",
        """
        unit_tests:
          - name: names_are_kept
            model: model
            given:
              - input: source('raw', 'things')
                rows: [{id: 1, name: a}]
            expect:
              rows: [{id: 1, name: a}]
          - name: ids_are_not_made_up
            model: model
            given:
              - input: source('raw', 'things')
                rows: [{id: 1, name: a}]
            expect:
              rows: [{id: 2, name: a}]
        """,
    )
    project.land(id=[1], name=["a"])
    messages = project.dbt("test", "--select", "test_type:unit")
    assert not messages["names_are_kept"].startswith("error")
    assert messages["ids_are_not_made_up"].startswith("error")
    assert project.snapshots() == []
    assert project.dbt("build", "--exclude", "ids_are_not_made_up")["model"] == "1 rows"
