"""Whatever happens in a workspace, in any order and with any failure, is true after a run."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dlt_sources.api import Patience
from tests.simulators.api import FAULTS, serving
from tests.simulators.google_drive import ACCOUNT, DOCUMENT, FOLDER, Workspace, credentials
from tests.simulators.lake import Killed
from tests.unit.test_google_docs_live import World, world_of

PEOPLE = ["bo@example.com", "cy@example.com", ACCOUNT]
ROLES = ["reader", "writer", None]
# Of a busy machine; nothing here answers late on purpose.
PATIENT = Patience(timeout=60, total=600, first_wait=0.01, longest_wait=0.05)


class Changes(RuleBasedStateMachine):
    """Edits by people, failures of the service, and runs."""

    def __init__(self) -> None:
        super().__init__()
        self.held = ExitStack()
        self.workspace = Workspace()
        server = self.held.enter_context(serving(self.workspace, hang=1.0, retry_after=0.01))
        key = Path(self.held.enter_context(TemporaryDirectory())) / "key.json"
        key.write_text(credentials(server.url))
        self.world: World = world_of(self.workspace, server, str(key), PATIENT)
        self.drives: list[str] = []

    def teardown(self) -> None:
        self.held.close()

    def pick(self, data: st.DataObject, kind: str | None = None) -> str | None:
        there = [i for i, item in self.workspace.items.items() if kind in (None, item.kind)]
        return data.draw(st.sampled_from(there)) if there else None

    def place(self, data: st.DataObject, of: str | None = None) -> str | None:
        """The top of My Drive, a shared drive, or a folder that does not lie in the item."""
        folders = [
            i
            for i, item in self.workspace.items.items()
            if item.kind == FOLDER and of not in self.workspace._chain(i)
        ]
        return data.draw(st.sampled_from([None, *self.drives, *folders]))

    @initialize(page=st.sampled_from([2, 1000]), hidden=st.booleans())
    def begin(self, page: int, hidden: bool) -> None:
        w = self.workspace
        w.page, w.hidden = page, hidden
        self.drives = [w.add_drive(), w.add_drive(is_member=False)]
        for place in (None, *self.drives):
            folder = w.create("Plans", w.create("Team", place, kind=FOLDER), kind=FOLDER)
            w.create("Till", folder, shared={"bo@example.com": "reader"})
            w.create("Roadmap", folder)
        self._run(False, {})
        self.world.check()

    @rule(data=st.data(), kind=st.sampled_from([DOCUMENT, DOCUMENT, FOLDER]))
    def create(self, data: st.DataObject, kind: str) -> None:
        self.workspace.create(f"Note {self.workspace.ticks}", self.place(data), kind=kind)

    @rule(data=st.data(), tabs=st.integers(1, 3))
    def edit(self, data: st.DataObject, tabs: int) -> None:
        if identity := self.pick(data, DOCUMENT):
            texts = [f"Text {self.workspace.ticks} of {n}" for n in range(tabs)]
            self.workspace.edit(identity, *texts)

    @rule(data=st.data(), name=st.sampled_from(["", "Plans", "Pläne"]))
    def rename(self, data: st.DataObject, name: str) -> None:
        if identity := self.pick(data):
            self.workspace.rename(identity, name)

    @rule(data=st.data())
    def move(self, data: st.DataObject) -> None:
        if identity := self.pick(data):
            self.workspace.move(identity, self.place(data, identity))

    @rule(data=st.data(), trashed=st.booleans())
    def trash(self, data: st.DataObject, trashed: bool) -> None:
        if identity := self.pick(data):
            self.workspace.trash(identity, trashed=trashed)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if identity := self.pick(data):
            self.workspace.delete(identity)

    @rule(
        data=st.data(),
        kind=st.sampled_from([DOCUMENT, FOLDER]),
        who=st.sampled_from(PEOPLE),
        role=st.sampled_from(ROLES),
    )
    def share(self, data: st.DataObject, kind: str, who: str, role: str | None) -> None:
        if identity := self.pick(data, kind):
            self.workspace.share(identity, who, role)

    @rule(data=st.data(), who=st.sampled_from(PEOPLE), role=st.sampled_from(ROLES))
    def join(self, data: st.DataObject, who: str, role: str | None) -> None:
        self.workspace.join(data.draw(st.sampled_from(self.drives)), who, role)

    @rule()
    def add_drive(self) -> None:
        if len(self.drives) < 4:
            self.drives.append(self.workspace.add_drive())

    @rule(what=st.sampled_from(["the token", "the logs", "the cursors"]))
    def something_ends(self, what: str) -> None:
        cursors = self.world.lake.cursors.values
        match what:
            case "the token":
                self.workspace.expire_tokens()
            case "the logs":
                self.workspace.forgotten |= set(cursors.values())
            case "the cursors":
                cursors.clear()

    @rule(seconds=st.sampled_from([-7200.0, 0.0, 300.0]))
    def clocks_differ(self, seconds: float) -> None:
        self.world.server.clock_skew = seconds

    @rule(
        faults=st.dictionaries(
            st.integers(0, 12), st.sampled_from([f for f in FAULTS if f != "timeout"]), max_size=4
        ),
        limited=st.sets(st.integers(0, 12), max_size=4),
        sweep=st.booleans(),
    )
    def run_with_failures(self, faults: dict[int, str], limited: set[int], sweep: bool) -> None:
        self.workspace.limited = limited
        self._run(sweep, {str(number): fault for number, fault in faults.items()})
        self.workspace.limited = set()
        self.world.check(sweep)

    @rule(after=st.integers(0, 3), sweep=st.booleans())
    def a_run_is_killed(self, after: int, sweep: bool) -> None:
        self.world.lake.dies_after = after
        with suppress(Killed):
            self._run(sweep, {})
        self.world.lake.dies_after = None

    @rule(data=st.data(), at=st.integers(0, 8), sweep=st.booleans())
    def edits_during_a_run(self, data: st.DataObject, at: int, sweep: bool) -> None:
        change = data.draw(
            st.sampled_from(["edit", "delete", "trash", "share", "revoke", "move", "create"])
        )
        identity, drive = self.pick(data), data.draw(st.sampled_from(self.drives))

        def meddle(_: Any) -> None:
            w = self.workspace
            if w.requests <= at:
                return
            w.notice = None
            if change == "create":
                w.create("Meanwhile", drive)
            elif identity in w.items:
                match change:
                    case "edit":
                        w.edit(identity)
                    case "delete":
                        w.delete(identity)
                    case "trash":
                        w.trash(identity)
                    case "share":
                        w.share(identity, "di@example.com")
                    case "revoke":
                        w.share(identity, ACCOUNT, None)
                    case "move":
                        w.move(identity, drive)

        self.workspace.notice = meddle
        self._run(sweep, {})
        self.workspace.notice = None
        self._run(False, {})
        self.world.check(is_swept=False)

    @rule(sweep=st.booleans())
    def run_and_run_again(self, sweep: bool) -> None:
        self._run(sweep, {})
        self.world.check(sweep)
        self._run(sweep, {})
        assert self.world.lake.rows_landed == 0

    def _run(self, sweep: bool, faults: dict[str, str]) -> None:
        self.world.server.clear(**faults)
        self.workspace.requests = 0
        self.world.lake.run(self.world.source, sweep=sweep)


TestChanges = Changes.TestCase
TestChanges.settings = hypothesis_settings(
    max_examples=12,
    stateful_step_count=30,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.soak
def test_many_more_changes() -> None:
    class Many(Changes):
        pass

    case = Many.TestCase
    case.settings = hypothesis_settings(max_examples=400, stateful_step_count=50)
    case("runTest").runTest()
