"""Slack through its Web API, after any sequence of changes and failures."""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from dlt_sources.api import Patience
from dlt_sources.slack.live import SlackLive
from dlt_sources.versions import Resource
from loreline.settings import Settings
from tests.simulators.api import serving
from tests.simulators.lake import MemoryLake
from tests.simulators.slack import Slack
from tests.simulators.slack_machine import SlackMachine, landed_by_an_export

Json = Any
QUICK = Patience(timeout=0.3, total=20, first_wait=0.01, longest_wait=0.02)
# Without shrinking, which takes minutes; Slack's state machine is short as it is.
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


class InMemory:
    """A lake for the machine."""

    def __init__(self, settings: Settings) -> None:
        self.lake = MemoryLake(settings)
        self.source = SlackLive(settings, QUICK)

    def run(self, *, sweep: bool, names: list[str] | None = None) -> None:
        self.lake.run(self.source, sweep=sweep, names=names)

    def live(self, resource: Resource) -> dict[str, Json]:
        return self.lake.live(resource)

    def cursors(self) -> dict[str, Json]:
        return self.lake.cursors.values

    def land_export(self, files: dict[str, Json]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            for resource, item in landed_by_an_export(files, Path(folder), write_files):
                self.lake.land(resource, [item])


def write_files(folder: Path, files: dict[str, Json]) -> Path:
    """The files of an export, unpacked."""
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    return folder


class MachineInMemory(SlackMachine):
    def begin(self) -> None:
        self.held = ExitStack()
        self.slack = Slack()
        self.server = self.held.enter_context(serving(self.slack, hang=0.4, retry_after=0.01))
        self.slack.server = self.server
        self.lake = InMemory(
            Settings(slack_token="xoxb-1", slack_url=f"{self.server.url}/api", slack_rate="0")
        )

    def teardown(self) -> None:
        self.held.close()


def test_what_is_landed_is_what_is_in_slack() -> None:
    run_state_machine_as_test(
        MachineInMemory,
        settings=hypothesis_settings(
            max_examples=5, stateful_step_count=16, phases=PHASES, suppress_health_check=SLOW
        ),
    )


@pytest.mark.soak
def test_what_is_landed_is_what_is_in_slack_for_long() -> None:
    run_state_machine_as_test(
        MachineInMemory,
        settings=hypothesis_settings(
            max_examples=30,
            stateful_step_count=50,
            derandomize=False,
            phases=PHASES,
            suppress_health_check=SLOW,
        ),
    )
