"""Working on what was delivered: fetch, land, build.

An attempt is counted, and the time of the next one set, before it begins: whatever ends the process
meanwhile, the delivery is tried again. What was delivered several times for one object is fetched
once, and one source is worked on by one worker at a time.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import class_row

from dlt_sources.api import ApiError
from dlt_sources.landing import BusyError
from loreline.errors import LorelineError
from loreline.inbox.store import channel
from loreline.lake.maintenance import maintain
from loreline.operations.overview import fragmented
from loreline.postgres import connect, in_schema
from loreline.settings import PROJECT_ROOT, Settings

if TYPE_CHECKING:
    from loreline.cli.build import Project

DELIVERIES_AT_ONCE = 500
BUILD_ARGUMENTS = [
    *("--exclude-resource-type", "test", "--exclude-resource-type", "unit_test"),
    *("--exclude", "tag:manual+"),
    # Of the 0.9 s that dbt takes before the first node, these are more than half.
    *("--no-write-json", "--cache-selected-only"),
]
SEARCH_ARGUMENTS = [*BUILD_ARGUMENTS, "--select", "+vector_collections"]
PROJECT_FOLDERS = ("macros", "models", "python_models", "seeds", "tests/dbt")
ATTEMPTS_TOGETHER = 3
FIRST_WAIT = 5.0
LONGEST_WAIT = 3600.0
# Where nobody says that something has arrived, such as a retry whose time has come.
SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_BETWEEN_CLEANUPS = 3600.0
# The first build is run at once; the others when nothing has landed for a while, but not put off
# for ever.
QUIET_SECONDS = 10.0
LONGEST_DELAY = 120.0
# Each build adds a small file to what it writes, and reading a table takes about a millisecond for
# each of them.
WRITES_BEFORE_COMPACTION = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Claimed:
    """A delivery that is being worked on.

    Attributes:
        number: see `store.Stored`, as the others.
        delivery_id: see there.
        body: as received.
        names: of the objects.
        attempts: this one included.
        received_at: when.
    """

    number: int
    delivery_id: str
    body: bytes
    names: list[str]
    attempts: int
    received_at: datetime


# Lands what deliveries of a source name, or hold.
Land = Callable[[Settings, str, Sequence[Claimed]], int]
# Builds what changed; raises where that fails.
Build = Callable[[Settings], None]


class Worker:
    """Works on deliveries until it is stopped.

    Args:
        settings: the stores, and the sources' credentials.
        land: how deliveries of a source land.
        builds: how models are built: the first at once, the others once it is quiet. None where
            something else builds.
        told: told in a line what was done.
    """

    def __init__(
        self,
        settings: Settings,
        land: Land,
        builds: Sequence[Build] = (),
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._settings = settings
        self._land = land
        self._builds = builds
        self._told = told
        self._most_attempts = int(settings.number("inbox_attempts"))
        # How many of the builds are done; what an earlier worker landed is built first.
        self._built = 0
        self._oldest: datetime | None = None
        self._unbuilt_since = self._landed_at = -math.inf
        # Of each build: how often it has failed, and when it may be tried again.
        self._failures = [0] * len(builds)
        self._build_at = [0.0] * len(builds)
        self._cleaned_at = 0.0

    def run(self, stopped: threading.Event) -> None:
        """Work, and wait for more."""
        is_ready = False
        while not stopped.is_set():
            try:
                with connect(self._settings, autocommit=True) as connection:
                    name = psycopg.sql.Identifier(channel(self._settings))
                    connection.execute(psycopg.sql.SQL("listen {}").format(name))
                    while not stopped.is_set():
                        if self.step(stopped):
                            continue
                        if not is_ready and self._built == len(self._builds):
                            is_ready = True
                            self._told("nothing is left to do: waiting for deliveries")
                        _wait(connection, stopped)
            except (psycopg.Error, LorelineError) as error:
                self._told(f"Postgres does not answer: {error}")
                stopped.wait(SECONDS_BETWEEN_LOOKS)

    def step(self, stopped: threading.Event | None = None) -> bool:
        """Land what waits, then build; gives whether there was anything to do."""
        worked = False
        for source in self._sources():
            with self._held(source) as is_ours:
                claimed = self._claim(source) if is_ours else []
                groups = list(_groups(claimed))
                for number, group in enumerate(groups):
                    try:
                        has_landed = self._work_on(source, group)
                    except BusyError:
                        self._give_back([each for later in groups[number:] for each in later])
                        break
                    worked = True
                    if has_landed:
                        self._landed_at = time.monotonic()
                        if self._built == len(self._builds):
                            self._unbuilt_since = self._landed_at
                        self._built = 0
                        self._oldest = min(filter(None, [self._oldest, group[0].received_at]))
            if stopped and stopped.is_set():
                return worked
        if self._is_build_due():
            worked = self._try_to_build() or worked
        self._clean_up()
        return worked

    def _work_on(self, source: str, group: Sequence[Claimed]) -> bool:
        """Land a group; gives whether something new is in the lake.

        Where it fails for what one delivery names, halves of it are tried, until that one is alone.

        Raises:
            BusyError: another load of the source is running, and lets nobody in.
        """
        try:
            rows = self._land(self._settings, source, group)
        except BusyError:
            raise
        except Exception as error:
            is_of_one = isinstance(error, ApiError) or not isinstance(error, LorelineError)
            if is_of_one and len(group) > 1:
                half = len(group) // 2
                first = self._work_on(source, group[:half])
                return self._work_on(source, group[half:]) or first
            if not isinstance(error, LorelineError):
                _log.exception("%s: a delivery failed", source)
            self._failed(group, str(error) or type(error).__name__)
            self._told(f"{source}: {_counted(group)} failed: {error}")
            return False
        self._done(group)
        self._told(f"{source}: {_counted(group)}, {rows} rows landed")
        return rows > 0

    def _is_build_due(self) -> bool:
        now = time.monotonic()
        if self._built == len(self._builds) or now < self._build_at[self._built]:
            return False
        is_quiet = now - self._landed_at >= QUIET_SECONDS
        return self._built == 0 or is_quiet or now - self._unbuilt_since >= LONGEST_DELAY

    def _try_to_build(self) -> bool:
        """Run the next build; gives whether it went well."""
        number = self._built
        try:
            self._builds[number](self._settings)
        except Exception as error:
            if not isinstance(error, LorelineError):
                _log.exception("a build failed")
            self._failures[number] += 1
            self._build_at[number] = time.monotonic() + wait_after(self._failures[number])
            self._told(f"the build failed, it is tried again: {error}")
            return False
        self._built, self._failures[number] = number + 1, 0
        if self._oldest:
            seconds = (datetime.now(UTC) - self._oldest).total_seconds()
            self._told(f"built; {seconds:.1f} s after the oldest delivery")
            self._oldest = None
        return True

    def _sources(self) -> list[str]:
        query = (
            "select distinct source from {}.inbox"
            " where state = 'waiting' and next_attempt_at <= now() order by 1"
        )
        with connect(self._settings) as connection:
            found = connection.execute(in_schema(self._settings, "operations", query)).fetchall()
        return [source for (source,) in found]

    @contextmanager
    def _held(self, source: str) -> Iterator[bool]:
        """Hold the source among the workers; gives whether nobody else does."""
        with connect(self._settings, autocommit=True) as connection:
            key = f"{self._settings.prefix}inbox.{source}"
            row = connection.execute(
                "select pg_try_advisory_lock(hashtextextended(%s, 2))", [key]
            ).fetchone()
            yield row == (True,)

    def _claim(self, source: str) -> list[Claimed]:
        """Count an attempt of what waits, and say when the next one is due."""
        query = in_schema(
            self._settings,
            "operations",
            "update {}.inbox set attempts = attempts + 1, next_attempt_at = now()"
            " + make_interval(secs => least(%(first)s * 3 ^ attempts, %(longest)s))"
            # The lock of the source keeps others from changing these meanwhile.
            " where number = any(%(numbers)s)"
            " returning number, delivery_id, body, names, attempts, received_at",
        )
        due = in_schema(
            self._settings,
            "operations",
            "select number from {}.inbox where source = %s and state = 'waiting'"
            " and next_attempt_at <= now() order by number limit %s",
        )
        with (
            connect(self._settings) as connection,
            connection.cursor(row_factory=class_row(Claimed)) as cursor,
        ):
            waiting = connection.execute(due, (source, DELIVERIES_AT_ONCE)).fetchall()
            numbers = [number for (number,) in waiting]
            given = {"numbers": numbers, "first": FIRST_WAIT, "longest": LONGEST_WAIT}
            found = cursor.execute(query, given).fetchall()
        return sorted(found, key=lambda claimed: claimed.number)

    def _give_back(self, claimed: Sequence[Claimed]) -> None:
        """What was not even begun is no attempt."""
        self._execute(
            "update {}.inbox set attempts = attempts - 1, next_attempt_at = now()"
            " where state = 'waiting' and error is null and number = any(%s)",
            [each.number for each in claimed],
        )

    def _done(self, group: Sequence[Claimed]) -> None:
        """What is done stays to be known when it comes again; what it said is in the lake."""
        self._execute(
            "update {}.inbox set state = 'done', error = null, finished_at = now(), body = ''"
            " where number = any(%s)",
            [each.number for each in group],
        )

    def _failed(self, group: Sequence[Claimed], why: str) -> None:
        self._execute(
            "update {}.inbox set error = %s, state = case when attempts >= %s then 'parked'"
            " else state end, finished_at = case when attempts >= %s then now() end"
            " where number = any(%s)",
            why.replace("\0", "")[:2_000],
            self._most_attempts,
            self._most_attempts,
            [each.number for each in group],
        )

    def _clean_up(self) -> None:
        """Forget what was done long ago; a sender does not deliver it again."""
        if time.monotonic() - self._cleaned_at < SECONDS_BETWEEN_CLEANUPS and self._cleaned_at:
            return
        self._cleaned_at = time.monotonic()
        self._execute(
            "delete from {}.inbox where state in ('done', 'dropped')"
            " and finished_at < now() - make_interval(days => %s)",
            int(self._settings.number("inbox_days")),
        )

    def _execute(self, statement: str, *parameters: Any) -> None:
        with connect(self._settings) as connection:
            connection.execute(in_schema(self._settings, "operations", statement), parameters)


def wait_after(attempts: int) -> float:
    """Seconds before the next attempt, after so many."""
    return min(FIRST_WAIT * 3.0 ** (attempts - 1), LONGEST_WAIT)


def land(settings: Settings, source: str, claimed: Sequence[Claimed]) -> int:
    """Land the newest version of what deliveries name, or the events that they hold.

    Returns:
        How many rows landed.

    Raises:
        BusyError: another load of the source is running, and lets nobody in.
        LorelineError: the source did not answer, or its token is not set.
    """
    from dlt_sources.live import load_live
    from dlt_sources.live_sources import live_source

    if source == "gateway":
        from dlt_sources.gateway.live import Received

        received = Received([(each.delivery_id, each.body, each.received_at) for each in claimed])
        return load_live(settings, source, received, deliveries={}, waits=False).rows
    names = {name: each.delivery_id for each in claimed for name in each.names}
    if not names:
        return 0
    fetching = live_source(settings, source)
    if fetching is None:
        raise LorelineError(
            f"{source} delivers, and cannot be asked: its token is not set",
            "set it (docs/live-sources.md), then `loreline inbox retry --parked`",
        )
    return load_live(settings, source, fetching, deliveries=names, waits=False).rows


class WarmBuilds:
    """Builds what changed, in this process: dbt need not start, nor read the project anew.

    What search reads is built by itself, before the rest. Data tests are left to the builds on a
    schedule.
    """

    def __init__(self) -> None:
        self._projects: list[Project] = []
        self._is_warm = False
        self._files: dict[str, tuple[int, int]] = {}

    def for_search(self, settings: Settings) -> None:
        """Build what search reads.

        Raises:
            LorelineError: a model failed.
        """
        self._build(settings, 0)
        if not self._is_warm:
            _load_encoders(settings)
            # All of it stays: a collector that looks through it takes a third of a second.
            gc.collect()
            gc.freeze()
            self._is_warm = True

    def for_all(self, settings: Settings) -> None:
        """Build everything; raises as `for_search`."""
        self._build(settings, 1)

    def for_upkeep(self, settings: Settings) -> None:
        """Join the small files that many builds have left: deliveries stay as quick as they were.

        Raises:
            LorelineError: a table could not be rewritten; the others were.
        """
        with connect(settings) as connection:
            names = fragmented(connection, settings, WRITES_BEFORE_COMPACTION)
        maintain(settings, tables=names, kinds=["compact"])

    def _build(self, settings: Settings, number: int) -> None:
        from loreline.cli import build as building

        parts = (SEARCH_ARGUMENTS, BUILD_ARGUMENTS)
        files = _files_of_the_project()
        if files != self._files:
            projects = building.read_project(settings, *parts)
            self._projects = [project.only_wanted() for project in projects]
            self._files = files
        done = building.run(
            settings,
            parts[number],
            show=building.Show.problems,
            changed=True,
            project=self._projects[number],
        )
        if done.exit_code:
            raise LorelineError("a model failed", "see `loreline status`")


def _load_encoders(settings: Settings) -> None:
    """Have the models in memory: they take seconds, which the first delivery need not wait."""
    from loreline.embedding import EmbeddingConfiguration, load_encoder
    from loreline.lake import duck

    with duck.connect(settings) as lake:
        table = f"lake.{settings.prefix}embedding.embedding_configurations"
        for row in lake.table(table).to_arrow_table().to_pylist():
            load_encoder(EmbeddingConfiguration.from_row(row), settings).encode_query("")


def _files_of_the_project() -> dict[str, tuple[int, int]]:
    """When each file that dbt reads was changed last, in nanoseconds, and its size."""
    found = [path for name in PROJECT_FOLDERS for path in (PROJECT_ROOT / name).rglob("*")]
    found += PROJECT_ROOT.glob("*.yml")
    states = [(str(path), path.stat()) for path in found]
    return {path: (state.st_mtime_ns, state.st_size) for path, state in states}


def _groups(claimed: Sequence[Claimed]) -> Iterator[Sequence[Claimed]]:
    """What is worked on together: fewer from some time on, as one of them may end the process."""
    for attempts, several in groupby(sorted(claimed, key=_attempts), key=_attempts):
        waiting = list(several)
        size = max(1, DELIVERIES_AT_ONCE // 10 ** max(0, attempts - ATTEMPTS_TOGETHER))
        for start in range(0, len(waiting), size):
            yield waiting[start : start + size]


def _attempts(claimed: Claimed) -> int:
    return claimed.attempts


def _counted(group: Sequence[Claimed]) -> str:
    return "a delivery" if len(group) == 1 else f"{len(group)} deliveries"


def _wait(connection: psycopg.Connection[Any], stopped: threading.Event) -> None:
    """Until something arrives, or it is time to look."""
    until = time.monotonic() + SECONDS_BETWEEN_LOOKS
    while not stopped.is_set() and time.monotonic() < until:
        # Read to the end: the connection is locked while a reader of it waits to be continued.
        if list(connection.notifies(timeout=0.5, stop_after=1)):
            # What else was told meanwhile is no reason to look once more.
            deque(connection.notifies(timeout=0), maxlen=0)
            return
