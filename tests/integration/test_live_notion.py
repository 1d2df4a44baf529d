"""Notion through its API into a real lake: what lands is what the workspace holds."""

from __future__ import annotations

import dataclasses
import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from dlt_sources.api import Patience
from dlt_sources.cursors import Cursors
from dlt_sources.landing import LoadSummary
from dlt_sources.live import load_live, plan_live
from dlt_sources.notion.live import Notion
from dlt_sources.notion.settings import TABLES
from loreline import postgres
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.catalog import find_table, load_catalog
from loreline.settings import Settings
from tests.conftest import drop_namespaces
from tests.simulators.api import FAULTS, Server, serving
from tests.simulators.notion import TOKEN, Workspace

QUICK = Patience(timeout=1, total=10, first_wait=0.01, longest_wait=0.05)
RESOURCES = {resource.name: resource for resource in TABLES.values()}
DAY = timedelta(days=1)


@dataclasses.dataclass
class Source:
    """A workspace, and the lake that it lands in."""

    settings: Settings
    workspace: Workspace
    server: Server

    def run(self, **options: Any) -> LoadSummary:
        return load_live(self.settings, "notion", Notion(self.settings, QUICK), **options)

    def requests(self, **options: Any) -> int:
        """How many requests a run makes."""
        self.server.clear()
        self.run(**options)
        return len(self.server.asked)

    def landed(self, table: str) -> dict[str, tuple[str, str]]:
        """Hashes of the newest version of each object that is not deleted."""
        name = f"{self.settings.prefix}raw_notion.{table}"
        found = find_table(load_catalog(self.settings), name)
        if found is None:
            return {}
        order = ("observed_at", "source_updated_at", "_batch", "landed_at")
        state = ("external_id", "content_hash", "metadata_hash", "is_deleted")
        rows = found.scan(selected_fields=(*state, *order)).to_arrow()
        # Nulls come first, so that the newest of each object is the last.
        rows = rows.sort_by([(name, "ascending", "at_start") for name in order])
        newest = {row["external_id"]: row for row in rows.to_pylist()}
        return {
            identity: (row["content_hash"], row["metadata_hash"])
            for identity, row in newest.items()
            if not row["is_deleted"]
        }

    def expected(self, table: str) -> dict[str, tuple[str, str]]:
        return {
            identity: RESOURCES[table].hashes(payload)
            for identity, payload in self.workspace.current()[table].items()
        }

    def assert_all_is_landed(self) -> None:
        for table in RESOURCES:
            assert self.landed(table) == self.expected(table), table


@contextmanager
def source_of(settings: Settings, workspace: Workspace | None = None) -> Iterator[Source]:
    workspace = workspace or Workspace()
    with serving(workspace, hang=0.05, retry_after=0.01) as server:
        own = dataclasses.replace(
            settings, notion_url=server.url, notion_token=TOKEN, notion_rate="0"
        )
        yield Source(own, workspace, server)


