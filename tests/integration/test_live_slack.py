"""Slack through its Web API into a real lake."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis.stateful import run_state_machine_as_test

from dlt_sources import load
from dlt_sources.api import Patience
from dlt_sources.cursors import Cursors
from dlt_sources.live import load_live, plan_live
from dlt_sources.live_sources import live_source
from dlt_sources.slack.live import SlackLive
from dlt_sources.slack.settings import CHANNELS, MESSAGES
from dlt_sources.versions import Resource
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.catalog import find_table, load_catalog
from loreline.postgres import connect, in_schema
from loreline.settings import Settings
from tests.simulators.api import Server, serving
from tests.simulators.slack import BOT, Slack
from tests.simulators.slack_machine import SlackMachine
from tests.unit.test_slack_machine import SLOW, write_files

Json = Any
QUICK = Patience(timeout=0.5, total=20, first_wait=0.01, longest_wait=0.05)


@dataclass
class Landed:
    """A real lake, as the state machine asks it; each has cursors and tables of its own."""

    settings: Settings
    folder: Path

    def run(self, *, sweep: bool, names: list[str] | None = None) -> None:
        deliveries = None if names is None else dict.fromkeys(names, "delivery")
        load_live(
            self.settings,
            "slack",
            SlackLive(self.settings, QUICK),
            sweep=sweep,
            allow_deletes=True,
            deliveries=deliveries,
        )

    def live(self, resource: Resource) -> dict[str, Json]:
        name = f"{self.settings.prefix}raw_slack.{resource.name}"
        if find_table(load_catalog(self.settings), name) is None:
            return {}
        with duck.connect(self.settings) as lake:
            rows = lake.execute(
                f"""
                select external_id, payload, is_deleted
                from lake.{name}
                qualify row_number() over (
                    partition by external_id
                    order by observed_at desc, source_updated_at desc nulls last,
                        _batch desc, landed_at desc
                ) = 1
                """
            ).fetchall()
        return {i: json.loads(payload) for i, payload, is_deleted in rows if not is_deleted}

    def cursors(self) -> dict[str, Json]:
        with connect(self.settings) as connection:
            query = "select name, value from {}.source_cursors where source = 'slack'"
            rows = connection.execute(in_schema(self.settings, "operations", query))
            return dict(rows.fetchall())

    def land_export(self, files: dict[str, Json]) -> None:
        number = len(list(self.folder.iterdir()))
        folder = self.folder / f"export-{number}"
        folder.mkdir()
        load(self.settings, "slack", write_files(folder, files))


@dataclass
class World:
    """A workspace, where it is served, and the lake."""

    slack: Slack
    server: Server
    settings: Settings
    lake: Landed

    def load(self, **options: Json) -> Any:
        return load_live(self.settings, "slack", SlackLive(self.settings, QUICK), **options)


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> Iterator[World]:
    slack = Slack()
    (tmp_path / "exports").mkdir()
    with serving(slack) as server:
        slack.server = server
        own = _reads(settings, server)
        yield World(slack, server, own, Landed(own, tmp_path / "exports"))


def _reads(settings: Settings, server: Server) -> Settings:
    return dataclasses.replace(
        settings, slack_token="xoxb-1", slack_url=f"{server.url}/api", slack_rate="0"
    )


def test_a_workspace_lands_and_stays_true(world: World) -> None:
    slack = world.slack
    channel, private = slack.add_channel(), slack.add_channel("private")
    root = slack.post(channel, "a message")
    slack.post(channel, "a reply", thread=root, broadcast=True)
    slack.post(private, "between us")
    assert live_source(world.settings, "slack")
    assert live_source(dataclasses.replace(world.settings, slack_token=""), "slack") is None
    assert plan_live(world.settings, "slack", SlackLive(world.settings, QUICK)).requests > 0
    first = world.load()
    assert dict(first.landed) == {"channels": 2, "users": 4, "messages": 3}
    again = world.load()
    assert (again.rows, again.snapshots, again.outdated) == (0, {}, 0)

    # The same workspace as an export says nothing new, before and after.
    world.lake.land_export(slack.export())
    assert world.load(sweep=True).rows == 0
    exported = load(world.settings, "slack", world.lake.folder / "export-0", again=True)
    assert (exported.rows, exported.quarantined.total()) == (0, 0)

    slack.delete(channel, root)
    private.members.discard(BOT)
    changed = world.load()
    assert (changed.rows, changed.tombstones) == (2, 2)
    assert private.id not in world.lake.live(CHANNELS)

    ts = slack.post(channel, "in a moment")
    name = f"message:{channel.id}:{ts}:"
    delivered = world.load(deliveries={name: "Ev1"})
    assert delivered.rows == 1
    with duck.connect(world.settings) as lake:
        table = f"lake.{world.settings.prefix}raw_slack.messages"
        query = f"select landed_by, delivery_id from {table} where external_id like '%:{ts}'"
        assert lake.execute(query).fetchall() == [("webhook", "Ev1")]


def test_an_export_before_the_api_makes_no_doubles(world: World) -> None:
    slack = world.slack
    for kind in ("public", "private", "mpim", "im"):
        channel = slack.add_channel(kind)
        root = slack.post(channel, "a message")
        slack.post(channel, "a reply", thread=root)
    left_out = slack.add_channel("private", with_bot=False)
    slack.post(left_out, "known from the export alone")
    world.lake.land_export(slack.export())
    first = world.load(sweep=True)
    assert (first.rows, first.tombstones) == (0, 0)
    assert left_out.id in world.lake.live(CHANNELS)


def test_too_much_is_not_deleted_unless_that_is_allowed(world: World) -> None:
    channel = world.slack.add_channel()
    for n in range(40):
        world.slack.post(channel, f"{n}")
    world.load()
    for ts in list(channel.messages)[:20]:
        world.slack.delete(channel, ts)
    with pytest.raises(LorelineError, match="20 of 40 slack messages are gone, more than 15%"):
        world.load(sweep=True)
    assert len(world.lake.live(MESSAGES)) == 40
    assert world.load(sweep=True, allow_deletes=True).tombstones == 20
    assert len(world.lake.live(MESSAGES)) == 20


def test_a_run_that_dies_after_the_commit_and_before_the_cursor(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel = world.slack.add_channel()
    root = world.slack.post(channel, "a message")
    world.slack.post(channel, "a reply", thread=root)

    def die(*_: Json) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Cursors, "save", die)
        with pytest.raises(KeyboardInterrupt):
            world.load()
    assert len(world.lake.live(MESSAGES)) == 2
    assert not world.lake.cursors()
    world.slack.post(channel, "meanwhile")
    assert world.load().landed["messages"] == 1
    assert world.load().rows == 0


def _machine(settings: Settings, folder: Path) -> type[SlackMachine]:
    class MachineInTheLake(SlackMachine):
        def begin(self) -> None:
            self.held = ExitStack()
            self.slack = Slack()
            self.server = self.held.enter_context(serving(self.slack, hang=0.6, retry_after=0.01))
            self.slack.server = self.server
            own = _reads(settings, self.server)
            self.lake = Landed(own, folder)

        def teardown(self) -> None:
            self.held.close()
            catalog = load_catalog(settings)
            for table in ("channels", "users", "messages"):
                name = f"{settings.prefix}raw_slack.{table}"
                if find_table(catalog, name):
                    catalog.drop_table(name)
            with connect(settings, autocommit=True) as connection:
                connection.execute(in_schema(settings, "operations", "truncate {}.source_cursors"))

    return MachineInTheLake


def test_what_is_landed_is_what_is_in_slack(settings: Settings, tmp_path: Path) -> None:
    run_state_machine_as_test(
        _machine(settings, tmp_path),
        settings=hypothesis_settings(
            max_examples=1, stateful_step_count=10, suppress_health_check=SLOW
        ),
    )


@pytest.mark.soak
def test_what_is_landed_is_what_is_in_slack_for_long(settings: Settings, tmp_path: Path) -> None:
    run_state_machine_as_test(
        _machine(settings, tmp_path),
        settings=hypothesis_settings(
            max_examples=10, stateful_step_count=40, derandomize=False, suppress_health_check=SLOW
        ),
    )
