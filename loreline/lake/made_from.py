"""What a `table` model's rows were made from: snapshots of what it read, and the code that ran.

Recorded in the properties of the snapshot that holds the rows. A later build that gives the same
rows writes no snapshot: what that one read is kept in a property of the table, because what the
first one read may have expired since.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from loreline.lake.catalog import find_table, load_catalog
from loreline.settings import Settings

PROPERTY = "loreline.made-from"
DIGEST = "loreline.content-digest"
GIT_PLACES = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR"}
_IN_LAKE = re.compile(r'"?lake"?\."?([^".]+)"?\."?([^".]+)"?')


@dataclass(frozen=True)
class Code:
    """Which code ran.

    Attributes:
        commit: of the git repository that holds the dbt project; empty where there is none.
        is_clean: whether the project's files were those of the commit.
        sql_sha256: of the compiled SQL; empty for a Python model.
        variables: dbt's `--vars`.
    """

    commit: str = ""
    is_clean: bool = False
    sql_sha256: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MadeFrom:
    """What rows were made from.

    Attributes:
        inputs: lake tables as `namespace.table` and the snapshot that was read of each; None where
            the table had none, which is to say no row. A Python model that ran while a table was
            written has that table twice.
        outside: what was read that has no snapshots, such as tables of Postgres.
        code: what ran.
    """

    inputs: tuple[tuple[str, int | None], ...]
    outside: tuple[str, ...] = ()
    code: Code = Code()

    def to_json(self) -> str:
        """As a property; the same text for the same content."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> MadeFrom:
        """Read a property back."""
        stored = json.loads(text)
        return cls(
            tuple((table, snapshot_id) for table, snapshot_id in stored["inputs"]),
            tuple(stored["outside"]),
            Code(**stored["code"]),
        )


def tables_read(cursor: duckdb.DuckDBPyConnection, sql: str) -> tuple[list[str], list[str]]:
    """The tables that a query names: those of the lake as `namespace.table`, and all others."""
    named = {name.partition(" AS ")[0] for name in cursor.get_table_names(sql, qualified=True)}
    found = {name: _IN_LAKE.fullmatch(name) for name in named}
    lake = sorted({f"{match[1]}.{match[2]}" for match in found.values() if match})
    return lake, sorted(name for name, match in found.items() if not match)


def snapshot_read(cursor: duckdb.DuckDBPyConnection, table: str) -> int | None:
    """The snapshot of a lake table that the transaction under way reads; None without any.

    A transaction of DuckDB reads a table as it was when it first read it: asked for here, its
    snapshots end with that one, whoever has written since.
    """
    row = cursor.execute(
        f"select snapshot_id from iceberg_snapshots(lake.{_quoted(table)})"
        " order by sequence_number desc limit 1"
    ).fetchone()
    return row[0] if row else None


def current_snapshots(settings: Settings, tables: Iterable[str]) -> list[tuple[str, int | None]]:
    """The current snapshot of each `namespace.table`."""
    found = []
    for name in tables:
        table = find_table(load_catalog(settings), name)
        snapshot = table.current_snapshot() if table else None
        found.append((name, snapshot.snapshot_id if snapshot else None))
    return found


def made_from(table: Table, snapshot: Snapshot) -> MadeFrom | None:
    """What a snapshot was made from, by the last build that gave its rows.

    None for what names no inputs: landed rows, seeds, incremental models.
    """
    own = _own(snapshot)
    if text := table.properties.get(PROPERTY):
        later = json.loads(text)
        if later["instead_of"] == _key(own):
            return MadeFrom.from_json(later["made_from"])
    return MadeFrom.from_json(own[PROPERTY]) if own[PROPERTY] else None


def remember(table: Table, made: MadeFrom) -> None:
    """Note that the rows a table holds are also what another build made from other inputs."""
    snapshot = table.current_snapshot()
    assert snapshot is not None
    if made_from(table, snapshot) == made:
        return
    noted = json.dumps({"instead_of": _key(_own(snapshot)), "made_from": made.to_json()})
    with table.transaction() as transaction:
        transaction.set_properties({PROPERTY: noted})


def _own(snapshot: Snapshot) -> dict[str, str]:
    """What a snapshot itself says; a compacted one says the same as the one before it."""
    summary = snapshot.summary.additional_properties if snapshot.summary else {}
    return {name: summary.get(name, "") for name in (DIGEST, PROPERTY)}


def _key(own: Mapping[str, str]) -> str:
    # Of the inputs too: the same rows may come back later, from others than were noted then.
    return hashlib.sha256(json.dumps(own, sort_keys=True).encode()).hexdigest()


def code_of(project: str, sql: str = "", variables: Mapping[str, Any] | None = None) -> Code:
    """The code of a dbt project as it is in its folder.

    Args:
        project: the folder.
        sql: compiled; empty for a Python model.
        variables: dbt's `--vars`.
    """
    commit, is_clean = _commit(project) if project else ("", False)
    digest = hashlib.sha256(sql.encode()).hexdigest() if sql else ""
    return Code(commit, is_clean, digest, dict(variables or {}))


@lru_cache(maxsize=8)
def _commit(project: str) -> tuple[str, bool]:
    """Read once for a run: what is edited meanwhile counts from the next one on."""
    # dbt has gone into the project's folder: a relative path may lead nowhere from there.
    folder = Path(project) if Path(project, "dbt_project.yml").exists() else Path()
    try:
        commit = git(folder, "rev-parse", "HEAD")
        return commit, not git(folder, "status", "--porcelain", "--", ".")
    except (OSError, subprocess.CalledProcessError):
        return "", False


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints, run in a folder.

    Raises:
        OSError: there is no git.
        subprocess.CalledProcessError: it failed.
    """
    # Set in a hook of git's, they would name another repository; and no hook is to run.
    environment = {name: value for name, value in os.environ.items() if name not in GIT_PLACES}
    done = subprocess.run(
        ["git", "-c", f"core.hooksPath={os.devnull}", "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return done.stdout.strip()


def _quoted(table: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))
