"""Detached child processes that are found again by a later command."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from loreline.errors import LorelineError
from loreline.stack.state import Process

_LARGEST_LOG = 20 * 1024 * 1024

# psutil reckons a start time from the boot time, which moves when the clock is set.
_CLOCK_TOLERANCE_SECONDS = 10.0


def spawn(
    command: Sequence[str], *, log: Path, cwd: Path, env: Mapping[str, str], user: str | None = None
) -> psutil.Popen:
    """Start a process in a session of its own, so that it outlives this one; output to `log`.

    It can be found by its command line once this returns: Linux shows an empty one for a moment
    while a program is being loaded.
    """
    log.parent.mkdir(exist_ok=True, mode=0o700)
    if log.exists() and log.stat().st_size > _LARGEST_LOG:
        log.replace(log.with_suffix(".log.1"))
    as_user = {"user": user, "group": user, "extra_groups": []} if user else {}
    with log.open("ab") as output:
        child = psutil.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=dict(env),
            start_new_session=True,
            **as_user,
        )
    while not _command_line(child) and not has_ended(child):
        time.sleep(0.001)
    return child


def find(remembered: Process | None, *, executable: str, argument: str) -> psutil.Process | None:
    """The running process of that executable with that argument, or None.

    The remembered process is looked at first; any other one that matches was left by a command that
    was killed before it could write down what it had started.
    """
    if remembered:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(remembered.pid)
            drift = abs(process.create_time() - remembered.started)
            if drift < _CLOCK_TOLERANCE_SECONDS and _runs(process, executable, argument):
                return process
    return next((p for p in psutil.process_iter() if _runs(p, executable, argument)), None)


def _runs(process: psutil.Process, executable: str, argument: str) -> bool:
    command = _command_line(process)
    return argument in command and Path(command[0]).name == executable


def _command_line(process: psutil.Process) -> list[str]:
    """Empty for a zombie, and for what is gone or not ours to see."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return process.cmdline()
    return []


def remember(process: psutil.Process) -> Process:
    """What is to be written down about a running process."""
    return Process(pid=process.pid, started=process.create_time())


def terminate(process: psutil.Process, with_signal: signal.Signals, grace_seconds: float) -> None:
    """Ask a process to stop, kill it after the grace period, and return once it is gone."""
    deadline = time.monotonic() + grace_seconds
    with suppress(psutil.NoSuchProcess):
        process.send_signal(with_signal)
        while not has_ended(process):
            if time.monotonic() > deadline:
                process.kill()
            time.sleep(0.02)


def has_ended(process: psutil.Process) -> bool:
    """Whether it is gone, or a zombie that its parent (any running command) has yet to reap.

    A zombie with more threads than one has listeners that are about to be closed.
    """
    try:
        if not process.is_running():
            return True
        return process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return True


def wait_until(
    ready: Callable[[], bool], process: psutil.Process, log: Path, seconds: float
) -> None:
    """Poll until `ready` says so.

    Raises:
        LorelineError: the process ended, or the time is over; with the last line of its log.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if has_ended(process):
            what = f"{process_name(log)} ended at its start"
        elif time.monotonic() > deadline:
            what = f"{process_name(log)} was not ready after {seconds:.0f} s"
        else:
            time.sleep(0.05)
            continue
        raise LorelineError(f"{what} ({last_line(log)})", f"see {log}")


def process_name(log: Path) -> str:
    """The service that writes this log."""
    return {"seaweedfs": "SeaweedFS", "postgres": "Postgres"}.get(log.stem, log.stem)


def last_line(log: Path) -> str:
    """The last line of a log that says something."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines()]
    return next((line for line in reversed(lines) if line), "its log is empty")[:300]
