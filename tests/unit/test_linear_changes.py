"""Any sequence of changes and faults to Linear, landed in memory: see `tests/linear_changes.py`."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from typing import Any

import hypothesis
import pytest

from dlt_sources.linear import live
from dlt_sources.linear.client import LinearApi
from dlt_sources.linear.live import LinearLive
from dlt_sources.linear.settings import TABLES
from loreline.settings import Settings
from tests.linear_changes import QUICK, LinearChanges
from tests.simulators.api import serving
from tests.simulators.lake import Killed, MemoryLake
from tests.simulators.linear import Linear


class InMemory(LinearChanges):
    def __init__(self) -> None:
        super().__init__()
        self.held = ExitStack()
        self.linear = Linear()
        self.server = self.held.enter_context(serving(self.linear, retry_after=0.01))
        self.settings = Settings(
            linear_api_key="lin_api_key", linear_url=f"{self.server.url}/graphql", linear_rate="0"
        )
        self.lake = MemoryLake(self.settings, batches_per_commit=1)
        # So that lists of a few objects have pages.
        patch = self.held.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(live, "FEW", 2)
        patch.setattr(live, "MANY", 4)

    def teardown(self) -> None:
        self.held.close()

    def land(self, *, sweep: bool, names: list[str] | None = None, stop: int | None = None) -> None:
        source = LinearLive(self.settings, lambda s, **told: LinearApi(s, patience=QUICK, **told))
        self.lake.dies_after = stop
        with suppress(Killed):
            self.lake.run(source, sweep=sweep, names=names)
        self.lake.dies_after = None
        assert self.lake.rejects == []

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        return self.lake.live(TABLES[table])


TestInMemory = InMemory.TestCase
TestInMemory.settings = hypothesis.settings(max_examples=12, stateful_step_count=50)


@pytest.mark.soak
class TestManyInMemory(InMemory.TestCase):
    settings = hypothesis.settings(max_examples=400, stateful_step_count=120, derandomize=False)
