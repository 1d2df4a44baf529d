"""The local stack: start it, stop it, look at it, and hand its addresses to other programs."""

from __future__ import annotations

import json
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loreline.cli.options import Json
from loreline.cli.output import print_json, print_table, say, warn
from loreline.errors import LorelineError

if TYPE_CHECKING:
    from loreline.settings import Settings
    from loreline.stack import ServiceStatus

# The listeners that people connect to; the others are between the parts of a service.
_PUBLIC_PORTS = {"s3": "S3", "catalog": "catalog", "postgres": "Postgres"}


def up(as_json: Json = False) -> None:
    """Start the local stores; harmless when they run.

    SeaweedFS serves S3 and the Iceberg catalog; Postgres brings pgvector. All they need is in
    LORELINE_HOME, which is .loreline in the checkout unless it is set.
    """
    from loreline.settings import Settings

    services = _lifecycle().up(Settings.load().home)
    if as_json:
        print_json([record(service) for service in services])
        return
    print_services(services)
    warn_of_other_addresses(Settings.load())


def down(as_json: Json = False) -> None:
    """Stop the local stores; the data stay."""
    from loreline.settings import Settings

    settings = Settings.load()
    stopped = _lifecycle().down(settings.home)
    if as_json:
        print_json({"stopped": stopped})
    elif stopped:
        say(f"Stopped {' and '.join(stopped)}. The data stay in {settings.home}.")
    else:
        say("Nothing was running.")


def env(
    duckdb_init: Annotated[
        bool,
        typer.Option(
            "--duckdb-init",
            help="Print the SQL that attaches the lake as `lake` and Postgres as `pg`, read-only.",
        ),
    ] = False,
) -> None:
    """Print addresses and credentials for other programs.

    For a shell: eval "$(loreline env)". For a DuckDB of the same version:
    duckdb -init <(loreline env --duckdb-init).
    """
    from loreline.settings import Settings
    from loreline.stack import environment

    settings = Settings.load()
    lines = environment.duckdb_init(settings) if duckdb_init else environment.export_lines(settings)
    print(lines, end="")


def doctor(as_json: Json = False) -> None:
    """Check the stores, their versions and the credentials.

    Exit code 1 when something is wrong; it is said what to do.
    """
    from loreline.settings import Settings
    from loreline.stack import doctor as examination

    checks = list(examination.checks(Settings.load()))
    if as_json:
        print_json([vars(check) for check in checks])
    else:
        rows = [["ok" if c.ok else "FAILED", c.name, c.detail] for c in checks]
        print_table(["", "check", "finding"], rows)
        for check in checks:
            if not check.ok and check.next_step:
                say(f"{check.name}: {check.next_step}")
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def upgrade(as_json: Json = False) -> None:
    """Bring the Postgres schema up to date."""
    from loreline import postgres
    from loreline.settings import Settings

    applied = postgres.upgrade(Settings.load())
    if as_json:
        print_json({"applied": [str(migration) for migration in applied]})
    elif applied:
        print_table(["applied"], [[str(migration)] for migration in applied])
    else:
        say("The schema is up to date.")


def _lifecycle() -> ModuleType:
    try:
        from loreline.stack import lifecycle
    except ModuleNotFoundError as error:
        raise LorelineError(
            f"the local stack is not installed ({error.name} is missing)",
            "run `pip install 'loreline[stack]'`, or set LORELINE_* to services of yours",
        ) from error
    return lifecycle


def services(settings: Settings) -> list[ServiceStatus]:
    """The services of the local stack, as they are now."""
    return _lifecycle().status(settings.home)


def is_elsewhere(settings: Settings) -> bool:
    """Whether each store has an address, none of which the local stack stands for."""
    names = ("LORELINE_CATALOG_URI", "LORELINE_S3_ENDPOINT", "LORELINE_POSTGRES_URL")
    # Read as it is: whoever has all stores elsewhere need not have installed the stack.
    file = settings.home / "stack.json"
    remembered = json.loads(file.read_text())["variables"] if file.exists() else {}
    in_use = settings.environment()
    return all(in_use.get(name) and in_use[name] != remembered.get(name) for name in names)


def record(service: ServiceStatus) -> dict[str, Any]:
    """A service as JSON."""
    return {
        "name": service.name,
        "ready": service.ready,
        "pid": service.pid,
        "ports": service.ports,
        "log": service.log,
    }


def print_services(services: list[ServiceStatus]) -> None:
    """A table of the services, and where to look where one does not answer."""
    rows = [[s.name, _state(s), s.pid, _addresses(s)] for s in services]
    print_table(["service", "state", "pid", "listens on 127.0.0.1"], rows)
    if broken := [s for s in services if not s.ready and s.pid is not None]:
        say(f"see {', '.join(str(s.log) for s in broken)}")


def _state(service: ServiceStatus) -> str:
    if service.ready:
        return "ready"
    return "stopped" if service.pid is None else "not ready"


def _addresses(service: ServiceStatus) -> str:
    known = [(label, service.ports.get(name)) for name, label in _PUBLIC_PORTS.items()]
    return ", ".join(f"{label} :{port}" for label, port in known if port)


def warn_of_other_addresses(settings: Settings) -> None:
    """Say so when the environment outranks the stack, so that nobody looks at the wrong one."""
    from loreline.stack.state import StackState

    remembered = StackState.load(settings.home).variables
    in_use = settings.environment()
    elsewhere = [name for name, value in remembered.items() if in_use.get(name) != value]
    if elsewhere:
        warn(
            f"{', '.join(elsewhere)} in the environment point elsewhere: "
            "the commands use those addresses (`loreline doctor` looks at them)"
        )
