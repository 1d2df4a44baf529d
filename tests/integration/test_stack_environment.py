"""What other programs are handed: read-only DuckDB, and the findings of the doctor."""

import dataclasses
import json
import subprocess
import sys

import psycopg
import pyarrow as pa
import pytest
from pyarrow.fs import S3FileSystem
from pyiceberg.exceptions import NoSuchTableError, RESTError

from loreline import postgres
from loreline.lake.catalog import load_catalog
from loreline.stack import doctor
from loreline.stack.doctor import checks
from loreline.stack.environment import duckdb_init

# Another process, as an analyst's would be: nothing of Loreline is imported in it.
ANALYST = """
import json, sys
import duckdb
connection = duckdb.connect()
connection.execute(sys.stdin.read())
answers = []
for statement in sys.argv[1:]:
    try:
        answers.append(connection.execute(statement).fetchall())
    except duckdb.Error as error:
        answers.append(str(error))
json.dump(answers, sys.stdout)
"""


@pytest.fixture
def table(settings):
    """The name of a table in the lake that holds one row."""
    catalog = load_catalog(settings)
    catalog.create_namespace(f"{settings.prefix}knowledge")
    rows = pa.table({"id": pa.array([7], pa.int64())})
    name = f"{settings.prefix}knowledge.documents"
    catalog.create_table(name, rows.schema).append(rows)
    return name


def as_analyst(settings, *statements):
    done = subprocess.run(
        [sys.executable, "-c", ANALYST, *statements],
        input=duckdb_init(settings),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_any_duckdb_reads_both_stores_and_writes_neither(settings, table):
    migrations = f"pg.{settings.prefix}operations.schema_migrations"
    read = as_analyst(
        settings, f"from lake.{table}", f"select version from {migrations} order by version limit 1"
    )
    assert read == [[[7]], [[1]]]

    answers = as_analyst(
        settings,
        f"insert into lake.{table} values (8)",
        f"drop table lake.{table}",
        f"create schema lake.{settings.prefix}more",
        f"delete from {migrations}",
        f"call postgres_execute('pg', 'drop schema {settings.prefix}operations cascade')",
    )
    for answer in answers:
        assert "read-only" in answer or "READ ONLY" in answer or "permission" in answer, answer
    assert as_analyst(settings, f"from lake.{table}") == [[[7]]]


def test_what_an_analyst_is_given_holds_no_credential_that_writes(settings):
    sql = duckdb_init(settings)
    for name in ("catalog_credential", "s3_secret_access_key", "postgres_url"):
        assert getattr(settings, name) not in sql
        assert getattr(settings.as_reader(), name) != getattr(settings, name)


def test_the_stores_themselves_refuse_a_reader(settings, table):
    reader = settings.as_reader()
    catalog = load_catalog(reader)
    assert catalog.load_table(table).scan().to_arrow()["id"].to_pylist() == [7]
    with pytest.raises(RESTError):
        catalog.create_namespace(f"{settings.prefix}more")
    with pytest.raises(NoSuchTableError):  # what the catalog says to whom it does not concern
        catalog.drop_table(table)
    with pytest.raises(RESTError):
        catalog.load_table(table).transaction().set_properties(a="b").commit_transaction()
    assert "a" not in load_catalog(settings).load_table(table).properties

    store = S3FileSystem(
        endpoint_override=reader.s3_endpoint,
        region=reader.s3_region,
        access_key=reader.s3_access_key_id,
        secret_key=reader.s3_secret_access_key,
    )
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        store.open_output_stream("landing/x").close()
    data_file = next(iter(catalog.load_table(table).inspect.files()["file_path"])).as_py()
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        store.delete_file(data_file.removeprefix("s3://"))
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction), postgres.connect(reader) as pg:
        pg.execute(f"delete from {settings.prefix}operations.commits")


def test_the_doctor_finds_a_running_stack_healthy(settings):
    findings = checks(settings)
    assert [finding for finding in findings if not finding.ok] == []
    assert all(finding.detail for finding in findings)


@pytest.mark.parametrize(
    ("change", "failing", "next_step"),
    [
        ({"s3_endpoint": "http://127.0.0.1:1"}, {"object store"}, "LORELINE_S3_"),
        ({"s3_secret_access_key": "wrong"}, {"object store"}, "LORELINE_S3_"),
        ({"landing_url": "s3://lake"}, {"object store"}, "LORELINE_LANDING_URL"),
        ({"catalog_uri": "http://127.0.0.1:1"}, {"Iceberg catalog"}, "LORELINE_CATALOG_URI"),
        ({"catalog_credential": "a:b"}, {"Iceberg catalog"}, "LORELINE_CATALOG_"),
        (
            {"postgres_url": "postgresql://x@127.0.0.1:1/x"},
            {"Postgres", "schema", "clock"},
            "LORELINE_POSTGRES_URL",
        ),
        ({"namespace_suffix": "nobody"}, {"schema"}, "loreline upgrade"),
    ],
)
def test_the_doctor_names_what_is_wrong(settings, change, failing, next_step):
    findings = [f for f in checks(dataclasses.replace(settings, **change)) if not f.ok]
    assert {finding.name for finding in findings} == failing
    for finding in findings:
        assert next_step in finding.next_step
        assert "\n" not in finding.detail
        assert settings.s3_secret_access_key not in finding.detail


def test_the_doctor_names_a_model_that_is_not_there(settings, tmp_path, monkeypatch):
    seed = tmp_path / "embedding_models.csv"
    seed.write_text("model,status\nnobody/has-this,served\nnor/that,candidate\n")
    monkeypatch.setattr(doctor, "EMBEDDING_MODELS", seed)
    [finding] = [finding for finding in checks(settings) if not finding.ok]
    assert finding.detail == "nobody/has-this not on this machine"
    (tmp_path / "nobody" / "has-this").mkdir(parents=True)
    here = dataclasses.replace(settings, model_path=str(tmp_path))
    assert all(finding.ok for finding in checks(here))