@pytest.fixture(scope="module")
def lake(stack: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A lake that all tests land in."""
    own = dataclasses.replace(
        stack,
        target="ci",
        namespace_suffix=f"t{uuid.uuid4().hex[:10]}",
        state_folder=str(tmp_path_factory.mktemp("state")),
    )
    postgres.upgrade(own)
    yield own
    drop_namespaces(own)


@pytest.fixture(scope="module")
def one_source(lake: Settings) -> Iterator[Source]:
    with source_of(lake) as source:
        source.run()
        yield source


@pytest.fixture
def source(one_source: Source) -> Source:
    """The workspace that all tests work on, which goes on from day to day; nothing is wrong."""
    workspace = one_source.workspace
    workspace.missed, workspace.refused, workspace.broken_entries = set(), set(), []
    workspace.now += DAY
    one_source.server.clear()
    return one_source


def fill(workspace: Workspace, pages: int) -> list[str]:
    """Pages at the top, below each other and in a table, each with a block and a comment."""
    ids = [workspace.add_page("Home").id]
    table = workspace.add_source("Orders", ids[0])
    for n in range(1, pages):
        if n % 3 == 0:
            page = workspace.add_page(f"Row {n}", source=table.id)
        else:
            page = workspace.add_page(f"Page {n}", ids[n // 10] if n % 3 == 1 else None)
        workspace.add_block(page.id, f"text {n}")
        workspace.comment(page.id, f"comment {n}")
        ids.append(page.id)
    workspace.now += DAY
    return ids


def test_a_workspace_lands_and_stays_true(source: Source) -> None:
    workspace = source.workspace
    source.run(sweep=True)
    ids = fill(workspace, 25)
    first = source.run(sweep=True)
    assert (first.landed["pages"], first.landed["comments"], first.quarantined) == (25, 24, {})
    source.assert_all_is_landed()

    again = source.run(sweep=True)
    assert (again.rows, again.snapshots) == (0, {})

    workspace.edit(ids[3], "Another name")
    workspace.now += timedelta(minutes=5)
    changed = source.run()
    assert (changed.landed["pages"], changed.tombstones) == (1, 0)

    workspace.trash(ids[4])
    workspace.destroy(ids[5])
    workspace.pages[ids[6]].is_shared = False
    del workspace.comments[next(iter(workspace.comments))]
    workspace.now += timedelta(minutes=5)
    gone = source.run(sweep=True)
    assert gone.tombstones >= 4
    source.assert_all_is_landed()

    workspace.trash(ids[4], is_trashed=False)
    workspace.pages[ids[6]].is_shared = True
    workspace.move(ids[7], ids[8])
    workspace.now += timedelta(minutes=5)
    source.run(sweep=True)
    source.assert_all_is_landed()


def test_what_search_does_not_show_is_found(source: Source) -> None:
    workspace = source.workspace
    home = workspace.add_page("Home")
    table = workspace.add_source("Orders", home.id)
    below = workspace.add_page("Below", home.id)
    deeper = workspace.add_page("Deeper", below.id)
    rows = [workspace.add_page(f"Row {n}", source=table.id) for n in range(3)]
    inner = workspace.add_page("In a row", rows[0].id)
    workspace.now += DAY
    workspace.missed = {table.id, below.id, deeper.id, inner.id, *(row.id for row in rows)}
    source.run(sweep=True)
    source.assert_all_is_landed()
    workspace.edit(deeper.id, "Deeper still")
    workspace.now += timedelta(minutes=5)
    source.run(sweep=True)
    source.assert_all_is_landed()


def test_two_edits_in_a_minute_are_both_landed(source: Source) -> None:
    workspace = source.workspace
    page = workspace.add_page("One")
    source.run()
    workspace.now += timedelta(seconds=20)
    workspace.edit(page.id, "Two")
    workspace.missed.add(page.id)
    workspace.now += timedelta(minutes=5)
    assert source.run().landed["pages"] == 1
    assert source.landed("pages")[page.id] == source.expected("pages")[page.id]
    assert source.requests() == 1


def test_what_is_too_much_is_not_deleted(source: Source) -> None:
    workspace = source.workspace
    fill(workspace, 20)
    source.run()
    for each in list(workspace.pages.values())[::2]:
        each.is_shared = False
    before = source.landed("pages")
    source.server.clear()
    with pytest.raises(LorelineError, match="notion pages are gone, more than 15%"):
        source.run(sweep=True)
    assert source.landed("pages") == before
    assert not any(asked.path.startswith("/v1/pages/") for asked in source.server.asked)
    source.run(sweep=True, allow_deletes=True)
    source.assert_all_is_landed()


def test_a_walk_that_does_not_end_deletes_nothing(source: Source) -> None:
    workspace = source.workspace
    ids = fill(workspace, 12)
    source.run()
    workspace.destroy(ids[-1])
    workspace.edit(ids[2], "Changed")
    workspace.now += timedelta(minutes=5)
    impatient = Patience(timeout=1, total=0.3, first_wait=0.01, longest_wait=0.05)
    source.server.clear()
    source.server.faults = dict.fromkeys(range(4, 10_000), "500")
    with pytest.raises(LorelineError, match="did not answer"):
        load_live(source.settings, "notion", Notion(source.settings, impatient), sweep=True)
    assert ids[-1] in source.landed("pages")
    source.server.clear()
    source.run(sweep=True)
    source.assert_all_is_landed()


def test_an_interrupted_walk_goes_on(source: Source) -> None:
    workspace = source.workspace
    ids = set(fill(workspace, 30))
    impatient = Patience(timeout=1, total=0.3, first_wait=0.01, longest_wait=0.05)
    source.server.faults = dict.fromkeys(range(60, 10_000), "500")
    with pytest.raises(LorelineError, match="did not answer"):
        load_live(source.settings, "notion", Notion(source.settings, impatient), sweep=False)
    landed = len(ids & source.landed("pages").keys())
    assert 10 < landed < 30
    source.server.clear()
    done = source.run()
    assert done.landed["pages"] == 30 - landed
    assert ids <= source.landed("pages").keys()


def test_what_was_met_before_a_run_ended_is_read_by_the_next(source: Source) -> None:
    workspace = source.workspace
    home = workspace.add_page("Home of what is met")
    workspace.now += DAY
    source.run()
    below = workspace.add_page("Below", home.id)
    workspace.missed.add(below.id)
    workspace.now += timedelta(minutes=5)
    impatient = Patience(timeout=1, total=0.3, first_wait=0.01, longest_wait=0.05)
    # The list, and three requests for the page above.
    source.server.clear()
    source.server.faults = dict.fromkeys(range(4, 1_000), "500")
    with pytest.raises(LorelineError, match="did not answer"):
        load_live(source.settings, "notion", Notion(source.settings, impatient), sweep=False)
    landed = source.landed("pages")
    assert landed[home.id] == source.expected("pages")[home.id]
    assert below.id not in landed
    source.server.clear()
    assert source.run().landed["pages"] == 1
    assert below.id in source.landed("pages")


def test_killed_between_commit_and_cursor(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = source.workspace
    ids = fill(workspace, 5)
    save = Cursors.save

    def dies(cursors: Cursors, values: dict[str, Any]) -> None:
        if "listed_at" in values:
            raise KeyboardInterrupt
        save(cursors, values)

    monkeypatch.setattr(Cursors, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        source.run()
    monkeypatch.undo()
    # In the very same second.
    workspace.edit(ids[0], "Changed")
    assert source.run().landed["pages"] == 1
    workspace.destroy(ids[1])
    source.run(sweep=True)
    source.assert_all_is_landed()


def test_deliveries_bring_the_newest_version(source: Source) -> None:
    workspace = source.workspace
    ids = fill(workspace, 6)
    source.run()
    database = list(workspace.sources.values())[-1]
    block = workspace.add_block(ids[1], "see here")
    workspace.comment(ids[1], "on the page")
    on_block = workspace.comment(ids[1], "on a block", block.id)
    workspace.destroy(ids[2])
    user = workspace.add_user("Bo", "bo@example.com")
    database.title = "Purchases"
    names = {
        f"page:{ids[1]}": "d1",
        f"page:{ids[2]}": "d2",
        f"comment:{ids[1]}:": "d3",
        f"comment:{ids[1]}:{block.id}": "d4",
        f"user:{user}": "d5",
        f"data_source:{database.id}": "d6",
        f"database:{database.database_id}": "d7",
        "page:00000000-0000-0000-0000-000000000000": "d8",
    }
    source.run(deliveries=names)
    landed = source.landed("comments")
    assert on_block in landed
    workspace.now += timedelta(minutes=5)
    del workspace.comments[on_block]
    source.run(deliveries={f"comment:{ids[1]}:{block.id}": "d9"})
    assert on_block not in source.landed("comments")
    for table in ("users", "databases", "data_sources"):
        assert source.landed(table).items() >= source.expected(table).items()
    with duck.connect(source.settings) as lake:
        name = f"lake.{source.settings.prefix}raw_notion.pages"
        rows = lake.execute(
            f"select external_id, is_deleted from {name} where delivery_id in ('d1', 'd2', 'd8')"
        ).fetchall()
    assert sorted(rows) == [(ids[1], False), (ids[2], True)]
    with pytest.raises(LorelineError, match="names nothing"):
        source.run(deliveries={"nonsense:1": "d10"})


def test_what_the_integration_may_not_read_is_left_out(source: Source) -> None:
    workspace = source.workspace
    fill(workspace, 4)
    source.run()
    landed = source.landed("comments"), source.landed("users")
    workspace.refused = {"comments", "users"}
    assert source.run(sweep=True).tombstones == 0
    assert (source.landed("comments"), source.landed("users")) == landed


def test_hostile_entries_are_set_aside(source: Source) -> None:
    workspace = source.workspace
    fill(workspace, 3)
    workspace.broken_entries = [
        None,
        "page",
        {"object": "page"},
        {"object": "page", "id": 7},
        {"object": "page", "id": "x", "last_edited_time": "soon"},
        {"object": "robot", "id": "y"},
    ]
    workspace.users["u"] = {"object": "user", "name": "nobody"}
    done = source.run(sweep=True)
    assert done.quarantined.total() == 7
    assert set(done.quarantined) == {"wrong_type", "missing_id"}
    del workspace.users["u"]
    source.assert_all_is_landed()


def test_a_plan_says_how_much_there_is(source: Source, lake: Settings) -> None:
    with source_of(fresh(lake)) as untouched:
        fill(untouched.workspace, 8)
        fetching = Notion(dataclasses.replace(untouched.settings, notion_rate="3"), QUICK)
        planned = plan_live(untouched.settings, "notion", fetching)
        assert (planned.objects, planned.rate) == (8, 3.0)
        assert planned.requests >= 24
        assert untouched.landed("pages") == {}
    source.run()
    source.workspace.add_page("New")
    planned = plan_live(source.settings, "notion", Notion(source.settings, QUICK))
    assert (planned.objects, planned.requests) == (1, 4)


def fresh(settings: Settings) -> Settings:
    """Settings with namespaces and schemas of their own, below those of a test's."""
    own = dataclasses.replace(
        settings, namespace_suffix=f"{settings.namespace_suffix}_{uuid.uuid4().hex[:6]}"
    )
    postgres.upgrade(own)
    return own


def test_nothing_new_takes_as_many_requests_however_much_there_is(source: Source) -> None:
    asked = []
    for pages in (50, 450):
        fill(source.workspace, pages)
        source.run()
        asked.append([source.requests(), source.requests()])
        planned = plan_live(source.settings, "notion", Notion(source.settings, QUICK))
        assert (planned.requests, planned.objects) == (1, 0)
    assert asked == [[1, 1], [1, 1]]


class AnyHistory(RuleBasedStateMachine):
    """People work on a workspace, also while it is read; the service fails; search is late."""

    settings: Settings

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        # What is chosen among what is there; Hypothesis chooses what happens.
        self.random = random.Random(seed)
        self.held = source_of(fresh(self.settings))
        self.source = self.held.__enter__()
        self.workspace = self.source.workspace
        self.edited: set[str] = set()
        fill(self.workspace, 12)

    def teardown(self) -> None:
        if hasattr(self, "held"):
            self.sweep()
            self.held.__exit__(None, None, None)

    def there(self) -> list[str]:
        return [page for page in self.workspace.pages if self.workspace.is_there(page)]

    def some(self) -> str:
        return self.random.choice(self.there())

    def note(self, page: str) -> None:
        self.edited.add(page)

    @rule(where=st.sampled_from(["top", "below", "row"]), is_missed=st.booleans())
    def add(self, where: str, is_missed: bool) -> None:
        sources = [s for s in self.workspace.sources if self.workspace.is_there(s)]
        if where == "row" and sources:
            page = self.workspace.add_page("Row", source=self.random.choice(sources))
        elif where == "below" and self.there():
            page = self.workspace.add_page("Below", self.some())
        else:
            page, is_missed = self.workspace.add_page("Top"), False
        self.workspace.add_block(page.id, "text")
        if is_missed:
            self.workspace.missed.add(page.id)
        self.note(page.id)

    @rule(text=st.sampled_from(["", "a", "b", "c"]), kind=st.sampled_from(["edit", "add", "cut"]))
    def change(self, text: str, kind: str) -> None:
        if not self.there():
            return
        page = self.some()
        blocks = self.workspace.pages[page].blocks
        texts = [b for b in blocks if not b.kind.startswith("child") and b.kind != "synced_block"]
        if kind == "add" or not texts:
            toggle = self.workspace.add_block(page, text, "toggle")
            self.workspace.add_block(page, text, below=toggle)
        elif kind == "edit":
            self.random.choice(texts).text = text
        else:
            blocks.remove(self.random.choice(texts))
        self.workspace.touch(page)
        self.note(page)

    @rule()
    def rename(self) -> None:
        if self.there():
            page = self.some()
            self.workspace.edit(page, self.random.choice(["", "X", "Y", "Z"]))
            self.note(page)

    @rule()
    def synced(self) -> None:
        """A synced block on one page, a copy on another."""
        if len(self.there()) > 1:
            one, other = self.random.sample(self.there(), 2)
            original = self.workspace.add_block(one, kind="synced_block")
            self.workspace.add_block(one, "shared text", below=original)
            self.workspace.add_block(other, kind="synced_block", synced_from=original.id)

    @rule()
    def move(self) -> None:
        pages = [p for p in self.there() if "data_source_id" not in self.workspace.pages[p].parent]
        if len(pages) > 1:
            page, parent = self.random.sample(pages, 2)
            if page not in self.workspace._line(parent):
                self.workspace.move(page, parent)
                self.note(page)

    @rule(kind=st.sampled_from(["trash", "destroy", "unshare"]))
    def lose(self, kind: str) -> None:
        if len(self.there()) < 4:
            return
        page = self.random.choice(self.there()[1:])
        # What comes back later was edited too long ago for anything but a sweep.
        self.edited -= {each for each in self.edited if page in self.workspace._line(each)}
        if kind == "unshare":
            self.workspace.pages[page].is_shared = False
        else:
            getattr(self.workspace, kind)(page)

    @rule()
    def bring_back(self) -> None:
        for page in list(self.workspace.pages.values()):
            parent = page.parent.get("page_id") or page.parent.get("data_source_id")
            if parent and not self.workspace.is_there(parent):
                continue
            if page.is_trashed:
                self.workspace.trash(page.id, is_trashed=False)
            page.is_shared = True
        self.edited -= self.workspace.missed
        self.workspace.missed.clear()

    @rule()
    def comment(self) -> None:
        if self.there():
            self.workspace.comment(self.some(), "well")

    @rule()
    def resolve(self) -> None:
        if self.workspace.comments:
            del self.workspace.comments[self.random.choice(list(self.workspace.comments))]

    @rule(seconds=st.sampled_from([1, 20, 70, 600, 7200]))
    def time_passes(self, seconds: int) -> None:
        self.workspace.now += timedelta(seconds=seconds)

    @rule(seconds=st.sampled_from([0, 90, 400]))
    def search_is_late(self, seconds: int) -> None:
        self.workspace.lag = timedelta(seconds=seconds)

    @rule(seconds=st.sampled_from([-20, 0, 20]))
    def another_machine_answers(self, seconds: int) -> None:
        self.workspace.date_skew = timedelta(seconds=seconds)

    @rule(
        faults=st.dictionaries(st.integers(0, 40), st.sampled_from(FAULTS), max_size=4),
        sweeps=st.booleans(),
        at=st.integers(1, 40),
        happens=st.sampled_from(["change", "rename", "lose", "move", "comment", "add", "nothing"]),
    )
    def troubled_run(self, faults: dict[int, str], sweeps: bool, at: int, happens: str) -> None:
        self.source.server.clear()
        self.source.server.faults = dict(faults)
        events: dict[str, Callable[[], None]] = {
            "change": lambda: self.change("during", "edit"),
            "lose": lambda: self.lose("destroy"),
            "add": lambda: self.add("below", True),
            "nothing": lambda: None,
        }
        self.workspace.before(at, events.get(happens) or getattr(self, happens))
        self.source.run(sweep=sweeps, allow_deletes=True)
        self.workspace.during.clear()
        self.source.server.clear()

    @rule()
    def killed_run(self) -> None:
        """The service is gone for good after some requests."""
        impatient = Patience(timeout=1, total=0.05, first_wait=0.01, longest_wait=0.02)
        self.source.server.clear()
        begin = self.random.randrange(1, 30)
        self.source.server.faults = dict.fromkeys(range(begin, begin + 2_000), "500")
        fetching = Notion(self.source.settings, impatient)
        with suppress(LorelineError):
            load_live(self.source.settings, "notion", fetching, allow_deletes=True)
        self.source.server.clear()

    @rule()
    def clean_run(self) -> None:
        """What search shows is landed."""
        self.source.run(sweep=False)
        landed = self.source.landed("pages")
        expected = self.source.expected("pages")
        for page in sorted(self.edited):
            # What copies of synced blocks show is no edit of the page.
            blocks = self.workspace.pages[page].blocks if page in expected else []
            if any(block.synced_from for block in blocks):
                continue
            if page in expected and self.workspace.is_shown(page):
                assert landed.get(page) == expected[page], page
                self.edited.discard(page)

    @rule()
    def sweep(self) -> None:
        """All is landed, and nothing else."""
        self.workspace.lag = timedelta()
        self.workspace.catch_up()
        self.source.run(sweep=True, allow_deletes=True)
        self.source.assert_all_is_landed()
        self.edited.clear()


@pytest.mark.parametrize(
    ("examples", "steps"), [(2, 20), pytest.param(40, 40, marks=pytest.mark.soak)]
)
def test_any_history_ends_in_the_same_state(settings: Settings, examples: int, steps: int) -> None:
    AnyHistory.settings = settings
    run_machine(
        AnyHistory,
        settings=hypothesis_settings(
            max_examples=examples,
            stateful_step_count=steps,
            suppress_health_check=list(HealthCheck),
        ),
    )
