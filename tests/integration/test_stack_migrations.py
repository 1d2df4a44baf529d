"""Versioned migrations: applied once, in order, and nothing unknown is worked with."""

import dataclasses
import threading

import psycopg
import pytest

from loreline import postgres
from loreline.errors import LorelineError
from loreline.postgres import check_schema, connect, upgrade

FIRST = "create table {prefix}operations.first (id integer);"
# Bodies of functions have braces, percent signs and dollar quotes of their own.
SECOND = """
create schema {prefix}serving;
create function {prefix}serving.greeting() returns text language sql as
$$ select format('%s {}', 'one hundred %') $$;
"""


@pytest.fixture
def fresh(settings):
    """Settings of a namespace that no migration has been applied to."""
    return dataclasses.replace(settings, namespace_suffix=f"{settings.namespace_suffix}_fresh")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_first.sql").write_text(FIRST)
    return folder


def tables(settings):
    query = "select table_name from information_schema.tables where table_schema = %s order by 1"
    with connect(settings) as connection:
        rows = connection.execute(query, [f"{settings.prefix}operations"]).fetchall()
    return [name for (name,) in rows]


def test_each_is_applied_once_and_recorded(fresh, folder):
    assert [str(migration) for migration in upgrade(fresh, folder)] == ["0001_first"]
    assert upgrade(fresh, folder) == []
    (folder / "0002_second.sql").write_text(SECOND)
    assert [str(migration) for migration in upgrade(fresh, folder)] == ["0002_second"]
    check_schema(fresh, folder)
    assert tables(fresh) == ["first", "schema_migrations"]
    with connect(fresh) as connection:
        row = connection.execute(f"select {fresh.prefix}serving.greeting()").fetchone()
    assert row == ("one hundred % {}",)


def test_prefixes_are_apart(settings, fresh, folder):
    upgrade(fresh, folder)
    assert "first" not in tables(settings)
    check_schema(settings)


def test_an_older_schema_is_refused(fresh, folder):
    with pytest.raises(LorelineError, match="version 0, this Loreline needs 1: run `loreline upg"):
        check_schema(fresh, folder)
    upgrade(fresh, folder)
    (folder / "0002_second.sql").write_text(SECOND)
    with pytest.raises(LorelineError, match="version 1, this Loreline needs 2: run `loreline upg"):
        check_schema(fresh, folder)


@pytest.mark.parametrize("look", [check_schema, upgrade])
def test_a_newer_schema_is_refused(fresh, folder, look):
    (folder / "0002_second.sql").write_text(SECOND)
    upgrade(fresh, folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(LorelineError, match="was upgraded by a newer Loreline"):
        look(fresh, folder)


@pytest.mark.parametrize("look", [check_schema, upgrade])
def test_a_changed_text_is_refused(fresh, folder, look):
    upgrade(fresh, folder)
    (folder / "0001_first.sql").write_text(FIRST + "\n-- afterthought")
    with pytest.raises(LorelineError, match="0001_first is not the text"):
        look(fresh, folder)


def test_nothing_of_a_failed_migration_is_kept(fresh, folder):
    (folder / "0002_second.sql").write_text(
        "create table {prefix}operations.half (id integer); select 1 / 0;"
    )
    with pytest.raises(LorelineError, match=r"0002_second failed in .*: division by zero"):
        upgrade(fresh, folder)
    assert tables(fresh) == ["first", "schema_migrations"]
    (folder / "0002_second.sql").write_text(SECOND)
    assert [str(migration) for migration in upgrade(fresh, folder)] == ["0002_second"]


def test_two_upgrades_at_once_apply_each_once(fresh, folder):
    (folder / "0002_second.sql").write_text(SECOND + "select pg_sleep(0.3);")
    applied = []
    threads = [
        threading.Thread(target=lambda: applied.append(len(upgrade(fresh, folder))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [0, 0, 2]


def test_the_reader_reads_what_is_there_and_what_comes_later(settings):
    with connect(settings) as connection:
        connection.execute(f"create table {settings.prefix}operations.later as select 1 as id")
    reader = settings.as_reader()
    with connect(reader, autocommit=True) as connection:
        names = (f"{settings.prefix}operations.{name}" for name in ("later", "commits"))
        for name in names:
            connection.execute(f"select * from {name}")
        connection.execute("set default_transaction_read_only = off")
        for statement in ("insert into {} values (2)", "drop table {}", "truncate {}"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement.format(f"{settings.prefix}operations.later"))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("select rolpassword from pg_authid")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(f"select token from {settings.prefix}operations.verification_tokens")


def test_the_migrations_of_this_version_are_numbered_without_gaps():
    versions = [migration.version for migration in postgres.available_migrations()]
    assert versions == list(range(1, len(versions) + 1))
    for migration in postgres.available_migrations():
        assert "{prefix}" in migration.template


def test_a_file_that_is_no_migration_is_refused(tmp_path):
    (tmp_path / "1_first.sql").write_text("select 1")
    with pytest.raises(LorelineError, match=r"1_first\.sql is no migration"):
        postgres.available_migrations(tmp_path)
    (tmp_path / "1_first.sql").rename(tmp_path / "0002_first.sql")
    with pytest.raises(LorelineError, match="numbered"):
        postgres.available_migrations(tmp_path)
