"""The life of a local stack: started, found again, stopped, crashed, side by side with others."""

import os
import random
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import psycopg
import pyarrow as pa
import pytest

from loreline import stack
from loreline.errors import LorelineError
from loreline.lake.catalog import load_catalog
from loreline.postgres import connect
from loreline.settings import Settings
from loreline.stack import postgresql, seaweedfs
from loreline.stack.state import Process, StackState, is_free

UP = "import pathlib, sys; from loreline import stack; stack.up(pathlib.Path(sys.argv[1]))"


@pytest.fixture(autouse=True)
def no_other_stack(monkeypatch):
    for name in [name for name in os.environ if name.startswith("LORELINE_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def home():
    yield from empty_home()


@pytest.fixture
def other_home():
    yield from empty_home()


@pytest.fixture(scope="module")
def running_home():
    """A stack that tests may look at and call `up` on; they leave it running."""
    for home in empty_home():
        stack.up(home)
        yield home


def empty_home():
    home = Path(tempfile.mkdtemp(prefix="loreline-stack-"))
    yield home
    stack.down(home)
    shutil.rmtree(home)


def settings_of(home, monkeypatch):
    monkeypatch.setenv("LORELINE_HOME", str(home))
    return Settings.load()


def pids(services):
    return {service.name: service.pid for service in services}


def write_something(settings):
    catalog = load_catalog(settings)
    catalog.create_namespace("kept")
    rows = pa.table({"id": pa.array([1, 2, 3], pa.int64())})
    catalog.create_table("kept.rows", rows.schema).append(rows)
    with connect(settings) as connection:
        connection.execute("create table operations.kept as select 7 as id")


def read_it_again(settings):
    ids = load_catalog(settings).load_table("kept.rows").scan().to_arrow()["id"].to_pylist()
    with connect(settings) as connection:
        row = connection.execute("select id from operations.kept").fetchone()
    return ids, row


def kill(pid):
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)


def test_a_new_stack_answers_and_a_second_up_changes_nothing(running_home, monkeypatch):
    before = StackState.load(running_home)
    services = stack.up(running_home)
    assert [service.ready for service in services] == [True, True]
    assert StackState.load(running_home) == before
    assert pids(services) == {name: p.pid for name, p in before.processes.items()}
    settings_of(running_home, monkeypatch).require_stores()


def test_two_ups_at_once_start_one_stack(home):
    calls = [subprocess.Popen([sys.executable, "-c", UP, str(home)]) for _ in range(2)]
    assert [call.wait(120) for call in calls] == [0, 0]
    # Both commands are over by now: the services outlive them.
    services = stack.status(home)
    assert all(service.ready for service in services)
    folder = str(home)
    ours = [p for p in psutil.process_iter() if any(folder in part for part in _command(p))]
    assert {p.pid for p in ours} == set(pids(services).values())


def _command(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_down_returns_when_all_is_gone(home):
    started = pids(stack.up(home))
    ports = StackState.load(home).ports.values()
    assert stack.down(home) == ["seaweedfs", "postgres"]
    statuses = [psutil.Process(p).status() for p in started.values() if psutil.pid_exists(p)]
    assert set(statuses) <= {psutil.STATUS_ZOMBIE}
    assert all(is_free(port) for port in ports)
    assert stack.down(home) == []
    assert [service.pid for service in stack.status(home)] == [None, None]


def test_what_was_never_started_can_be_looked_at_and_stopped(tmp_path):
    absent = tmp_path / "absent"
    assert [service.ready for service in stack.status(absent)] == [False, False]
    assert stack.down(absent) == []
    assert not absent.exists()


def test_two_stacks_side_by_side_share_nothing(home, running_home, monkeypatch):
    stack.up(home)
    one, other = StackState.load(home), StackState.load(running_home)
    assert not set(one.ports.values()) & set(other.ports.values())
    assert not set(one.credentials.values()) & set(other.credentials.values())
    write_something(settings_of(home, monkeypatch))
    assert load_catalog(settings_of(running_home, monkeypatch)).list_namespaces() == []

    monkeypatch.setenv("LORELINE_CATALOG_URI", one.variables["LORELINE_CATALOG_URI"])
    with pytest.raises(LorelineError, match="Iceberg catalog"):
        load_catalog(settings_of(running_home, monkeypatch))


def test_what_a_crash_left_is_recovered(home, monkeypatch):
    started = pids(stack.up(home))
    write_something(settings_of(home, monkeypatch))
    for pid in started.values():
        kill(pid)
    again = pids(stack.up(home))
    assert not set(again.values()) & set(started.values())
    assert read_it_again(settings_of(home, monkeypatch)) == ([1, 2, 3], (7,))


def test_one_killed_service_comes_back_beside_the_other(home, monkeypatch):
    started = pids(stack.up(home))
    write_something(settings_of(home, monkeypatch))
    kill(started["postgres"])
    again = pids(stack.up(home))
    assert again["seaweedfs"] == started["seaweedfs"]
    assert again["postgres"] != started["postgres"]
    assert read_it_again(settings_of(home, monkeypatch)) == ([1, 2, 3], (7,))


def test_a_lock_file_that_names_a_stranger_is_removed(home):
    started = pids(stack.up(home))
    kill(started["postgres"])
    lock = postgresql.folder(home) / "postmaster.pid"
    _, *rest = lock.read_text().splitlines(keepends=True)
    lock.write_text("".join([f"{os.getppid()}\n", *rest]))
    assert all(service.ready for service in stack.up(home))


@pytest.mark.parametrize("seconds", [0.4, 0.7, 1.0])
def test_up_killed_while_it_starts_is_made_up_for(home, monkeypatch, seconds):
    start_and_kill(home, seconds)
    stack.up(home)
    write_something(settings_of(home, monkeypatch))
    assert list(home.glob("postgres.new-*")) == []


# As `initdb`, whose work is done by children that it starts.
SLOW_INITDB = """\
#!/bin/sh
cluster=${1#--pgdata=}
mkdir "$cluster"
echo $$ > "$cluster.pid"
while [ -e "${0%/*}/go-on" ]; do
    written=$((written + 1))
    : > "$cluster/$written"
    sleep 0.02
done &
wait
"""
SLOW_UP = """\
import pathlib, sys
from loreline import stack
from loreline.stack import postgresql
postgresql._binary = pathlib.Path(sys.argv[1]).joinpath
stack.up(pathlib.Path(sys.argv[1]))
"""


def test_what_an_orphaned_initdb_writes_is_removed_after_its_end(home, monkeypatch):
    initdb, go_on = home / "initdb", home / "go-on"
    initdb.write_text(SLOW_INITDB)
    initdb.chmod(0o755)
    go_on.touch()
    try:
        call = subprocess.Popen([sys.executable, "-c", SLOW_UP, str(home)])
        while not (found := list(home.glob("postgres.new-*/cluster/1"))):
            assert call.poll() is None
            time.sleep(0.02)
        (written,) = found
        draft = written.parents[1]
        call.kill()
        call.wait()
        kill(int((draft / "cluster.pid").read_text()))

        monkeypatch.setattr(postgresql, "_ORPHAN_SECONDS", 0.2)
        with pytest.raises(LorelineError, match=f"still writes into {draft}"):
            stack.up(home)
        assert written.exists()

        monkeypatch.undo()
        threading.Timer(0.5, go_on.unlink).start()
        stack.up(home)
        assert list(home.glob("postgres.new-*")) == []
    finally:
        go_on.unlink(missing_ok=True)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_up_killed_again_and_again_is_made_up_for(home, monkeypatch, seed):
    moments = random.Random(seed)
    for _ in range(6):
        start_and_kill(home, moments.uniform(0.2, 2.0))
    stack.up(home)
    write_something(settings_of(home, monkeypatch))


def start_and_kill(home, seconds):
    call = subprocess.Popen([sys.executable, "-c", UP, str(home)])
    time.sleep(seconds)
    call.kill()
    call.wait()


def test_ports_that_a_stranger_took_are_replaced(home, monkeypatch):
    stack.up(home)
    write_something(settings_of(home, monkeypatch))
    stack.down(home)
    remembered = dict(StackState.load(home).ports)
    with socket.create_server(("127.0.0.1", remembered["catalog"])):
        stack.up(home)
        now = StackState.load(home).ports
        assert now["catalog"] != remembered["catalog"]
        assert now["postgres"] == remembered["postgres"]
        assert read_it_again(settings_of(home, monkeypatch)) == ([1, 2, 3], (7,))


def test_services_that_nobody_wrote_down_are_adopted(running_home):
    state = StackState.load(running_home)
    started, state.processes = state.processes, {}
    state.save(running_home)
    stack.up(running_home)
    assert StackState.load(running_home).processes == started


def test_a_process_that_was_given_a_remembered_id_is_left_alone(home):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    try:
        state = StackState()
        state.ports = {"s3": 1, "postgres": 2}
        state.processes = {
            name: Process(stranger.pid, psutil.Process(stranger.pid).create_time())
            for name in (seaweedfs.NAME, postgresql.NAME)
        }
        state.save(home)
        assert stack.down(home) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_only_the_loopback_interface_is_listened_on(running_home):
    state = StackState.load(running_home)
    listeners = {
        (connection.laddr.ip, connection.laddr.port)
        for process in state.processes.values()
        for connection in psutil.Process(process.pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listeners == {("127.0.0.1", port) for port in state.ports.values()}


def test_secrets_are_for_the_owner_only(running_home):
    state = StackState.load(running_home)
    for path in (running_home / "stack.json", running_home / "seaweedfs" / "identities.json"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert running_home.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH) == 0
    logs = "".join(log.read_text(errors="replace") for log in (running_home / "logs").iterdir())
    commands = [psutil.Process(process.pid).cmdline() for process in state.processes.values()]
    for name, secret in state.credentials.items():
        if not name.endswith("key_id"):
            assert secret not in logs, name
            assert not any(secret in part for command in commands for part in command), name


def test_without_credentials_nothing_is_given_away(running_home, monkeypatch):
    settings = settings_of(running_home, monkeypatch)
    address = settings.postgres_url.rpartition("@")[2]
    for role in ("loreline:wrong", "loreline_reader:wrong", "loreline"):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(f"postgresql://{role}@{address}")
    ports = StackState.load(running_home).ports
    for url in (
        f"{settings.s3_endpoint}/landing",
        f"{settings.catalog_uri}/v1/lake/namespaces",
        f"http://127.0.0.1:{ports['filer']}/buckets/",
    ):
        with pytest.raises(urllib.error.HTTPError) as refusal:
            urllib.request.urlopen(url, timeout=10)
        assert refusal.value.code in (401, 403), url


def test_seaweedfs_never_rewrites_tables_by_itself(running_home):
    log = seaweedfs.log(running_home).read_text(errors="replace")
    assert "Worker registered" not in log
    jobs = seaweedfs.folder(running_home) / "admin" / "plugin" / "job_types"
    assert not jobs.exists() or not list(jobs.iterdir())


def test_a_service_that_does_not_start_says_why(home, monkeypatch):
    monkeypatch.setattr(postgresql, "_OPTIONS", {"shared_buffers": "nonsense"})
    with pytest.raises(
        LorelineError, match=r"Postgres ended at its start \(.*nonsense.*postgres.log"
    ):
        stack.up(home)
    assert [service.pid for service in stack.status(home)] == [None, None]
