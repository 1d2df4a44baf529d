"""What a local stack remembers between commands: `<home>/stack.json`, for its owner only."""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

LOOPBACK = "127.0.0.1"

# Below the range that the kernel takes ports for outgoing connections from (32768 and up on Linux),
# so that a port is still free when the stack comes back after a pause.
PORT_RANGE = range(15_000, 32_000)


@dataclass
class Process:
    """A service's process. The start time tells it from a later one that was given the same id."""

    pid: int
    started: float


@dataclass
class StackState:
    """Ports, credentials and processes of one stack.

    Attributes:
        variables: the `LORELINE_*` variables that the stack stands for; `Settings.load` reads them.
        ports: one port for each listener, by its name.
        credentials: generated secrets, by name.
        processes: what `up` started, by service.
    """

    variables: dict[str, str] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)

    @classmethod
    def load(cls, home: Path) -> StackState:
        """Read the state, empty when this folder has never held a stack."""
        path = state_file(home)
        if not path.exists():
            return cls()
        values = json.loads(path.read_text())
        values["processes"] = {k: Process(**v) for k, v in values.get("processes", {}).items()}
        return cls(**values)

    def save(self, home: Path) -> None:
        """Replace the file in one step, so that a reader never sees half of it."""
        path = state_file(home)
        draft = path.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump(asdict(self), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)

    def credential(self, name: str) -> str:
        """The secret of this name, generated the first time it is asked for."""
        return self.credentials.setdefault(name, secrets.token_hex(24))

    def choose_ports(self, names: tuple[str, ...]) -> bool:
        """Keep the remembered ports of a stopped service, or choose new ones for it.

        Returns whether any changed: the caller must start the service with the new ones.
        """
        remembered = [self.ports.get(name) for name in names]
        if all(port and is_free(port) for port in remembered):
            return False
        for name in names:
            self.ports.pop(name, None)
        for name in names:
            self.ports[name] = free_port(set(self.ports.values()))
        return True


def state_file(home: Path) -> Path:
    """Where `StackState` is kept."""
    return home / "stack.json"


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Let one command at a time start or stop this stack; the others wait."""
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (home / "stack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def is_free(port: int) -> bool:
    """Whether nothing listens on this port of the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # Without it the port of a service that has just stopped counts as taken for a minute.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port(taken: set[int]) -> int:
    """A free port that is not among those already given away.

    Random, so that two stacks that start at the same moment hardly ever pick the same one.
    """
    while True:
        port = random.choice(PORT_RANGE)  # noqa: S311 - not a secret
        if port not in taken and is_free(port):
            return port
