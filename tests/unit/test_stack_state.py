"""What a stack remembers, without starting one."""

import socket
import stat
import subprocess
import sys

import psutil
import pytest

from loreline.errors import LorelineError
from loreline.stack import process
from loreline.stack.state import PORT_RANGE, Process, StackState, free_port, is_free, state_file

SLEEP = "import time; time.sleep(60)"


@pytest.fixture
def sleeper(tmp_path):
    command = [sys.executable, "-c", SLEEP, "--marker"]
    child = process.spawn(command, log=tmp_path / "sleeper.log", cwd=tmp_path, env={})
    yield psutil.Process(child.pid)
    child.kill()
    child.wait()


def test_state_is_read_back_and_private(tmp_path):
    state = StackState(
        variables={"LORELINE_S3_REGION": "us-east-1"},
        ports={"s3": 20_000},
        processes={"postgres": Process(pid=1, started=2.5)},
    )
    secret = state.credential("s3")
    state.save(tmp_path)
    assert StackState.load(tmp_path) == state
    assert StackState.load(tmp_path).credential("s3") == secret
    assert stat.S_IMODE(state_file(tmp_path).stat().st_mode) == 0o600


def test_a_draft_that_a_crash_left_is_replaced(tmp_path):
    (tmp_path / "stack.draft").write_text("{half")
    StackState(ports={"s3": 20_000}).save(tmp_path)
    assert StackState.load(tmp_path).ports == {"s3": 20_000}


def test_remembered_ports_are_kept_until_somebody_else_listens_there():
    state = StackState()
    assert state.choose_ports(("s3", "catalog"))
    chosen = dict(state.ports)
    assert len(set(chosen.values())) == 2
    assert set(chosen.values()) <= set(PORT_RANGE)
    assert not state.choose_ports(("s3", "catalog"))
    assert state.ports == chosen
    with socket.create_server(("127.0.0.1", chosen["s3"])):
        assert not is_free(chosen["s3"])
        assert state.choose_ports(("s3", "catalog"))
    assert state.ports["s3"] != chosen["s3"]


def test_a_port_is_not_given_away_twice():
    taken = set(PORT_RANGE) - {PORT_RANGE[7]}
    if is_free(PORT_RANGE[7]):
        assert free_port(taken) == PORT_RANGE[7]


def test_a_process_is_found_by_its_executable_and_argument(sleeper):
    name = psutil.Process(sleeper.pid).cmdline()[0].rpartition("/")[2]
    remembered = process.remember(sleeper)
    for known in (remembered, None, Process(pid=sleeper.pid, started=0.0)):
        assert process.find(known, executable=name, argument="--marker") == sleeper
    assert process.find(remembered, executable=name, argument="--other") is None
    assert process.find(remembered, executable="postgres", argument="--marker") is None


def test_terminate_waits_and_kills_what_does_not_listen():
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); " + SLEEP
    child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    child.stdout.readline()
    process.terminate(psutil.Process(child.pid), with_signal=15, grace_seconds=0.1)
    assert child.wait(10) == -9
    child.stdout.close()


def test_a_process_that_ends_at_its_start_is_reported_with_its_log(tmp_path):
    log = tmp_path / "postgres.log"
    child = process.spawn(
        [sys.executable, "-c", "print('no such option'); print()"], log=log, cwd=tmp_path, env={}
    )
    with pytest.raises(LorelineError, match=r"Postgres ended at its start \(no such option\)"):
        process.wait_until(lambda: False, child, log, seconds=30)


def test_a_process_that_is_never_ready_is_reported(tmp_path, sleeper):
    log = tmp_path / "seaweedfs.log"
    log.touch()
    with pytest.raises(LorelineError, match="SeaweedFS was not ready after 0 s"):
        process.wait_until(lambda: False, sleeper, log, seconds=0.1)
