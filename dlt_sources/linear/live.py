"""Linear through its API.

A run lists the ids and times of what changed, or of all that there is, compares them with what is
landed, and asks for what differs. So a run that was interrupted goes on with what is missing, an
overlap costs nothing, and a sweep is the same with a longer list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, TypeVar

from dlt_sources.api import NotFoundError, Waiting
from dlt_sources.json_files import Record
from dlt_sources.linear.answers import Node, is_gone, items, observed, sortable
from dlt_sources.linear.client import LinearApi
from dlt_sources.linear.deliveries import IDENTITY
from dlt_sources.linear.queries import (
    ALL_TEAMS,
    CLOSED_TEAMS,
    FEW,
    FILTERS,
    KINDS,
    LISTINGS,
    MANY,
    SHARED_ISSUES,
    Kind,
    Listing,
    listing_query,
    object_query,
    objects_query,
    rest_query,
)
from dlt_sources.linear.settings import TABLES
from dlt_sources.live import Batch, Plan, Run
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.sweeps import Sweep
from dlt_sources.versions import Resource
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any
Item = TypeVar("Item")
Observed = list[tuple[Resource, Observation | Reject]]

# What is committed late at Linear may have a time before what was seen already.
OVERLAP = timedelta(minutes=2)
BEGINNING = "1970-01-01T00:00:00.000000+00:00"
CURSOR = "since:"


def live_linear(settings: Settings) -> LinearLive | None:
    """Linear as the settings name it; None without a key."""
    return LinearLive(settings) if settings.linear_api_key else None


@dataclass
class LinearLive:
    """A workspace as the holder of a key sees it.

    Attributes:
        settings: the address, the key and the rate.
        api: makes a client that tells what it waits for.
    """

    settings: Settings
    api: Callable[..., AbstractContextManager[LinearApi]] = LinearApi

    def fetch(self, run: Run) -> Iterator[Batch]:
        """What is new; in a sweep what was missed and what is gone too."""
        with self.api(self.settings, told=run.progress) as api:
            yield from _Walk(api, run).batches()

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        """The newest version of single objects; what is not there any more is deleted."""
        by_table: dict[str, list[str]] = {}
        for name in names:
            table, _, identity = name.partition(":")
            if table in KINDS and IDENTITY.fullmatch(identity):
                by_table.setdefault(table, []).append(identity)
            else:
                run.progress(f"linear: {name!r} names nothing that can be asked for")
        with self.api(self.settings, told=run.progress) as api:
            for table, identities in by_table.items():
                for each in _batches(identities, KINDS[table].at_once):
                    yield _named(api, run, KINDS[table], each)

    def plan(self, run: Run) -> Plan:
        """What `fetch` would do, from one page of each list."""
        since = {} if run.sweeps else run.cursors.named(CURSOR)
        listings = _listings(since)
        with self.api(self.settings, told=run.progress) as api:
            pages = _pages(api, listings, since, MANY, "updatedAt")
            first = list(islice(pages, len(listings)))
        objects = fetches = lists = 0
        unknown = []
        for listing, page in first:
            kind, count = listing.kind, len(page.nodes)
            # What is landed is mostly as it was, and not asked for.
            is_more = bool(page.after) and not _is_past(listing, page, since)
            landed = _landed(run, kind) if is_more else 0
            count = max(count, landed)
            if is_more and not landed:
                unknown.append(f"more than {listing.most} {kind.table}")
            if not landed and not listing.is_whole:
                objects, fetches = objects + count, fetches + -(-count // kind.at_once)
            lists = max(lists, -(-count // listing.most))
        what = "a list of everything, and what differs" if run.sweeps else "what changed"
        if unknown:
            what += f"; {', '.join(unknown)}: how many is not known"
        return Plan(what, lists + fetches, self.settings.number("linear_rate"), objects)


@dataclass(frozen=True)
class _Page:
    """A page of a list.

    Attributes:
        nodes: as they came: they need not be objects.
        after: where the next page begins; empty after the last one.
    """

    nodes: list[Json]
    after: str


@dataclass
class _Walk:
    """One run: lists, what differs, what is gone."""

    api: LinearApi
    run: Run
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    listed: Counter[str] = field(default_factory=Counter)
    # Kinds that were listed with all that lands.
    whole: set[str] = field(default_factory=set)
    # Kinds of whose objects not all could be told apart: what is gone is not known.
    doubtful: set[str] = field(default_factory=set)
    # Issues that are shared with somebody outside of their team.
    shared: set[str] = field(default_factory=set)
    # When the lists began by the service's clock, and the newest change of each at that time.
    began: datetime | None = None
    newest: dict[str, str] = field(default_factory=dict)

    def batches(self) -> Iterator[Batch]:
        """Everything that the run lands; cursors come with the last of what is new."""
        run, known = self.run, self.run.cursors.named(CURSOR)
        self.sweeps = {table: Sweep(run.landing, TABLES[table]) for table in KINDS}
        if run.sweeps:
            self._find_newest()
            # Unlike that of changes, the order of creation stays as it is while it is listed.
            yield from self._list({}, "createdAt")
        else:
            yield from self._list(known, "updatedAt")
        yield from self._fetch(self._wanted())
        yield Batch([], self._cursors(known))
        if run.sweeps:
            yield from self._gone()

    def _find_newest(self) -> None:
        pages = _pages(self.api, LISTINGS.values(), {}, 1, "updatedAt")
        for listing, page in islice(pages, len(LISTINGS)):
            self._note_newest(listing, page)

    def _note_newest(self, listing: Listing, page: _Page) -> None:
        """Keep the times of the first pages; what changes later is later than they are."""
        self.began = self.began or self.api.server_time
        if listing.name not in self.newest:
            self.newest[listing.name] = max(map(_updated, page.nodes), default="")

    def _list(self, since: Mapping[str, str], order: str) -> Iterator[Batch]:
        """List what there is since the given times; what a list gives whole is a batch already."""
        seen_at = datetime.now(UTC)
        first = FEW if since else MANY
        for listing, page in _pages(self.api, _listings(since), since, first, order):
            self._note_newest(listing, page)
            kind, nodes = listing.kind, page.nodes
            if listing.name == kind.table:
                if unusable := self._show(kind.table, nodes):
                    yield Batch([(TABLES[kind.table], each) for each in unusable])
                self.listed[kind.table] += len(nodes)
                if listing.is_whole:
                    self.whole.add(kind.table)
                    told = since.get(kind.table, "")
                    nodes = [node for node in nodes if not told or _updated(node) > told]
            elif listing is SHARED_ISSUES:
                self.shared.update(node["id"] for node in nodes if _has_id(node))
            if listing.is_whole and nodes:
                whole = _completed(self.api, kind, nodes)
                yield Batch(self._observations(kind, whole, seen_at))
            if nodes:
                self.run.progress(f"linear.{kind.table}: {self.listed[kind.table]} listed")
            seen_at = datetime.now(UTC)

    def _show(self, table: str, nodes: Iterable[Json]) -> list[Reject]:
        """Note what a page shows.

        Returns:
            What is no object with an id; with it there, nothing of its kind is known to be gone.
        """
        unusable = []
        shown: dict[bool, list[tuple[str, datetime | None]]] = {False: [], True: []}
        for node in nodes:
            if not _has_id(node):
                self.doubtful.add(table)
                unusable.append(
                    Record(node, f"api.{table}").reject("missing_id", f"a list of {table} has it")
                )
                continue
            updated = _updated(node)
            moment = datetime.fromisoformat(updated) if updated else None
            shown[is_gone(node, table)].append((node["id"], moment))
        for are_deleted, objects in shown.items():
            self.sweeps[table].show(objects, are_deleted=are_deleted)
        return unusable

    def _wanted(self) -> Iterator[tuple[Kind, list[str]]]:
        """Ids of what is not landed as it was listed, or cannot be told by that."""
        for kind in KINDS.values():
            if kind.table not in self.whole and self.listed[kind.table]:
                for some in _batches(self.sweeps[kind.table].changed(), kind.at_once):
                    yield kind, some
        if self.run.sweeps:
            issues = KINDS["issues"]
            for some in _batches(sorted(self.shared | _landed_as_shared(self.run)), issues.at_once):
                yield issues, some

    def _fetch(self, wanted: Iterable[tuple[Kind, list[str]]]) -> Iterator[Batch]:
        """Ask for objects by their ids, ahead of what is landed meanwhile."""

        def ask(each: tuple[Kind, list[str]]) -> tuple[Kind, datetime, list[Json]]:
            kind, identities = each
            seen_at = datetime.now(UTC)
            return kind, seen_at, _completed(self.api, kind, _objects(self.api, kind, identities))

        for answer in self.api.map_or_wait(ask, wanted):
            if isinstance(answer, Waiting):
                yield Batch()
            else:
                kind, seen_at, nodes = answer
                yield Batch(self._observations(kind, nodes, seen_at))

    def _observations(self, kind: Kind, nodes: Iterable[Json], seen_at: datetime) -> Observed:
        found: Observed = []
        for node in nodes:
            found += _observations(kind, node, seen_at)
        return found

    def _cursors(self, known: Mapping[str, str]) -> dict[str, str]:
        """Since when the next run asks.

        Whatever the service's clock says, not later than the newest change that was seen when the
        lists began.
        """
        before = sortable((self.began - OVERLAP).isoformat()) if self.began else BEGINNING
        cursors = {}
        for table in KINDS:
            seen = min(self.newest.get(table) or BEGINNING, before)
            cursors[f"{CURSOR}{table}"] = max(known.get(table, BEGINNING), seen)
        return cursors

    def _gone(self) -> Iterator[Batch]:
        """Delete what a list of all does not show, and what asking for it does not give either."""
        run = self.run
        certain = {t: sweep for t, sweep in self.sweeps.items() if t not in self.doubtful}
        for table, sweep in certain.items():
            run.rails.check("linear", table, *sweep.count_absent())
        for table, sweep in certain.items():
            for absent in _batches(sweep.absent(), MANY):
                yield _deleted(TABLES[table], self._still_gone(KINDS[table], absent))
        if "issues" in certain:
            # An entry of a history goes with its issue.
            owner = "json_extract_string(payload, '$.issue.id')"
            shown = f"select shown.external_id from {self.sweeps['issues'].shown} as shown"  # noqa: S608 - the name is our own
            history = Sweep(run.landing, TABLES["history"])
            for absent in _batches(history.absent(f"{owner} not in ({shown})"), MANY):
                yield _deleted(TABLES["history"], absent)

    def _still_gone(self, kind: Kind, identities: list[str]) -> list[str]:
        if kind.filter:
            nodes = _objects(self.api, kind, identities, is_whole=False)
            there = {node.get("id") for node in nodes if isinstance(node, dict)}
        else:
            there = {node["id"] for node in _one_by_one(self.api, kind, identities)}
        return [identity for identity in identities if identity not in there]


def _listings(since: Mapping[str, str]) -> list[Listing]:
    """What is listed: all teams with their members, or those that changed or are not public."""
    if not since:
        return [*{**LISTINGS, "teams": ALL_TEAMS}.values(), SHARED_ISSUES]
    return [*LISTINGS.values(), CLOSED_TEAMS]


def _pages(
    api: LinearApi,
    listings: Iterable[Listing],
    since: Mapping[str, str],
    first: int,
    order: str,
) -> Iterator[tuple[Listing, _Page]]:
    """The pages of several lists, one of each in one query.

    Args:
        api: the client.
        listings: what to list.
        since: only what changed later, by kind; all of the kinds that it does not tell of.
        first: objects in a list's first page; further ones are as large as may be.
        order: `createdAt` or `updatedAt`, the newest first.
    """
    after: dict[str, str] = {}
    seen: dict[str, set[str]] = {}
    left = list(listings)
    while left:
        variables: dict[str, Json] = {"order": order}
        for listing in left:
            name, asked = listing.name, MANY if listing.name in after else first
            variables[f"{name}First"] = min(asked, listing.most)
            variables[f"{name}After"] = after.get(name)
            variables[f"{name}Filter"] = _filter(listing, since) if listing.kind.filter else None
        data = api.ask(listing_query(left), **variables)
        pages = [(listing, _page(data.get(listing.name), listing.name)) for listing in left]
        left = []
        for listing, page in pages:
            yield listing, page
            earlier = seen.setdefault(listing.name, set())
            if page.after in earlier:
                raise LorelineError(
                    f"Linear's list of {listing.name} does not come to an end",
                    "run this again later: what was fetched is landed",
                )
            earlier.add(page.after)
            if page.after and not _is_past(listing, page, since):
                after[listing.name] = page.after
                left.append(listing)


def _filter(listing: Listing, since: Mapping[str, str]) -> Json:
    if listing.name in FILTERS:
        return FILTERS[listing.name]
    told = since.get(listing.kind.table)
    return {"updatedAt": {"gt": told}} if told else None


def _is_past(listing: Listing, page: _Page, since: Mapping[str, str]) -> bool:
    """Whether a list that has no filter has come to what is known, the newest being first."""
    told = since.get(listing.kind.table)
    if listing.kind.filter or not told or not page.nodes:
        return False
    first, last = _updated(page.nodes[0]), _updated(page.nodes[-1])
    return bool(last) and last <= told and last <= first


def _page(connection: Json, name: str) -> _Page:
    """A page as it came.

    Raises:
        LorelineError: it is none; what is in it and after it is not known.
    """
    nodes = connection.get("nodes") if isinstance(connection, dict) else None
    info = connection.get("pageInfo") if isinstance(connection, dict) else None
    if not isinstance(nodes, list) or not isinstance(info, dict):
        raise _broken(name)
    if info.get("hasNextPage") is False:
        return _Page(nodes, "")
    after = info.get("endCursor")
    if not isinstance(after, str) or not after:
        raise _broken(name)
    return _Page(nodes, after)


def _broken(name: str) -> LorelineError:
    return LorelineError(
        f"Linear's answer has no list of {name} that could be read to its end",
        "run this again later: it goes on where it is",
    )


def _objects(
    api: LinearApi, kind: Kind, identities: Sequence[str], *, is_whole: bool = True
) -> list[Json]:
    """Those objects that there are."""
    query = objects_query(kind, is_whole=is_whole)
    asked = {"id": {"in": list(identities)}}
    page = _page(api.ask(query, first=len(identities), filter=asked).get(kind.table), kind.table)
    if page.after:
        raise _broken(kind.table)
    return page.nodes


def _one_by_one(api: LinearApi, kind: Kind, identities: Iterable[str]) -> list[Json]:
    def ask(identity: str) -> Json:
        try:
            return api.ask(object_query(kind), id=identity).get(kind.table)
        except NotFoundError:
            return None

    return [node for node in api.map(ask, identities) if isinstance(node, dict)]


def _completed(api: LinearApi, kind: Kind, nodes: Iterable[Json]) -> list[Json]:
    """Objects with the lists inside of them read to their ends."""
    return [node for node in nodes if _complete(api, kind, node)]


def _complete(api: LinearApi, kind: Kind, node: Json) -> bool:
    """Read the lists inside of an object to their ends.

    Returns:
        Whether it is still there.
    """
    for name, _ in kind.inner:
        connection = node.get(name) if isinstance(node, dict) else None
        seen: set[str] = set()
        # What is no list, or belongs to nothing, is set aside like any other field.
        while _goes_on(connection) and isinstance(node.get("id"), str):
            page = _page(connection, name)
            if page.after in seen:
                raise _broken(name)
            seen.add(page.after)
            try:
                data = api.ask(rest_query(kind, name), id=node["id"], after=page.after)
            except NotFoundError:
                return False
            owner = data.get(kind.table)
            connection = owner.get(name) if isinstance(owner, dict) else None
            rest = _page(connection, name)
            node[name] = {"nodes": [*node[name]["nodes"], *rest.nodes], "pageInfo": _LAST}
    return True


_LAST = {"hasNextPage": False}


def _goes_on(connection: Json) -> bool:
    if not isinstance(connection, dict) or not isinstance(connection.get("nodes"), list):
        return False
    info = connection.get("pageInfo")
    return isinstance(info, dict) and info.get("hasNextPage") is not False


def _observations(kind: Kind, node: Json, seen_at: datetime) -> Iterator[tuple[Resource, Any]]:
    """What an object and the lists inside of it say, as the same in a file would."""
    for item in items(Record({"nodes": [node]}, f"api.{kind.table}"), kind.table):
        if isinstance(item, Reject):
            yield TABLES.get(item.resource, TABLES[kind.table]), item
        elif isinstance(item, Node):
            updated = sortable(item.value.get("updatedAt"))
            for each in observed(item, updated, seen_at):
                yield TABLES[item.table], each


def _named(api: LinearApi, run: Run, kind: Kind, identities: list[str]) -> Batch:
    seen_at = datetime.now(UTC)
    if kind.filter:
        nodes = _completed(api, kind, _objects(api, kind, identities))
    else:
        nodes = _one_by_one(api, kind, identities)
    batch = Batch([pair for node in nodes for pair in _observations(kind, node, seen_at)])
    there = {node.get("id") for node in nodes if isinstance(node, dict)}
    if missing := [identity for identity in identities if identity not in there]:
        # They were checked to be of the form of an id.
        asked = ", ".join(f"'{identity}'" for identity in missing)
        landed = Sweep(run.landing, TABLES[kind.table]).absent(f"external_id in ({asked})")
        batch.observations += _deleted(TABLES[kind.table], list(landed)).observations
    for _, item in batch.observations:
        if isinstance(item, Observation):
            item.delivery_id = run.deliveries.get(f"{kind.table}:{item.external_id}")
    return batch


def _deleted(resource: Resource, identities: Iterable[str]) -> Batch:
    seen_at = datetime.now(UTC)
    return Batch(
        [(resource, Observation(each, None, seen_at, is_deleted=True)) for each in identities]
    )


def _landed(run: Run, kind: Kind) -> int:
    """How many objects of a kind are landed."""
    query = f"select count(*) from ({run.landing.latest(TABLES[kind.table])}) as latest"  # noqa: S608 - our own names
    found = run.landing.duckdb.execute(query).fetchone()
    return found[0] if found else 0


def _landed_as_shared(run: Run) -> set[str]:
    """Issues that are landed as shared with somebody: no longer being so is not told."""
    latest = run.landing.latest(TABLES["issues"])
    users = "json_extract(payload, '$.sharedAccess.sharedWithUsers')"
    found = run.landing.duckdb.execute(
        f"select external_id from ({latest}) as latest"  # noqa: S608 - our own names
        f" where not is_deleted and json_array_length({users}) > 0"
    )
    return {identity for (identity,) in found.fetchall()}


def _has_id(node: Json) -> bool:
    return isinstance(node, dict) and isinstance(node.get("id"), str) and bool(node["id"])


def _updated(node: Json) -> str:
    return sortable(node.get("updatedAt")) if isinstance(node, dict) else ""


def _batches(each: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(each)
    while batch := list(islice(iterator, size)):
        yield batch
