"""A Notion workspace through its API: what was edited, and now and then all that there is.

How nothing is lost although times are rounded and search is late and incomplete is told in
`docs/decisions/live-notion.md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Any

import orjson

from dlt_sources.api import ApiError, NotFoundError, Patience, Waiting
from dlt_sources.json_files import BadRecord
from dlt_sources.landed_versions import registered
from dlt_sources.landing import Landing
from dlt_sources.live import Batch, Plan, Run
from dlt_sources.notion.blocks import PageRead, PageReader, encoded
from dlt_sources.notion.client import (
    PAGE_SIZE,
    PAGES_AHEAD,
    MalformedAnswerError,
    NotionApi,
    ServiceClock,
    rate_of,
)
from dlt_sources.notion.objects import Problem, edited_at, is_trashed, observation, problem_of
from dlt_sources.notion.settings import (
    COMMENTS,
    DATA_SOURCES,
    DATABASES,
    PAGES,
    TABLES,
    USERS,
)
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.sweeps import Sweep
from dlt_sources.versions import Resource
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = dict[str, Any]
Seen = tuple[Resource, Observation | Reject]

# Search may show an edit as late as this, and it is still found without a sweep.
OVERLAP = timedelta(minutes=15)
# A page that was read before its minute was over may have been edited once more in it.
SETTLED = timedelta(minutes=2)
# Cursors.
LISTED_AT = "listed_at"
OBSERVED_UNTIL = "observed_until"
AGAIN = "again:"
MET_PAGE = "met:page:"
MET_DATABASE = "met:database:"
# Answers that a plan looks at.
PLANNED_ANSWERS = 5
# Of each page: itself, its first blocks, its comments.
REQUESTS_PER_PAGE = 3


class Notion:
    """The workspace that an integration token opens.

    Args:
        settings: address, token, version and rate.
        patience: how long to wait for it.
    """

    def __init__(self, settings: Settings, patience: Patience | None = None) -> None:
        self._settings = settings
        self._patience = patience

    def fetch(self, run: Run) -> Iterator[Batch]:
        """Pages, data sources and comments that are new; all, with users, where the run sweeps."""
        with self._api(run) as api:
            walk = _Walk(run, api)
            is_first = run.cursors.get(LISTED_AT) is None
            yield from walk.stamped(walk.sweep() if run.sweeps or is_first else walk.recent())

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        """The newest version of what is named.

        Args:
            run: the run.
            names: `page:<id>`, `data_source:<id>`, `database:<id>`, `user:<id>`, or
                `comment:<page id>:<block id or nothing>`.
        """
        with self._api(run) as api:
            walk = _Walk(run, api)
            yield from walk.stamped(walk.named(names))

    def plan(self, run: Run) -> Plan:
        """How many pages would be read, as far as the first answers tell."""
        rate = rate_of(self._settings)
        listed_at = run.cursors.time(LISTED_AT)
        with self._api(run) as api:
            walk = _Walk(run, api)
            if listed_at is not None and not run.sweeps:
                answers = sum(1 for _ in walk.list_recent(listed_at - OVERLAP))
                pages = len({*walk.pages.changed(), *run.cursors.named(AGAIN)})
                requests = answers + REQUESTS_PER_PAGE * pages
                return Plan("pages edited since the last time", requests, rate, pages)
            listing = walk.list_all()
            answers = sum(1 for _ in islice(listing, PLANNED_ANSWERS))
            is_whole = next(listing, None) is None
            landed = walk.count_landed()
            new = sum(1 for _ in walk.pages.changed())
            unchanged = max(0, landed - new)
            requests = REQUESTS_PER_PAGE * new + unchanged + 2 * answers
            if is_whole:
                what = "everything is listed, and new pages are read"
            else:
                what = f"everything is listed; at least {new:,} pages are read"
                requests += landed // PAGE_SIZE
            return Plan(what, requests, rate, new)

    def _api(self, run: Run) -> NotionApi:
        return NotionApi(self._settings, run.progress, self._patience)


@dataclass
class _Asked:
    """What asking for one object by its id gave.

    Attributes:
        identity: the id.
        value: the object; None where it is gone, or refused.
        is_gone: whether it is deleted, in the bin, or no longer shared.
        observed_at: when.
    """

    identity: str
    value: Any
    is_gone: bool
    observed_at: datetime


class _Walk:
    """One run."""

    def __init__(self, run: Run, api: NotionApi) -> None:
        self.run = run
        self.api = api
        self.clock = ServiceClock(api, run.cursors.time(OBSERVED_UNTIL))
        self.reader = PageReader(api, self.clock)
        self.pages = Sweep(run.landing, PAGES)
        self.sources = Sweep(run.landing, DATA_SOURCES)
        self.databases = Sweep(run.landing, DATABASES)
        # Data sources that were shown, each with its database where that is told.
        self.shown_sources: dict[str, str | None] = {}
        self.comments = _LandedComments(run.landing)
        self.began: datetime | None = None
        # Ids met in blocks, also by a run that was interrupted before it read them.
        self.met_pages = set(run.cursors.named(MET_PAGE))
        self.met_databases = set(run.cursors.named(MET_DATABASE))
        self.met_originals: set[str] = set()

    def stamped(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Batches, the moments of which are kept before they can be committed.

        So that the next run gives later ones, whatever happens to this one.
        """
        for batch in batches:
            if batch.observations:
                self.run.cursors.save({OBSERVED_UNTIL: self.clock.last.isoformat()})
            yield batch

    def recent(self) -> Iterator[Batch]:
        """What was edited since the last list, and what could not be told for certain then."""
        listed_at = self.run.cursors.time(LISTED_AT)
        assert listed_at is not None
        yield from self.list_recent(listed_at - OVERLAP)
        changed = list(self.sources.changed())
        yield from self._objects("data_source", changed)
        yield from self._databases({*filter(None, map(self.shown_sources.get, changed))})
        yield from self._read_changed()
        if self.met_originals:
            yield from self._read(self._copies(self.met_originals))
        yield self._listed()

    def sweep(self) -> Iterator[Batch]:
        """All that there is, then what is not there any more."""
        yield from self.list_all()
        self.run.progress(f"notion: {self.api.requests} requests, all is listed")
        # Their times are rounded too, and they are few.
        yield from self._objects("data_source", list(self.shown_sources))
        databases = {*filter(None, self.shown_sources.values()), *self._landed(DATABASES)}
        yield from self._databases(databases, deletes=False)
        yield from self._rows(list(self.shown_sources))
        # An edit of a synced block is none of the pages that show a copy of it.
        yield from self._read_changed(self._copies())
        yield self._listed()
        yield from self._users()
        yield from self._absent("data_source", self.sources)
        yield from self._absent("database", self.databases)
        self._check_rails(PAGES, self.pages)
        yield from self._read(self.pages.absent())
        yield from self._read_met()
        yield from self._comments_of_unchanged()

    def named(self, names: Sequence[str]) -> Iterator[Batch]:
        """What deliveries name."""
        for name in names:
            kind, _, identity = name.partition(":")
            if kind == "page":
                batches = self._read([identity])
            elif kind == "comment":
                page_id, _, block_id = identity.partition(":")
                batches = self._comments([(page_id, [block_id or page_id])])
            elif kind in TABLES:
                batches = self._objects(kind, [identity])
            else:
                raise LorelineError(f"{name!r} names nothing of Notion's", "see fetch_named")
            for batch in batches:
                for _, item in batch.observations:
                    if isinstance(item, Observation):
                        item.delivery_id = self.run.deliveries.get(name)
                yield batch

    def list_recent(self, since: datetime) -> Iterator[Batch]:
        """List what was edited since."""
        for answer in self.api.search():
            yield self._show(answer, since)
            oldest = [edited_at(value) for value in answer if problem_of(value) is None]
            if any(edited and edited < since for edited in oldest):
                return

    def list_all(self) -> Iterator[Batch]:
        """List all that search shows."""
        for answer in self.api.search():
            yield self._show(answer)

    def count_landed(self) -> int:
        """Pages that are landed, not as deleted."""
        query = f"select count(*) from ({self.run.landing.latest(PAGES)}) where not is_deleted"  # noqa: S608
        found = self.run.landing.duckdb.execute(query).fetchone()
        return found[0] if found else 0

    def _landed(self, resource: Resource) -> list[str]:
        """Ids that are landed, not as deleted."""
        latest = self.run.landing.latest(resource)
        query = f"select external_id from ({latest}) where not is_deleted"  # noqa: S608
        return [row[0] for row in self.run.landing.duckdb.execute(query).fetchall()]

    def _show(self, answer: list[Any], since: datetime | None = None) -> Batch:
        """Note the pages and data sources of an answer; those before a time are left out."""
        self.began = self.began or self.clock.told()
        rejects: list[Seen] = []
        shown: dict[str, list[tuple[str, datetime | None]]] = {"page": [], "data_source": []}
        for value in answer:
            problem = problem_of(value)
            if problem is None and value["object"] not in shown:
                problem = Problem("wrong_type", f"a page is expected, not a {value['object']}")
            if problem:
                rejects.append(_rejected(value, problem, self.clock.now()))
                continue
            edited = edited_at(value)
            if since and edited and edited < since:
                continue
            # Nothing of what is in the bin is to be kept: it counts as not there.
            if since is None and is_trashed(value):
                continue
            shown[value["object"]].append((value["id"], edited))
            if value["object"] == "data_source":
                self.shown_sources[value["id"]] = _database_of(value)
        self.pages.show(shown["page"])
        self.sources.show(shown["data_source"])
        return Batch(rejects)

    def _listed(self) -> Batch:
        """Lists of later runs go back to the beginning of this one's."""
        assert self.began is not None
        return Batch([], {LISTED_AT: self.began.isoformat()})

    def _read_changed(self, also: Iterable[str] = ()) -> Iterator[Batch]:
        """Read the pages that are new or edited, and those that are found in them."""
        first = {*self.run.cursors.named(AGAIN), *also}
        yield from self._read(
            chain(first, (each for each in self.pages.changed() if each not in first))
        )
        yield from self._read_met()

    def _read_met(self) -> Iterator[Batch]:
        """Read what was met in blocks, and is neither shown nor landed."""
        while self.met_pages or self.met_databases:
            databases, self.met_databases = self.met_databases, set()
            known = set(self.shown_sources)
            yield from self._databases(self.databases.unknown(databases))
            yield from self._rows([e for e in self.shown_sources if e not in known], meets=True)
            pages, self.met_pages = self.met_pages, set()
            yield from self._read(self.pages.unknown(pages))
            done = [*(MET_PAGE + each for each in pages), *(MET_DATABASE + e for e in databases)]
            yield Batch([], dict.fromkeys(done))

    def _read(self, page_ids: Iterable[str]) -> Iterator[Batch]:
        """Read pages, several at once."""
        asked = ((each, self.comments.places(each)) for each in page_ids)
        reads = self.api.map_or_wait(lambda each: self.reader.read(*each), asked, ahead=PAGES_AHEAD)
        for read in reads:
            yield Batch() if isinstance(read, Waiting) else self._page(read)

    def _page(self, read: PageRead) -> Batch:
        """What to land of a page that was read."""
        cursors: dict[str, Any] = {}
        again = f"{AGAIN}{read.page_id}"
        if self.run.cursors.get(again):
            cursors[again] = None
        if read.seen is None:
            gone = self._gone(PAGES, read.page_id, read.observed_at)
            comments = self.comments.missing(read.page_id, {})
            return Batch([*gone, *_tombstones(COMMENTS, comments, read.observed_at)], cursors)
        self.run.landing.summary.passed_over += Counter(
            {
                "blocks that the API does not show": read.tree.unsupported,
                "copies of synced blocks that are not shared": read.tree.unshared,
            }
        )
        self.met_originals.update(read.tree.originals)
        cursors |= self._met(read)
        if isinstance(read.seen, Observation):
            edited = read.seen.source_updated_at
            if edited and read.asked_at < edited + SETTLED:
                cursors[again] = edited.isoformat()
            self.pages.show([(read.page_id, edited)])
        else:
            self.pages.show([(read.page_id, None)])
        seen = self._commented(read.page_id, read.comments, read.observed_at)
        return Batch([(PAGES, read.seen), *seen], cursors)

    def _met(self, read: PageRead) -> dict[str, bool]:
        """Note what is found in a page; with the page, lest it be lost where the run ends there."""
        pages = self.pages.unknown(read.tree.pages)
        databases = self.databases.unknown(read.tree.databases)
        self.met_pages.update(pages)
        self.met_databases.update(databases)
        return dict.fromkeys(
            [*(MET_PAGE + each for each in pages), *(MET_DATABASE + e for e in databases)], True
        )

    def _commented(
        self, page_id: str, comments: dict[str, list[Any]], observed_at: datetime
    ) -> Iterator[Seen]:
        """Comments that were listed, and those that no longer are."""
        shown: dict[str, set[str]] = {}
        for place, values in comments.items():
            shown[place] = {each["id"] for each in values if _has_id(each)}
            for value in values:
                # The page is not told where a comment is on a block.
                payload = value
                if isinstance(value, dict) and place != page_id:
                    payload = {**value, "page_id": page_id}
                yield _seen(COMMENTS, value, observed_at, payload)
        yield from _tombstones(COMMENTS, self.comments.missing(page_id, shown), observed_at)

    def _comments(self, places: Iterable[tuple[str, Sequence[str]]]) -> Iterator[Batch]:
        """List the comments of pages and blocks, without reading the pages."""
        for page_id, comments, observed_at in self.api.map(self._list_comments, places):
            yield Batch(list(self._commented(page_id, comments, observed_at)))

    def _list_comments(self, asked: tuple[str, Sequence[str]]) -> tuple[str, dict[str, list[Any]]]:
        page_id, places = asked
        found = {}
        for place in places:
            try:
                listed = self.reader.comments(place)
            except NotFoundError:
                # Comments of a block go with it; a page that is gone is found to be so elsewhere.
                listed = None if place == page_id else []
            except ApiError as error:
                if error.status == 401:
                    raise
                listed = None
            if listed is not None:
                found[place] = listed
        return page_id, found, self.clock.now()

    def _comments_of_unchanged(self) -> Iterator[Batch]:
        """Comments of the pages that need not be read: a comment is no edit of its page."""
        ids = self.pages.unchanged()
        asked = ((each, [each, *self.comments.places(each)]) for each in ids)
        for batch in self._comments(asked):
            if self.reader.is_refused_comments:
                return
            yield batch

    def _databases(self, identities: Iterable[str], *, deletes: bool = True) -> Iterator[Batch]:
        """Databases, and the data sources in them that search has not shown.

        Args:
            identities: which.
            deletes: whether those that are gone are deleted at once.
        """
        missed = []
        for asked in self.api.map(self._ask("database"), identities):
            if deletes or not asked.is_gone:
                yield Batch(self._object(DATABASES, asked))
            if asked.is_gone or not _has_id(asked.value):
                continue
            self.databases.show([(asked.identity, edited_of(asked.value))])
            inside = asked.value.get("data_sources")
            for each in inside if isinstance(inside, list) else []:
                if _has_id(each) and each["id"] not in self.shown_sources:
                    missed.append(each["id"])
                    self.shown_sources[each["id"]] = asked.identity
        for asked in self.api.map(self._ask("data_source"), missed):
            if asked.is_gone:
                del self.shown_sources[asked.identity]
                continue
            if _has_id(asked.value):
                self.sources.show([(asked.identity, edited_of(asked.value))])
            yield Batch(self._object(DATA_SOURCES, asked))

    def _rows(self, data_source_ids: Sequence[str], *, meets: bool = False) -> Iterator[Batch]:
        """List the rows of data sources.

        Args:
            data_source_ids: which.
            meets: whether they are to be read with the pages that are met.
        """
        for rows in self.api.map(self._list_rows, data_source_ids):
            if meets:
                self.met_pages.update(e["id"] for e in rows if _has_id(e))
            else:
                yield self._show(rows)

    def _list_rows(self, data_source_id: str) -> list[Any]:
        try:
            return [
                _outlined(value) for answer in self.api.rows(data_source_id) for value in answer
            ]
        except (ApiError, MalformedAnswerError) as error:
            # What it would have shown is asked for by id.
            if getattr(error, "status", 0) == 401:
                raise
            self.run.progress(f"notion: no rows of data source {data_source_id} ({error.what})")
            return []

    def _users(self) -> Iterator[Batch]:
        users = Sweep(self.run.landing, USERS)
        try:
            for answer in self.api.users():
                users.show((each["id"], None) for each in answer if _has_id(each))
                yield Batch([_seen(USERS, each, self.clock.now()) for each in answer])
        except ApiError as error:
            if error.status != 403:
                raise
            self.run.progress("notion: the integration may not read users")
            return
        yield from self._absent("user", users)

    def _absent(self, kind: str, sweep: Sweep) -> Iterator[Batch]:
        """Ask for what was not listed: only what is not found by its id either is gone."""
        self._check_rails(TABLES[kind], sweep)
        yield from self._objects(kind, sweep.absent())

    def _check_rails(self, resource: Resource, sweep: Sweep) -> None:
        self.run.rails.check("notion", resource.name.replace("_", " "), *sweep.count_absent())

    def _objects(self, kind: str, identities: Iterable[str]) -> Iterator[Batch]:
        """Land objects by their ids."""
        for asked in self.api.map(self._ask(kind), identities):
            yield Batch(self._object(TABLES[kind], asked))

    def _ask(self, kind: str) -> Callable[[str], _Asked]:
        def ask(identity: str) -> _Asked:
            try:
                value = self.api.object(kind, identity)
            except NotFoundError:
                return _Asked(identity, None, True, self.clock.now())
            except ApiError as error:
                if error.status == 401:
                    raise
                self.run.progress(f"notion: no {kind} {identity} ({error.what})")
                return _Asked(identity, None, False, self.clock.now())
            is_gone = isinstance(value, dict) and is_trashed(value)
            return _Asked(identity, value, is_gone, self.clock.now())

        return ask

    def _object(self, resource: Resource, asked: _Asked) -> list[Seen]:
        if asked.is_gone:
            return self._gone(resource, asked.identity, asked.observed_at)
        if asked.value is None:
            return []
        return [_seen(resource, asked.value, asked.observed_at)]

    def _gone(self, resource: Resource, identity: str, observed_at: datetime) -> list[Seen]:
        """A tombstone of what is landed; of nothing else."""
        query = f"""
            select count(*)
            from ({self.run.landing.latest(resource)})
            where external_id = $identity and not is_deleted
        """  # noqa: S608 - the names in it are our own
        found = self.run.landing.duckdb.execute(query, {"identity": identity}).fetchone()
        return list(_tombstones(resource, [identity] if found != (0,) else [], observed_at))

    def _copies(self, originals: Iterable[str] | None = None) -> list[str]:
        """Landed pages that show a copy of a synced block; of certain ones, where given."""
        landing = self.run.landing
        condition = "true"
        if originals is not None:
            condition = (
                "exists (select 1 from originals where contains(payload, originals.external_id))"
            )
        with registered(landing.duckdb, "originals", external_id=list(originals or [])):
            rows = landing.duckdb.execute(
                f"""
                select external_id
                from ({landing.latest(PAGES)})
                where not is_deleted and contains(payload, '"synced_from":{{') and {condition}
                """  # noqa: S608
            ).fetchall()
        return [row[0] for row in rows]


