"""Google Docs through the Drive and Docs APIs.

Drive keeps a log of changes for the account, and one for each shared drive: a run asks each for
what came since the last time. A sweep lists all files. Both only name what may have changed; what
lands of a file is what Drive says of it then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import orjson

from dlt_sources.api import ApiError, NotFoundError, Patience, Waiting
from dlt_sources.google_docs.channels import keep_channels
from dlt_sources.google_docs.client import (
    DOCUMENT_TYPE,
    DOCUMENTS_AND_FOLDERS,
    MISCONFIGURED,
    Google,
    quoted,
)
from dlt_sources.google_docs.listing import NOTHING, Landed, LandedFiles, Listing, Seen, is_folder
from dlt_sources.google_docs.objects import document_seen, file_seen
from dlt_sources.google_docs.settings import DOCUMENTS, FILES
from dlt_sources.json_files import BadRecord, Record, parse
from dlt_sources.live import Batch, Plan, Run
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.versions import Resource
from loreline.settings import Settings

Json = Any
Observed = tuple[Resource, Observation | Reject]

# What a delivery names: that something changed. Notifications do not tell what.
CHANGES = "changes"
# Cursors: where the log of each shared drive was read up to, and the account's own under no name.
LOG = "changes:"
ACCOUNT = ""
RESOURCES = {DOCUMENTS.name: DOCUMENTS, FILES.name: FILES}
GONE_AT_ONCE = 500
PLANNED_PAGES = 10
# Asked for, and not landed of documents: an export does not have it, and it would be a version.
UNLANDED = ("permissionIds",)


@dataclass
class GoogleDocs:
    """Google Docs as a live source.

    Attributes:
        settings: the credentials, the addresses and the rate.
        patience: how long to wait for Google.
    """

    settings: Settings
    patience: Patience | None = None

    def fetch(self, run: Run) -> Iterator[Batch]:
        """What the logs tell; and all files, at the first time and where the run sweeps."""
        address, secret = self.settings.google_channel_url, self.settings.google_channel_token
        with self._google(run) as google:
            walk = _Walk(run, google)
            yield from walk.batches(sweeps=run.sweeps)
            if address and secret:
                yield from keep_channels(run, google, walk.tokens, address, secret)

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        """What the logs tell: all that a notification says is that there is something."""
        with self._google(run) as google:
            for batch in _Walk(run, google).batches(sweeps=False):
                for _, item in batch.observations:
                    if isinstance(item, Observation):
                        item.delivery_id = run.deliveries.get(names[0])
                yield batch

    def plan(self, run: Run) -> Plan:
        """What a run would ask; counted from the ids alone, and only so far."""
        tokens = run.cursors.named(LOG)
        with self._google(run) as google:
            if ACCOUNT not in tokens:
                return _plan_first(google, float(self.settings.google_rate))
            changed = 0
            for drive, token in tokens.items():
                changed += len(google.changes(token, drive)[0])
            requests = len(tokens) + 2 * changed
            what = "changes"
            if run.sweeps:
                what = "changes, and a list of all files"
                requests += 1 + len(tokens) + LandedFiles(run.landing).count() // 100
            return Plan(what, requests, float(self.settings.google_rate), changed)

    def _google(self, run: Run) -> Google:
        return Google(self.settings, patience=self.patience, told=run.progress)


def live_google_docs(settings: Settings) -> GoogleDocs | None:
    """Google Docs, where the settings name credentials."""
    return GoogleDocs(settings) if settings.google_credentials else None


@dataclass
class _Changes:
    """What a page of a log names, by what is to be done with it."""

    documents: dict[str, dict[str, Json]] = field(default_factory=dict)
    folders: dict[str, dict[str, Json]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    drives: dict[str, bool] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)


class _Walk:
    """One run."""

    def __init__(self, run: Run, google: Google) -> None:
        self.run = run
        self.google = google
        self.tokens: dict[str, str] = run.cursors.named(LOG)
        self.landed = LandedFiles(run.landing)
        # What this run has made of files, of which `landed` knows nothing.
        self.present: dict[tuple[str, str], bool] = {}
        self.removals = 0
        self.unshared = 0

    def batches(self, *, sweeps: bool) -> Iterator[Batch]:
        if ACCOUNT in self.tokens:
            for drive in [ACCOUNT, *(d for d in self.tokens if d != ACCOUNT)]:
                if drive in self.tokens:
                    yield from self._log(drive)
        if sweeps or ACCOUNT not in self.tokens:
            yield from self._everything()
        if self.unshared:
            self.run.progress(
                f"{self.unshared:,} documents do not tell the account who may read"
                " them: their owners alone can, until it may share them"
            )

    # Logs of changes

    def _log(self, drive: str) -> Iterator[Batch]:
        """What one log tells, page by page."""
        while True:
            asked_at, token = datetime.now(UTC), self.tokens[drive]
            try:
                entries, following, has_more = self.google.changes(token, drive)
            except ApiError as error:
                if error.status not in (400, 404, 410):
                    raise
                yield from self._lost_log(drive, error)
                return
            yield from self._page(_sorted(entries, drive, self.tokens), asked_at, drive)
            if following != token:
                self.tokens[drive] = following
                yield Batch(cursors={LOG + drive: following})
            if not has_more or drive not in self.tokens or following == token:
                return

    def _lost_log(self, drive: str, error: ApiError) -> Iterator[Batch]:
        """A log that cannot be read on: what it would have told is found in lists."""
        self.run.progress(f"{error}: what has changed is found by listing all files")
        if drive == ACCOUNT:
            del self.tokens[ACCOUNT]
        elif error.status == 404:
            yield from self._leave(drive)
        else:
            yield from self._join(drive)

    def _page(self, page: _Changes, at: datetime, drive: str) -> Iterator[Batch]:
        named = [*page.documents, *page.folders, *page.removed]
        landed = {
            identity: known
            for ids in _batched(named, GONE_AT_ONCE)
            for identity, known in self.landed.of(ids).items()
        }
        if page.rejects:
            yield Batch([(FILES, reject) for reject in page.rejects])
        seen = (
            Seen(file, at, landed.get(identity, NOTHING), is_changed=True)
            for identity, file in page.documents.items()
        )
        for batch in self.google.map_or_wait(self._fetched, seen):
            yield Batch() if isinstance(batch, Waiting) else self._noted(batch)
        yield from self._folders(page.folders, landed, at)
        yield from self._removed(page.removed, landed)
        for touched, is_member in page.drives.items():
            if not is_member:
                yield from self._leave(touched)
            elif touched in self.tokens:
                yield from self._drive(touched)
            else:
                yield from self._join(touched)

    def _folders(
        self, folders: Mapping[str, dict[str, Json]], landed: Mapping[str, Landed], at: datetime
    ) -> Iterator[Batch]:
        """Folders, and what is in them: who may read a folder may read that, and the log does not
        tell of it."""
        above = [
            (identity, self._corpus(file))
            for identity, file in folders.items()
            if not _same_access(file, landed.get(identity, NOTHING))
        ]
        if above:
            listing = Listing(self.run)
            yield from self._list_below(listing, above)
            yield from self._differing(listing)
        for identity, file in folders.items():
            seen = Seen(file, at, landed.get(identity, NOTHING), is_changed=True)
            yield self._noted(self._fetched(seen))

    def _list_below(self, listing: Listing, above: Sequence[tuple[str, str]]) -> Iterator[Batch]:
        waiting, known = deque(above), {identity for identity, _ in above}
        while waiting:
            folder, drive = waiting.popleft()
            condition = f"{quoted(folder)} in parents and {DOCUMENTS_AND_FOLDERS}"
            try:
                for at, files in self.google.files(condition, drive):
                    files, rejects = _with_ids(files)
                    if rejects:
                        yield Batch([(FILES, reject) for reject in rejects])
                    listing.add(at, files)
                    for file in files:
                        if is_folder(file) and file["id"] not in known:
                            known.add(file["id"])
                            waiting.append((file["id"], self._corpus(file)))
            except NotFoundError:
                # It has gone since, and the log will say so.
                continue

    def _removed(self, ids: Iterable[str], landed: Mapping[str, Landed]) -> Iterator[Batch]:
        """What a log says is no longer there for the account, with what lies in it."""
        gone = [i for i in ids if self._is_present(i, landed.get(i, NOTHING))]
        folders = [i for i in gone if is_folder(landed.get(i, NOTHING).payload)]
        if folders:
            gone = list(dict.fromkeys([*gone, *self.landed.below(folders)]))
        yield from self._gone_after_check(gone)

    def _gone_after_check(self, gone: Sequence[str]) -> Iterator[Batch]:
        # An account that lost its access looks the same as a drive that was emptied.
        self.removals += len(gone)
        if self.removals >= self.run.rails.least and gone:
            self.run.rails.check("google_docs", "files", self.removals, self.landed.count())
        yield from self._gone(gone)

    # Shared drives

    def _join(self, drive: str) -> Iterator[Batch]:
        """A shared drive whose log was not read before."""
        token = self.google.start_token(drive)
        yield from self._drive(drive)
        self.tokens[drive] = token
        yield Batch(cursors={LOG + drive: token})

    def _drive(self, drive: str) -> Iterator[Batch]:
        """All of a shared drive: its members may read it, and its log does not tell of files."""
        listing = Listing(self.run)
        yield from self._list(listing, drive)
        yield from self._differing(listing)
        yield from self._gone_after_check(self._unheard(listing.absent_from(drive)))

    def _leave(self, drive: str) -> Iterator[Batch]:
        """A shared drive that is gone, or that the account is no longer a member of."""
        yield from self._gone_after_check(self._unheard(self.landed.in_drive(drive)))
        if self.tokens.pop(drive, None):
            yield Batch(cursors={LOG + drive: None})

    # Sweeps

    def _everything(self) -> Iterator[Batch]:
        """All files; those that changed are fetched, those that are gone deleted."""
        drives = [ACCOUNT, *self.google.drives()]
        cursors: dict[str, str | None] = {}
        for drive in drives:
            if drive not in self.tokens:
                # Before the lists: what changes meanwhile is in the log.
                cursors[LOG + drive] = self.tokens[drive] = self.google.start_token(drive)
        listing = Listing(self.run)
        for drive in drives:
            yield from self._list(listing, drive)
        self.run.progress(f"google_docs: {listing.count:,} files listed")
        yield from self._differing(listing)
        cursors |= {LOG + drive: None for drive in self.tokens if drive not in drives}
        yield Batch(cursors=cursors)
        yield from self._gone(listing.absent())
        yield from self._gone(listing.absent_documents())

    def _list(self, listing: Listing, drive: str) -> Iterator[Batch]:
        for at, files in self.google.files(DOCUMENTS_AND_FOLDERS, drive):
            files, rejects = _with_ids(files)
            if rejects:
                yield Batch([(FILES, reject) for reject in rejects])
            listing.add(at, files)

    def _differing(self, listing: Listing) -> Iterator[Batch]:
        """What lists show, with what is to be fetched of it.

        They may still show what a log has said is gone.
        """
        current = (
            seen
            for seen in listing.seen()
            if not seen.is_outdated and self.present.get((FILES.name, seen.file["id"]), True)
        )
        for batch in self.google.map_or_wait(self._fetched, current):
            yield Batch() if isinstance(batch, Waiting) else self._counted(batch)

    def _gone(self, ids: Iterable[str]) -> Iterator[Batch]:
        """Files that were not shown, each asked for by itself before it is deleted."""
        for some in _batched(ids, GONE_AT_ONCE):
            landed = self.landed.of(some)
            pairs = [(identity, landed.get(identity, NOTHING)) for identity in some]
            for batch in self.google.map(self._asked_alone, pairs):
                yield self._noted(batch)

    # Single files; these run in threads

    def _asked_alone(self, pair: tuple[str, Landed]) -> Batch:
        identity, landed = pair
        at = datetime.now(UTC)
        try:
            file = self.google.file(identity)
        except NotFoundError:
            return Batch(self._deleted(identity, landed, at))
        (file,), rejects = _with_ids([file]) if isinstance(file, dict) else ([{}], [])
        if rejects or file.get("id") != identity:
            return Batch([(FILES, _refused(identity, "Drive answers with another file"))])
        return self._fetched(Seen(file, at, landed, is_changed=True))

    def _fetched(self, seen: Seen) -> Batch:
        try:
            return Batch(self._observed(seen))
        except NotFoundError:
            # It went while it was fetched.
            return Batch(self._deleted(seen.file["id"], seen.landed, datetime.now(UTC)))

    def _observed(self, seen: Seen) -> list[Observed]:
        """A file with who may read it; and its text, unless that is landed.

        Raises:
            NotFoundError: it is no longer there.
        """
        file = {name: value for name, value in seen.file.items() if name not in UNLANDED}
        if is_folder(file):
            if "permissions" not in file and "permissionIds" in seen.file:
                file["permissionIds"] = seen.file["permissionIds"]
            return [_observed(file, seen.at, "files.list")]
        if file.get("driveId"):
            permissions = self._permissions(seen)
            if permissions is not None:
                file["permissions"] = permissions
        observed = [_observed(file, seen.at, "files.list")]
        if _needs_text(seen):
            observed.append(self._document(file["id"]))
        return observed

    def _permissions(self, seen: Seen) -> list[Json] | None:
        """Who may read a file of a shared drive, of which Drive lists no more than the ids.

        Raises:
            NotFoundError: the file is not there.
        """
        known = seen.landed.payload.get("permissions")
        ids = seen.file.get("permissionIds")
        if not seen.is_changed and seen.landed.has_file and known and _ids(known) == _texts(ids):
            return known
        try:
            return self.google.permissions(seen.file["id"])
        except NotFoundError:
            self.google.file(seen.file["id"])
            return None

    def _document(self, identity: str) -> Observed:
        """The text of a document.

        Raises:
            NotFoundError: the file is not there either.
        """
        at = datetime.now(UTC)
        try:
            value = self.google.document(identity)
        except NotFoundError as error:
            self.google.file(identity)
            return DOCUMENTS, _refused(identity, str(error))
        except ApiError as error:
            if error.status == 401 or error.code in MISCONFIGURED:
                raise
            return DOCUMENTS, _refused(identity, str(error))
        if not isinstance(value, dict) or value.get("documentId") != identity:
            return DOCUMENTS, _refused(identity, "Docs answers with another document")
        return _observed(value, at, "documents.get")

    # What is there

    def _deleted(self, identity: str, landed: Landed, at: datetime) -> list[Observed]:
        states = ((FILES, landed.has_file), (DOCUMENTS, landed.has_document))
        return [
            (resource, Observation(identity, None, at, is_deleted=True))
            for resource, is_landed in states
            if self.present.get((resource.name, identity), is_landed)
        ]

    def _is_present(self, identity: str, landed: Landed) -> bool:
        return self.present.get((FILES.name, identity), landed.has_file) or self.present.get(
            (DOCUMENTS.name, identity), landed.has_document
        )

    def _unheard(self, ids: Iterable[str]) -> list[str]:
        """Those of which no log has told in this run, such as that they were moved elsewhere."""
        return [identity for identity in ids if (FILES.name, identity) not in self.present]

    def _noted(self, batch: Batch) -> Batch:
        """A batch of a log, which may tell of the same files again before it is landed."""
        for resource, item in batch.observations:
            if isinstance(item, Observation):
                self.present[resource.name, item.external_id] = not item.is_deleted
        return self._counted(batch)

    def _counted(self, batch: Batch) -> Batch:
        self.unshared += sum(
            isinstance(item, Observation)
            and isinstance(item.payload, dict)
            and item.payload.get("mimeType") == DOCUMENT_TYPE
            and "permissions" not in item.payload
            for _, item in batch.observations
        )
        return batch

    def _corpus(self, file: Mapping[str, Json]) -> str:
        """The shared drive that a file is listed in; none where the account is no member."""
        drive = file.get("driveId")
        return drive if drive in self.tokens else ACCOUNT


def _sorted(entries: Sequence[Json], drive: str, logs: Mapping[str, str]) -> _Changes:
    """What the changes of a page name; the last one of a file counts."""
    page = _Changes()
    for entry in entries:
        problem = _wrong_entry(entry)
        if problem:
            page.rejects.append(_reject(*problem, entry))
            continue
        if entry.get("changeType") == "drive":
            page.drives[entry["driveId"]] = entry.get("removed") is not True
            continue
        identity, file = entry["fileId"], entry.get("file")
        for places in (page.documents, page.folders):
            places.pop(identity, None)
        page.removed.discard(identity)
        if not isinstance(file, dict):
            page.removed.add(identity)
        elif drive == ACCOUNT and file.get("driveId") in logs:
            # Only the log of the shared drive tells everything of it.
            continue
        elif is_folder(file):
            page.folders[identity] = file
        elif file.get("mimeType") == DOCUMENT_TYPE:
            page.documents[identity] = file
    return page


def _wrong_entry(entry: Json) -> tuple[str, str] | None:
    if not isinstance(entry, dict):
        return "wrong_type", f"a change is an object, not {type(entry).__name__}"
    named = "driveId" if entry.get("changeType") == "drive" else "fileId"
    if not isinstance(entry.get(named), str) or not entry[named]:
        return "missing_id", f"a change without {named}"
    file = entry.get("file")
    if file is not None and (not isinstance(file, dict) or file.get("id") != entry[named]):
        return "wrong_type", "a change of a file with another file in it"
    return None


def _with_ids(files: Iterable[Json]) -> tuple[list[dict[str, Json]], list[Reject]]:
    """The files of a list that can be told apart, and the others."""
    good, rejects = [], []
    for file in files:
        if not isinstance(file, dict):
            problem = "wrong_type", f"a file is an object, not {type(file).__name__}"
            rejects.append(_reject(*problem, file))
        elif not isinstance(file.get("id"), str) or not file["id"]:
            rejects.append(_reject("missing_id", "a file without an id", file))
        else:
            good.append(file)
    return good, rejects


def _observed(value: dict[str, Json], at: datetime, origin: str) -> Observed:
    """A file or a document as the file route would land it."""
    is_document = "documentId" in value
    resource = DOCUMENTS if is_document else FILES
    raw = orjson.dumps(value)
    try:
        parse(raw)
    except BadRecord as bad:
        identity = value["documentId" if is_document else "id"]
        return resource, Reject(bad.reason, bad.detail, raw, origin, resource.name, identity)
    found = (document_seen if is_document else file_seen)(Record(value, origin), at)
    return resource, found if isinstance(found, Reject) else found[1]


def _reject(reason: str, detail: str, value: Json) -> Reject:
    return Reject(reason, detail, orjson.dumps(value), "Drive", FILES.name)


def _refused(identity: str, why: str) -> Reject:
    """A document that Google does not give; the same at each time, so that it is kept once."""
    raw = orjson.dumps({"documentId": identity})
    return Reject("refused", why, raw, "documents.get", DOCUMENTS.name, identity)


def _needs_text(seen: Seen) -> bool:
    """Whether a document is to be fetched. Its name is its title."""
    file, landed = seen.file, seen.landed
    if file.get("mimeType") != DOCUMENT_TYPE or file.get("trashed") is True:
        return False
    return (
        seen.is_changed
        or not landed.has_document
        or not landed.has_file
        or any(file.get(name) != landed.payload.get(name) for name in ("modifiedTime", "name"))
    )


def _same_access(file: Mapping[str, Json], landed: Landed) -> bool:
    """Whether a folder lies where it lay, for those for whom it did; no where that is not told."""
    if not landed.has_file:
        return False
    now, before = _access(file), _access(landed.payload)
    return now is not None and now == before


def _access(folder: Mapping[str, Json]) -> tuple[Json, ...] | None:
    told = folder.get("permissions")
    ids = _texts(folder.get("permissionIds")) if told is None else _ids(told)
    if ids is None:
        return None
    return ids, folder.get("parents"), folder.get("driveId"), folder.get("trashed")


def _ids(permissions: Json) -> set[str] | None:
    if not isinstance(permissions, list):
        return None
    return _texts([p.get("id") if isinstance(p, dict) else None for p in permissions])


def _texts(listed: Json) -> set[str] | None:
    """A list of texts as a set; None where it is anything else."""
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        return None
    return set(listed)


def _batched(items: Iterable[str], size: int) -> Iterator[list[str]]:
    remaining = iter(items)
    while some := list(islice(remaining, size)):
        yield some


def _plan_first(google: Google, rate: float) -> Plan:
    documents = shared = requests = 0
    is_counted = True
    for drive in [ACCOUNT, *google.drives()]:
        pages = google.files(f"mimeType = '{DOCUMENT_TYPE}'", drive, fields="id")
        for number, (_, files) in enumerate(pages, start=1):
            documents, requests = documents + len(files), requests + 1 + len(files) // 100
            shared += len(files) if drive else 0
            if number == PLANNED_PAGES:
                is_counted = False
                break
    what = "everything" if is_counted else "everything, which is more than was counted"
    return Plan(what, requests + documents + shared, rate, documents)
