"""Start, stop and look at the local stack."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import psutil

from loreline import postgres
from loreline.errors import LorelineError
from loreline.settings import Settings
from loreline.stack import postgresql, process, seaweedfs
from loreline.stack.state import StackState, locked

_START_SECONDS = 60.0
_ATTEMPTS = 3


class Service(Protocol):
    """What a module must offer to be a service of the stack."""

    NAME: str
    PORTS: tuple[str, ...]

    def find(self, home: Path, state: StackState) -> psutil.Process | None: ...  # noqa: D102
    def start(self, home: Path, state: StackState) -> psutil.Process: ...  # noqa: D102
    def is_ready(self, home: Path, state: StackState) -> bool: ...  # noqa: D102
    def stop(self, running: psutil.Process, state: StackState) -> None: ...  # noqa: D102
    def log(self, home: Path) -> Path: ...  # noqa: D102
    def variables(self, state: StackState) -> dict[str, str]: ...  # noqa: D102


SERVICES: tuple[Service, ...] = (seaweedfs, postgresql)  # type: ignore[assignment]


@dataclass(frozen=True)
class ServiceStatus:
    """One service as it is now.

    Attributes:
        name: `seaweedfs` or `postgres`.
        pid: its process, None when it is not running.
        ready: whether it answers and takes the stack's credentials.
        ports: its listeners, by name.
        log: where it writes what it does.
    """

    name: str
    pid: int | None
    ready: bool
    ports: dict[str, int]
    log: Path


def up(home: Path) -> list[ServiceStatus]:
    """Start what is not running, bring the schema up to date, and return when all is ready.

    Harmless when the stack is up, safe when called twice at once; recovers what a crash left.

    Raises:
        LorelineError: a service does not start; its log is named.
    """
    home = home.resolve()
    with locked(home):
        state = StackState.load(home)
        remembered = dict(state.processes)
        _start([s for s in SERVICES if not _runs_well(s, home, state)], home, state)
        if state.processes != remembered:
            state.save(home)
        postgresql.provision(state)
        _upgrade_local(home)
        return [_status(service, home, state) for service in SERVICES]


def down(home: Path) -> list[str]:
    """Stop what is running, return when it is gone, and name what was stopped."""
    home = home.resolve()
    if not home.exists():
        return []
    with locked(home):
        state = StackState.load(home)
        running = [(service, service.find(home, state)) for service in SERVICES]
        stopped = []
        for service, found in running:
            if found:
                service.stop(found, state)
                stopped.append(service.NAME)
        if state.processes:
            state.processes = {}
            state.save(home)
        return stopped


def status(home: Path) -> list[ServiceStatus]:
    """Look at each service; starts and changes nothing."""
    home = home.resolve()
    state = StackState.load(home)
    return [_status(service, home, state) for service in SERVICES]


def _status(service: Service, home: Path, state: StackState) -> ServiceStatus:
    ports = {name: state.ports[name] for name in service.PORTS if name in state.ports}
    found = service.find(home, state) if ports else None
    return ServiceStatus(
        name=service.NAME,
        pid=found.pid if found else None,
        ready=bool(found) and service.is_ready(home, state),
        ports=ports,
        log=service.log(home),
    )


def _runs_well(service: Service, home: Path, state: StackState) -> bool:
    found = service.find(home, state)
    if found and service.is_ready(home, state):
        state.processes[service.NAME] = process.remember(found)
        return True
    if found:
        service.stop(found, state)
    return False


def _start(services: list[Service], home: Path, state: StackState) -> None:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _start_once(services, home, state)
            return
        except LorelineError:
            for service in services:
                if found := service.find(home, state):
                    service.stop(found, state)
            # Somebody may have taken a port between the choice and the start.
            lost_a_port = [service for service in services if state.choose_ports(service.PORTS)]
            if attempt == _ATTEMPTS or not lost_a_port:
                raise


def _start_once(services: list[Service], home: Path, state: StackState) -> None:
    for service in services:
        state.choose_ports(service.PORTS)
        state.variables.update(service.variables(state))
    if services:
        # Before anything starts: credentials and ports must outlive a command that is killed here.
        state.save(home)
    started = []
    for service in services:
        running = service.start(home, state)
        state.processes[service.NAME] = process.remember(running)
        state.save(home)
        started.append((service, running))
    for service, running in started:
        ready = partial(service.is_ready, home, state)
        process.wait_until(ready, running, service.log(home), _START_SECONDS)


def _upgrade_local(home: Path) -> None:
    values = StackState.load(home).variables
    settings = Settings(
        postgres_url=values["LORELINE_POSTGRES_URL"],
        reader_postgres_url=values["LORELINE_READER_POSTGRES_URL"],
        state_folder=str(home),
    )
    postgres.upgrade(settings)
