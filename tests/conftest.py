"""Fixtures shared by all layers of tests: one real stack per run, one namespace per test."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import hypothesis
import pytest

from loreline.settings import PROJECT_ROOT, Settings

TESTS = Path(__file__).parent

# readline sets a terminal's width behind Python's back, which pytest-xdist's workers then inherit;
# what commands print would be folded at it.
os.environ.pop("COLUMNS", None)

# The same examples at every run, and no limit on the time of one: the machine may be busy.
hypothesis.settings.register_profile("loreline", derandomize=True, deadline=None)
hypothesis.settings.load_profile("loreline")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by their folder, and leave the long rounds out unless they are asked for."""
    for item in items:
        for layer in ("integration", "end_to_end"):
            if TESTS / layer in item.path.parents:
                item.add_marker(layer)
    if "soak" not in config.getoption("markexpr"):
        left_out = [item for item in items if item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


@pytest.fixture(scope="session")
def stack() -> Iterator[Settings]:
    """Settings of a real stack that all processes of this test run share.

    The last process to finish stops and removes it, also after failures.
    """
    from loreline import stack

    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or uuid.uuid4().hex
    # Not under pytest's own folder, which nobody but its owner may enter: run by root, Postgres has
    # an owner of its own.
    home = Path(tempfile.gettempdir()).resolve() / f"loreline-tests-{run[:12]}"
    try:
        with _users(home, +1):
            stack.up(home)
        variables = json.loads((home / "stack.json").read_text())["variables"]
        yield _settings(variables, state_folder=str(home))
    finally:
        with _users(home, -1) as users:
            if users == 0:
                stack.down(home)
                shutil.rmtree(home)


@pytest.fixture
def settings(
    stack: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Settings]:
    """Settings of the shared stack with namespaces, schemas and a state folder of this test's own.

    The migrations are applied, and `Settings.load` returns the same within the test.
    """
    from loreline import postgres

    own = dataclasses.replace(
        stack,
        target="ci",
        namespace_suffix=f"t{uuid.uuid4().hex[:10]}",
        state_folder=str(tmp_path / "state"),
    )
    own.home.mkdir()
    for name in [name for name in os.environ if name.startswith("LORELINE_")]:
        monkeypatch.delenv(name)
    for name, value in own.environment().items():
        monkeypatch.setenv(name, value)
    postgres.upgrade(own)
    yield own
    drop_namespaces(own)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real inputs, which are not part of the repository."""
    folder = Path(os.environ.get("LORELINE_REAL_DATA") or PROJECT_ROOT.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder} (set LORELINE_REAL_DATA)")
    return folder


def _settings(variables: dict[str, str], **others: str) -> Settings:
    names = {f.metadata["variable"]: f.name for f in dataclasses.fields(Settings)}
    return Settings(**{names[name]: value for name, value in variables.items()}, **others)


@contextmanager
def _users(home: Path, change: int) -> Iterator[int]:
    """Count the processes that use the stack, while nobody else starts or stops it."""
    counter = home.with_suffix(".users")
    while True:
        with counter.open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_at(file, counter):
                continue  # its last user removed it while this one waited
            file.seek(0)
            users = int(file.read() or 0) + change
            file.truncate(0)
            file.write(str(users))
            file.flush()
            yield users
            if users == 0:
                counter.unlink()
            return


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def drop_namespaces(settings: Settings) -> None:
    """Remove what tests have made below a prefix, in the lake and in Postgres."""
    # Whoever attaches Postgres or lists the lake reads the names of everything that is there.
    from psycopg import sql

    from loreline import postgres
    from loreline.lake.catalog import load_catalog

    with postgres.connect(settings, autocommit=True) as connection:
        owned = "select nspname from pg_namespace where starts_with(nspname, %s)"
        for (schema,) in connection.execute(owned, [settings.prefix]).fetchall():
            connection.execute(sql.SQL("drop schema {} cascade").format(sql.Identifier(schema)))
    catalog = load_catalog(settings)
    for namespace in catalog.list_namespaces():
        if namespace[0].startswith(settings.prefix):
            for table in catalog.list_tables(namespace):
                catalog.drop_table(table)
            catalog.drop_namespace(namespace)