class _LandedComments:
    """The comments that are landed, by what they are on; read from the lake when first needed."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing
        self._is_read = False

    def places(self, page_id: str) -> list[str]:
        """The blocks of a page that have comments."""
        rows = self._of("distinct place", page_id)
        return [place for (place,) in rows if place != page_id]

    def missing(self, page_id: str, shown: dict[str, set[str]]) -> list[str]:
        """Comments that were landed, and that a list of their page or block no longer shows.

        Args:
            page_id: the page.
            shown: ids of comments by what they are on; all of the page's are missing without any.
        """
        rows = self._of("place, external_id", page_id)
        return [
            identity
            for place, identity in rows
            if not shown or (place in shown and identity not in shown[place])
        ]

    def _of(self, columns: str, page_id: str) -> list[tuple[str, ...]]:
        if not self._is_read:
            self._is_read = True
            self._landing.duckdb.execute(
                f"""
                create or replace table memory.main."landed comments" as
                select
                    external_id,
                    coalesce(
                        json_extract_string(payload, '$.page_id'),
                        json_extract_string(payload, '$.parent.page_id')
                    ) as page_id,
                    coalesce(
                        json_extract_string(payload, '$.parent.block_id'),
                        json_extract_string(payload, '$.parent.page_id')
                    ) as place
                from ({self._landing.latest(COMMENTS)})
                where not is_deleted
                """  # noqa: S608
            )
        query = f'select {columns} from memory.main."landed comments" where page_id = $page_id'  # noqa: S608
        return self._landing.duckdb.execute(query, {"page_id": page_id}).fetchall()


def live_notion(settings: Settings) -> Notion | None:
    """Notion through its API; None where no token is set."""
    return Notion(settings) if settings.notion_token else None


def edited_of(value: Json) -> datetime | None:
    """When an object was changed; None where it does not tell, or not in a readable way."""
    return edited_at(value) if problem_of(value) is None else None


def _seen(resource: Resource, value: Any, observed_at: datetime, payload: Any = None) -> Seen:
    """An object as it is to be landed, or why not."""
    problem = problem_of(value)
    if problem is None and TABLES.get(value["object"]) is not resource:
        problem = Problem("wrong_type", f"a {value['object']} is not of {resource.name}")
    if problem:
        return _rejected(value, problem, observed_at, resource)
    found = observation(value, value if payload is None else payload, observed_at)
    try:
        found.raw = encoded(found.payload)
    except BadRecord as error:
        return _rejected(value, Problem(error.reason, error.detail), observed_at, resource)
    return resource, found


def _rejected(
    value: Any, problem: Problem, observed_at: datetime, resource: Resource = PAGES
) -> Seen:
    identity = value["id"] if _has_id(value) else problem.external_id
    try:
        raw = orjson.dumps(value)
    except TypeError:
        raw = repr(value).encode()
    origin = f"{problem.table or resource.name}/{identity or 'record'}.json"
    return resource, Reject(
        problem.reason,
        problem.detail,
        raw,
        origin,
        problem.table or resource.name,
        identity,
        observed_at,
    )


def _tombstones(
    resource: Resource, identities: Iterable[str], observed_at: datetime
) -> Iterator[Seen]:
    for identity in identities:
        yield resource, Observation(identity, None, observed_at, is_deleted=True)


def _database_of(value: Json) -> str | None:
    parent = value.get("parent")
    identity = parent.get("database_id") if isinstance(parent, dict) else None
    return identity if isinstance(identity, str) else None


def _has_id(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str) and value["id"] != ""


def _outlined(value: Any) -> Any:
    """A page without what it says, which is asked for later: lists may be long."""
    if problem_of(value) is not None:
        return value
    kept = ("object", "id", "last_edited_time", "in_trash", "archived")
    return {name: value[name] for name in kept if name in value}
