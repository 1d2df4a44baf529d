"""What happens to a workspace of Linear, in any order, and what must be landed of it then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from dlt_sources.api import Patience
from dlt_sources.linear.settings import HAVE_A_BIN, TABLES
from loreline.errors import LorelineError
from tests.simulators.api import FAULTS, Server
from tests.simulators.linear import TROUBLES, Linear

QUICK = Patience(timeout=20, total=60, first_wait=0.005, longest_wait=0.02)
EDITABLE = ("issues", "comments", "documents", "projects", "attachments", "labels", "cycles")
TEXTS = {"issues": "title", "comments": "body", "labels": "name", "projects": "name"}

any_number = st.integers(min_value=0, max_value=10_000)
# Not after the longest list of requests that a run of such a small workspace makes.
any_request = st.integers(min_value=0, max_value=14)


def is_gone(table: str, value: dict[str, Any]) -> bool:
    return value["archivedAt"] is not None or (table in HAVE_A_BIN and bool(value.get("trashed")))


def disagreement(linear: Linear, table: str, value: dict[str, Any], payload: dict[str, Any]) -> str:
    """The field of a landed payload that differs from the object; empty where none does."""
    for name, told in payload.items():
        held = value.get(name)
        if name in ("labels", "members"):
            other = linear.objects["labels" if name == "labels" else "users"]
            told = sorted(node["id"] for node in told["nodes"] if node["id"] in other)
            held = sorted(each for each in held or () if each in other)
        elif name == "sharedAccess":
            told = sorted(user["id"] for user in told["sharedWithUsers"])
            held = sorted(value.get("sharedWith", ()))
        elif isinstance(told, dict):
            told = told["id"]
            held = held["id"] if isinstance(held, dict) else held
        if told != held:
            return f"{table} {value['id']}: {name} is landed as {told!r}, and is {held!r}"
    return ""


class LinearChanges(RuleBasedStateMachine):
    """Changes, faults and runs; who subclasses it says how to land and what is landed."""

    server: Server
    linear: Linear

    def land(self, *, sweep: bool, names: list[str] | None = None, stop: int | None = None) -> None:
        """One run: of all, or of names; it is killed after `stop` batches."""
        raise NotImplementedError

    def rows(self, table: str) -> dict[str, dict[str, Any]]:
        """Payloads by id of what is landed and not deleted."""
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        linear = self.linear
        self.users = [linear.user(name) for name in ("Ann", "Bob", "Cleo")]
        self.teams = [
            linear.team("WEB", members=self.users),
            linear.team("OPS", members=self.users[:1], private=True),
            linear.team("HR", members=self.users[1:], private=True),
        ]
        self.labels = [linear.create("labels", name=f"label {n}") for n in range(14)]
        # Whether something waits to disturb the next run.
        self.is_disturbed = False
        # What changes are not told by `updatedAt`: they wait for a sweep.
        self.untold: set[str] = set()
        self.all_untold = False

    # -- changes ---------------------------------------------------------------------------------

    def pick(self, table: str, number: int) -> str | None:
        there = sorted(self.linear.objects[table])
        return there[number % len(there)] if there else None

    @rule(team=any_number, labels=any_number)
    def create_issue(self, team: int, labels: int) -> None:
        self.linear.issue(
            self.teams[team % len(self.teams)],
            "Till is slow",
            labels=self.labels[: labels % len(self.labels)],
            assignee=self.users[labels % len(self.users)],
        )

    @rule(issue=any_number, many=st.booleans())
    def comment(self, issue: int, many: bool) -> None:
        if owner := self.pick("issues", issue):
            for _ in range(12 if many else 1):
                self.linear.create("comments", body="Looking.", issue=owner, user=self.users[0])

    @rule(issue=any_number, number=any_number)
    def attach(self, issue: int, number: int) -> None:
        if owner := self.pick("issues", issue):
            self.linear.create("attachments", title="Log", issue=owner)
            self.linear.create("documents", title=f"Plan {number}", issue=owner)
        self.linear.create("projects", name=f"Project {number}")
        self.linear.create("cycles", number=number, team=self.teams[number % 3])

    @rule(one=any_number, other=any_number)
    def relate(self, one: int, other: int) -> None:
        issue, related = self.pick("issues", one), self.pick("issues", other)
        if issue and related and issue != related:
            self.linear.create("relations", type="blocks", issue=issue, relatedIssue=related)

    @rule(issue=any_number, times=st.integers(1, 15))
    def edit_issue(self, issue: int, times: int) -> None:
        if owner := self.pick("issues", issue):
            for n in range(times):
                self.linear.retitle(owner, f"Till is slow, {times}.{n}")

    @rule(table=st.sampled_from(sorted(TEXTS)), number=any_number)
    def edit(self, table: str, number: int) -> None:
        if identity := self.pick(table, number):
            self.linear.edit(table, identity, **{TEXTS[table]: f"text {number}"})

    @rule(issue=any_number, labels=any_number)
    def label(self, issue: int, labels: int) -> None:
        if owner := self.pick("issues", issue):
            chosen = self.labels[labels % 3 : labels % len(self.labels)]
            self.linear.edit("issues", owner, labels=chosen)

    @rule(issue=any_number, team=any_number)
    def move(self, issue: int, team: int) -> None:
        if owner := self.pick("issues", issue):
            self.linear.edit("issues", owner, team=self.teams[team % len(self.teams)])
            # What hangs from it comes and goes with it, and is as it was.
            self.all_untold = True

    @rule(
        table=st.sampled_from(EDITABLE),
        number=any_number,
        is_trashed=st.booleans(),
        bumps=st.booleans(),
    )
    def put_away_or_back(self, table: str, number: int, is_trashed: bool, bumps: bool) -> None:
        identity = self.pick(table, number)
        if identity is None:
            return
        value = self.linear.objects[table][identity]
        fields: dict[str, Any] = {"archivedAt": None if value["archivedAt"] else value["createdAt"]}
        if table in HAVE_A_BIN:
            fields["trashed"] = None if value["archivedAt"] else is_trashed or None
        self.linear.edit(table, identity, bumps=bumps, **fields)
        if not bumps:
            self.untold.add(identity)

    @rule(table=st.sampled_from([*EDITABLE, "relations"]), number=any_number)
    def delete(self, table: str, number: int) -> None:
        if identity := self.pick(table, number):
            self.linear.delete(table, identity)

    @rule(team=any_number, user=any_number)
    def join_or_leave(self, team: int, user: int) -> None:
        identity, person = self.teams[team % 3], self.users[user % 3]
        members = self.linear.objects["teams"][identity]["members"]
        changed = [m for m in members if m != person] if person in members else [*members, person]
        self.linear.edit("teams", identity, bumps=False, members=changed)
        if not self.linear.objects["teams"][identity]["private"]:
            self.untold.add(identity)

    @rule(issue=any_number, users=st.integers(0, 3))
    def share(self, issue: int, users: int) -> None:
        if owner := self.pick("issues", issue):
            self.linear.edit("issues", owner, bumps=False, sharedWith=self.users[:users])
            self.untold.add(owner)

    @rule(team=any_number)
    def lose_or_regain_a_team(self, team: int) -> None:
        self.linear.lost ^= {self.teams[team % 3]}
        self.all_untold = True

    @rule(seconds=st.sampled_from([0.0, 90.0, -90.0, 1e7, -1e7]))
    def skew_the_clock(self, seconds: float) -> None:
        self.server.clock_skew = seconds

    # -- disturbances of the next run ------------------------------------------------------------

    @rule(
        request=any_request, change=st.sampled_from(["retitle", "create", "delete"]), n=any_number
    )
    def change_during_the_walk(self, request: int, change: str, n: int) -> None:
        changes: dict[str, Callable[[], None]] = {
            "retitle": lambda: self.edit_issue(n, 2),
            "create": lambda: self.create_issue(n, n),
            "delete": lambda: self.delete("issues", n),
        }
        self.linear.before[request].append(changes[change])
        self.is_disturbed = True

    @rule(request=any_request, fault=st.sampled_from([f for f in FAULTS if f != "timeout"]))
    def fail(self, request: int, fault: str) -> None:
        self.server.faults[request] = fault

    @rule(request=any_request, trouble=st.sampled_from(TROUBLES))
    def trouble(self, request: int, trouble: str) -> None:
        self.linear.troubles[request] = trouble

    # -- runs ------------------------------------------------------------------------------------

    def run_once(self, *, sweep: bool, stop: int | None = None, **options: Any) -> bool:
        """Land, and tell whether nothing came in between."""
        is_clean = not self.is_disturbed and stop is None
        self.linear.asked = 0
        self.server._received = 0
        try:
            self.land(sweep=sweep, stop=stop, **options)
        except LorelineError:
            assert self.may_fail, "a run failed that nothing disturbed"
            is_clean = False
        finally:
            self.may_fail = False
            for waiting in (self.linear.troubles, self.linear.before, self.server.faults):
                waiting.clear()
            self.is_disturbed = False
        return is_clean

    def note_troubles(self) -> None:
        self.may_fail = bool({"PARTIAL", "REFUSED"} & set(self.linear.troubles.values()))

    @rule(sweep=st.booleans())
    def run(self, sweep: bool) -> None:
        self.note_troubles()
        if not self.run_once(sweep=sweep):
            return
        if sweep:
            self.check_everything()
            self.untold.clear()
            self.all_untold = False
        else:
            self.check_what_is_told()

    @rule(batches=st.integers(0, 4), sweep=st.booleans())
    def run_and_be_killed(self, batches: int, sweep: bool) -> None:
        self.note_troubles()
        self.run_once(sweep=sweep, stop=batches)

    @rule(table=st.sampled_from(["issues", "comments", "relations"]), number=any_number)
    def deliver(self, table: str, number: int) -> None:
        self.note_troubles()
        gone = self.linear.new_id()
        identity = self.pick(table, number) or gone
        if self.run_once(sweep=False, names=[f"{table}:{identity}", f"{table}:{gone}"]):
            value = self.linear.visible(table).get(identity)
            landed = self.rows(table)
            assert gone not in landed
            assert (identity in landed) == (value is not None and not is_gone(table, value))
            if value and identity in landed:
                assert disagreement(self.linear, table, value, landed[identity]) == ""

    def check_what_is_told(self) -> None:
        if self.all_untold:
            return
        for table in TABLES:
            landed = self.rows(table)
            for identity, value in self.linear.visible(table).items():
                if identity not in self.untold:
                    assert (identity in landed) != is_gone(table, value), f"{table} {identity}"
                    if identity in landed:
                        assert disagreement(self.linear, table, value, landed[identity]) == ""

    def check_everything(self) -> None:
        for table in TABLES:
            expected = {
                identity: value
                for identity, value in self.linear.visible(table).items()
                if not is_gone(table, value)
            }
            landed = self.rows(table)
            assert landed.keys() == expected.keys(), table
            for identity, value in expected.items():
                assert disagreement(self.linear, table, value, landed[identity]) == ""

    may_fail = False
