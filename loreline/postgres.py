"""Connections to Postgres, and the versioned migrations of its schemas.

A migration is `migrations/NNNN_name.sql`, a template in which the literal `{prefix}` stands in
front of every schema name, so that one database holds the schemas of several targets.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from loreline.errors import LorelineError
from loreline.settings import Settings

MIGRATIONS = Path(__file__).parent / "migrations"

# One key for the whole database, not one for each prefix: `create extension` is not safe to run
# twice at once, even with `if not exists`.
_UPGRADE_LOCK = int.from_bytes(b"loreline")

# The one table of what others may read that holds secrets.
TOKENS = "verification_tokens"


@dataclass(frozen=True)
class Migration:
    """One step of the schema: its number, its name and its SQL template."""

    version: int
    name: str
    template: str

    @property
    def sha256(self) -> str:
        """Digest of the template; the same for every prefix."""
        return hashlib.sha256(self.template.encode()).hexdigest()

    def __str__(self) -> str:
        return f"{self.version:04d}_{self.name}"


def connect(settings: Settings, *, autocommit: bool = False) -> psycopg.Connection:
    """Open a connection as the role of `LORELINE_POSTGRES_URL`.

    Raises:
        LorelineError: no address is set, nothing answers there, or the credentials are refused.
    """
    if not settings.postgres_url:
        raise LorelineError(
            "LORELINE_POSTGRES_URL is not set",
            "start the local stack with `loreline up`, or set it",
        )
    try:
        return psycopg.connect(
            settings.postgres_url,
            autocommit=autocommit,
            connect_timeout=10,
            application_name="loreline",
        )
    except psycopg.OperationalError as error:
        cause = str(error).strip().splitlines()[0].rsplit("failed: ", 1)[-1]
        raise LorelineError(
            f"no connection to Postgres at {_address(settings.postgres_url)} ({cause})",
            "start the local stack with `loreline up`, or check LORELINE_POSTGRES_URL",
        ) from error


def in_schema(settings: Settings, schema: str, statement: str) -> sql.Composed:
    """A statement in which `{}` is a schema of the target, such as `review`."""
    return sql.SQL(statement).format(sql.Identifier(f"{settings.prefix}{schema}"))


def available_migrations(folder: Path = MIGRATIONS) -> list[Migration]:
    """The migrations that this version of Loreline brings, in order."""
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = re.fullmatch(r"(\d{4})_(\w+)", path.stem)
        if not match:
            raise LorelineError(f"{path.name} is no migration", "name it NNNN_what_it_adds.sql")
        migrations.append(Migration(int(match[1]), match[2], path.read_text()))
    versions = [migration.version for migration in migrations]
    if versions != list(range(1, len(versions) + 1)):
        raise LorelineError(f"migrations are numbered {versions}", "number them 1, 2, 3, …")
    return migrations


def upgrade(settings: Settings, folder: Path = MIGRATIONS) -> list[Migration]:
    """Bring the schemas up to date and return the migrations that this call applied.

    Each migration is one transaction, recorded with its digest. Two upgrades at once wait for each
    other. The role of `LORELINE_READER_POSTGRES_URL`, when set, may read what is there afterwards.

    Raises:
        LorelineError: the database is newer than this Loreline, an applied migration's text has
            changed, or a migration fails (it is rolled back; the ones before it stay).
    """
    migrations = available_migrations(folder)
    with connect(settings, autocommit=True) as connection:
        connection.execute("select pg_advisory_lock(%s)", [_UPGRADE_LOCK])
        _create_record(connection, settings)
        applied = _applied(connection, settings)
        _refuse_unknown(settings, applied, migrations)
        pending = migrations[len(applied) :]
        for migration in pending:
            _apply(connection, settings, migration)
        _let_reader_read(connection, settings, schema_changed=bool(pending))
        return pending


def check_schema(settings: Settings, folder: Path = MIGRATIONS) -> None:
    """Refuse a database whose schema is not the one that this version of Loreline was written for.

    Raises:
        LorelineError: it is older, newer, or was made by migrations of another text.
    """
    migrations = available_migrations(folder)
    with connect(settings) as connection:
        applied = _applied(connection, settings)
    _refuse_unknown(settings, applied, migrations)
    if len(applied) < len(migrations):
        raise LorelineError(
            f"the schema in {_place(settings)} is at version {len(applied)}, "
            f"this Loreline needs {len(migrations)}",
            "run `loreline upgrade`",
        )


def _address(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname or 'localhost'}:{parts.port or 5432}"


def _place(settings: Settings) -> str:
    return f"{_address(settings.postgres_url)}{urlsplit(settings.postgres_url).path}"


def _record(settings: Settings) -> sql.Identifier:
    return sql.Identifier(f"{settings.prefix}operations", "schema_migrations")


def _create_record(connection: psycopg.Connection, settings: Settings) -> None:
    schema = sql.Identifier(f"{settings.prefix}operations")
    connection.execute(sql.SQL("create schema if not exists {}").format(schema))
    connection.execute(
        sql.SQL(
            "create table if not exists {} ("
            "version integer primary key, name text not null, sha256 text not null,"
            " applied_at timestamptz not null default now())"
        ).format(_record(settings))
    )


def _applied(connection: psycopg.Connection, settings: Settings) -> list[tuple[int, str, str]]:
    record = _record(settings)
    name = record.as_string(connection)
    if connection.execute("select to_regclass(%s)", [name]).fetchone() == (None,):
        return []
    query = sql.SQL("select version, name, sha256 from {} order by version").format(record)
    return connection.execute(query).fetchall()


def _refuse_unknown(
    settings: Settings, applied: Sequence[tuple[int, str, str]], migrations: Sequence[Migration]
) -> None:
    if len(applied) > len(migrations):
        raise LorelineError(
            f"{_place(settings)} was upgraded by a newer Loreline "
            f"(schema version {len(applied)}, this one knows {len(migrations)})",
            "install that version or a later one",
        )
    for (_, name, sha256), migration in zip(applied, migrations, strict=False):
        if sha256 != migration.sha256:
            raise LorelineError(
                f"migration {migration} is not the text that made {_place(settings)} "
                f"(applied there as {name}, {sha256[:12]})",
                "restore the file, and put the change into a new migration",
            )


def _apply(connection: psycopg.Connection, settings: Settings, migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.template.replace("{prefix}", settings.prefix))
            connection.execute(
                sql.SQL("insert into {} (version, name, sha256) values (%s, %s, %s)").format(
                    _record(settings)
                ),
                [migration.version, migration.name, migration.sha256],
            )
    except psycopg.Error as error:
        cause = error.diag.message_primary or error
        raise LorelineError(
            f"migration {migration} failed in {_place(settings)}: {cause}",
            "nothing of it was kept; correct the cause and run `loreline upgrade` again",
        ) from error


def _let_reader_read(
    connection: psycopg.Connection, settings: Settings, *, schema_changed: bool
) -> None:
    if not settings.reader_postgres_url:
        return
    role = urlsplit(settings.reader_postgres_url).username or ""
    for schema in ("operations", "serving", "lineage"):
        name = f"{settings.prefix}{schema}"
        query = "select has_schema_privilege(%s, oid, 'usage') from pg_namespace where nspname = %s"
        may_read = connection.execute(query, [role, name]).fetchone()
        if may_read is None or (may_read[0] and not schema_changed):
            continue
        for statement in (
            "grant usage on schema {schema} to {role}",
            "grant select on all tables in schema {schema} to {role}",
            "alter default privileges in schema {schema} grant select on tables to {role}",
        ):
            connection.execute(
                sql.SQL(statement).format(schema=sql.Identifier(name), role=sql.Identifier(role))
            )
    tokens = sql.Identifier(f"{settings.prefix}operations", TOKENS)
    found = connection.execute("select to_regclass(%s)", [tokens.as_string(connection)]).fetchone()
    if found != (None,):
        connection.execute(sql.SQL("revoke all on {} from {}").format(tokens, sql.Identifier(role)))
