"""Landing from APIs: batch by batch, each committed before the cursor that says so is saved."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa

from dlt_sources.cursors import Cursors
from dlt_sources.landing import Landing, LoadSummary
from dlt_sources.loads import recorded
from dlt_sources.pipeline import land_pending, land_tables
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.sweeps import Rails
from dlt_sources.versions import Resource
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any

# What is fetched waits for its commit no longer than this, and is no more than that: it is what a
# killed run has to fetch again.
SECONDS_PER_COMMIT = 30.0
# How often a run looks whether an urgent one waits.
SECONDS_BETWEEN_LOOKS = 0.1
OBSERVATIONS_PER_COMMIT = 1_000
SWEPT_AT = "swept_at"


@dataclass
class Batch:
    """What was seen together, and where to go on once it is landed.

    Attributes:
        observations: each with the table that it belongs to; or rows in bulk, as `Slice.of_table`
            takes them.
        cursors: saved when they are committed; a value of None removes one.
        committed: called then, such as to acknowledge messages.
    """

    observations: list[tuple[Resource, Observation | Reject | pa.Table]] = field(
        default_factory=list
    )
    cursors: Mapping[str, Json] = field(default_factory=dict)
    committed: Callable[[], None] | None = None


@dataclass
class Run:
    """One run of a source through its API.

    Attributes:
        settings: the stores, and the source's own.
        landing: the load.
        cursors: where earlier runs have come to.
        sweeps: whether everything is to be listed, to find what is gone.
        rails: how much that may delete.
        progress: told in a line what goes on.
        deliveries: ids of the deliveries that brought names, by name.
    """

    settings: Settings
    landing: Landing
    cursors: Cursors
    sweeps: bool
    rails: Rails
    progress: Callable[[str], None]
    deliveries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        what: in words.
        requests: how many, about.
        rate: requests per second that the service allows; 0 where it does not say.
        objects: that would be fetched, about.
    """

    what: str
    requests: int
    rate: float
    objects: int

    @property
    def seconds(self) -> float | None:
        """How long it takes at least; None where nothing limits it."""
        return self.requests / self.rate if self.rate else None


class LiveSource(Protocol):
    """A source that is read through its API."""

    def fetch(self, run: Run) -> Iterator[Batch]:
        """What is new; and, where the run sweeps, what was missed and what is gone."""
        ...

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        """The newest version of the objects that deliveries name."""
        ...

    def plan(self, run: Run) -> Plan:
        """What `fetch` would do; it asks little, and lands nothing."""
        ...


def load_live(
    settings: Settings,
    source: str,
    fetching: LiveSource,
    *,
    sweep: bool | None = None,
    allow_deletes: bool = False,
    deliveries: Mapping[str, str] | None = None,
    progress: Callable[[str], None] | None = None,
    waits: bool = True,
) -> LoadSummary:
    """Land what is new at a source.

    Args:
        settings: the stores, and the source's own.
        source: notion, slack, …
        fetching: the source.
        sweep: whether to look for what is gone; None where that is due.
        allow_deletes: however much that is.
        deliveries: names to fetch, and nothing else, with the ids of the deliveries.
        progress: told in a line what goes on.
        waits: whether to wait where another load of the source is running. One that is read through
            its API lets in what deliveries name, between two of its commits.

    Raises:
        BusyError: another load is running, and this is not to wait.
        LorelineError: the source did not answer to the end, or too much is gone; what came before
            is landed, and a later run goes on there.
    """
    started = time.monotonic()
    landed_by = "api" if deliveries is None else "webhook"
    with (
        Landing(
            settings,
            source,
            landed_by=landed_by,
            progress=progress,
            waits=waits,
            is_urgent=deliveries is not None,
        ) as landing,
        recorded(landing),
    ):
        summary = landing.summary
        # A part of what there is: its size tells nothing.
        landing.told_complete = False
        land_pending(landing)
        run = begin(landing, sweep=sweep, allow_deletes=allow_deletes, progress=progress)
        began = datetime.now(UTC)
        if deliveries is None:
            _land(run, fetching.fetch(run))
            if run.sweeps:
                run.cursors.save({SWEPT_AT: began.isoformat()})
        else:
            run.deliveries = deliveries
            _land(run, fetching.fetch_named(run, list(deliveries)))
    summary.seconds = time.monotonic() - started
    return summary


def begin(
    landing: Landing,
    *,
    sweep: bool | None = None,
    allow_deletes: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Run:
    """A run within a load."""
    settings, cursors = landing.settings, Cursors(landing)
    swept_at = cursors.time(SWEPT_AT)
    period = timedelta(hours=settings.number("sweep_hours"))
    is_due = swept_at is None or datetime.now(UTC) - swept_at >= period
    share = settings.number("max_deleted_share")
    return Run(
        settings,
        landing,
        cursors,
        is_due if sweep is None else sweep,
        Rails(1.0 if allow_deletes else share),
        progress or (lambda line: None),
    )


def plan_live(settings: Settings, source: str, fetching: LiveSource) -> Plan:
    """What `load_live` would do now."""
    with Landing(settings, source, landed_by="api") as landing:
        return fetching.plan(begin(landing))


def _land(run: Run, batches: Iterable[Batch]) -> None:
    """Land batches, some of them in one commit; what came before a failure lands all the same."""
    failures: list[LorelineError] = []
    touched: set[str] = set()
    waiting: list[Batch] = []
    since = looked_at = time.monotonic()
    for batch in _until_failure(batches, failures):
        waiting.append(batch)
        is_wanted = False
        if time.monotonic() - looked_at >= SECONDS_BETWEEN_LOOKS:
            is_wanted, looked_at = run.landing.is_wanted(), time.monotonic()
        # Who waits to be told of the commit holds something until then.
        if (
            batch.committed
            or is_wanted
            or _size(waiting) >= OBSERVATIONS_PER_COMMIT
            or time.monotonic() - since >= SECONDS_PER_COMMIT
        ):
            touched |= _commit(run, waiting)
            waiting, since = [], time.monotonic()
        if is_wanted:
            run.landing.let_in()
            run.cursors.read()
    touched |= _commit(run, waiting)
    run.landing.finish(touched)
    if failures:
        raise failures[0]


def _until_failure(batches: Iterable[Batch], failures: list[LorelineError]) -> Iterator[Batch]:
    """The batches before a source fails. A commit that fails is not its failure, and not caught:
    its rows are no longer new, so that their cursors would be saved without them.
    """
    try:
        yield from batches
    except LorelineError as error:
        failures.append(error)


def _commit(run: Run, batches: Sequence[Batch]) -> set[str]:
    """Commit batches, then say so.

    Returns:
        The tables that something was seen of.
    """
    observed: defaultdict[str, list[Observation | Reject | pa.Table]] = defaultdict(list)
    resources = {}
    for batch in batches:
        for resource, item in batch.observations:
            resources[resource.name] = resource
            observed[resource.name].append(item)
    tables = [
        (name, table)
        for name, items in observed.items()
        for table in run.landing.rows(resources[name], items)
    ]
    if tables:
        land_tables(run.landing, tables)
    cursors = {name: value for batch in batches for name, value in batch.cursors.items()}
    if cursors:
        run.cursors.save(cursors)
    for batch in batches:
        if batch.committed:
            batch.committed()
    return set(resources)


def _size(batches: Iterable[Batch]) -> int:
    return sum(
        item.num_rows if isinstance(item, pa.Table) else 1
        for batch in batches
        for _, item in batch.observations
    )
