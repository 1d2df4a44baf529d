"""What lists of files show, beside what is landed of them; kept in DuckDB, which spills to disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from dlt_sources.google_docs.client import FOLDER_TYPE
from dlt_sources.google_docs.settings import DOCUMENTS, FILES
from dlt_sources.landed_versions import registered
from dlt_sources.landing import Landing
from dlt_sources.live import Run
from dlt_sources.sweeps import Sweep
from dlt_sources.versions import microseconds

Json = Any

LISTED = 'memory.main."listed files"'
ROWS_PER_FETCH = 500
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Landed:
    """What is landed of a file.

    Attributes:
        payload: its newest metadata; empty where there are none, or very many.
        has_file: whether it is there, by its metadata.
        has_document: whether its text is.
    """

    payload: Mapping[str, Json]
    has_file: bool
    has_document: bool


NOTHING = Landed({}, has_file=False, has_document=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """A file as Drive shows it.

    Attributes:
        file: its metadata.
        at: when they were asked for.
        landed: what is landed of it.
        is_changed: whether a log says that it changed, so that nothing landed is good enough.
    """

    file: dict[str, Json]
    at: datetime
    landed: Landed
    is_changed: bool = False

    @property
    def is_outdated(self) -> bool:
        """Whether something newer is landed: lists may lag behind what changes.

        Drive counts every change of a file in `version`.
        """
        return _version(self.file) < _version(self.landed.payload)


class LandedFiles:
    """What is landed of files, as it was when the load began."""

    def __init__(self, landing: Landing) -> None:
        self._landing = landing

    def of(self, ids: Sequence[str]) -> dict[str, Landed]:
        """What is landed of each of the given files."""
        if not ids:
            return {}
        marks = ", ".join("?" * len(ids))
        rows = self._landing.duckdb.execute(
            f"""
            select
                coalesce(files.external_id, documents.external_id),
                files.payload,
                coalesce(not files.is_deleted, false),
                coalesce(not documents.is_deleted, false)
            from (
                select external_id, payload, is_deleted
                from ({self._landing.latest(FILES)}) as landed_files
                where external_id in ({marks})
            ) as files
            full join (
                select external_id, is_deleted
                from ({self._landing.latest(DOCUMENTS)}) as landed_documents
                where external_id in ({marks})
            ) as documents
                on files.external_id = documents.external_id
            """,  # noqa: S608 - here and below, the names are our own
            [*ids, *ids],
        ).fetchall()
        return {identity: Landed(_parsed(payload), *flags) for identity, payload, *flags in rows}

    def count(self) -> int:
        """How many files there are."""
        found = self._landing.duckdb.execute(
            f"select count(*) from ({self._landing.latest(FILES)}) as files where not is_deleted"  # noqa: S608
        ).fetchone()
        assert found is not None
        return found[0]

    def in_drive(self, drive: str) -> list[str]:
        """Ids of those in a shared drive."""
        rows = self._landing.duckdb.execute(
            f"""
            select external_id
            from ({self._landing.latest(FILES)}) as files
            where not is_deleted and json_extract_string(payload, '$.driveId') = ?
            order by external_id
            """,  # noqa: S608
            [drive],
        ).fetchall()
        return [identity for (identity,) in rows]

    def below(self, folders: Sequence[str]) -> list[str]:
        """Ids of the files that are landed as lying in folders, however deep."""
        marks = ", ".join("(?)" for _ in folders)
        rows = self._landing.duckdb.execute(
            f"""
            with recursive placed as (
                select
                    external_id,
                    unnest(try_cast(json_extract(payload, '$.parents') as varchar[])) as parent_id
                from ({self._landing.latest(FILES)}) as files
                where not is_deleted
            ),

            below (external_id) as (
                select * from (values {marks}) as folders (external_id)

                union

                select placed.external_id
                from placed
                inner join below on placed.parent_id = below.external_id
            )

            select external_id from below order by external_id
            """,  # noqa: S608
            list(folders),
        ).fetchall()
        return [identity for (identity,) in rows if identity not in set(folders)]


class Listing:
    """Files that lists show.

    Args:
        run: where what is landed is known.
    """

    def __init__(self, run: Run) -> None:
        self._landing = run.landing
        self._rails = run.rails
        self._files = Sweep(run.landing, FILES)
        self._documents = Sweep(run.landing, DOCUMENTS)
        self.count = 0
        self._landing.duckdb.execute(
            f"create or replace table {LISTED} (external_id varchar, file varchar, asked_at bigint)"
        )

    def add(self, at: datetime, files: Iterable[dict[str, Json]]) -> None:
        """Note files, each with an id, that a list showed at a time."""
        rows = [(file["id"], orjson.dumps(file).decode()) for file in files]
        if not rows:
            return
        self.count += len(rows)
        ids, texts = zip(*rows, strict=True)
        with registered(
            self._landing.duckdb,
            "page",
            id=list(ids),
            file=list(texts),
            asked_at=[microseconds(at)] * len(ids),
        ):
            self._landing.duckdb.execute(
                f"insert into {LISTED} select id, file, asked_at from page"  # noqa: S608
            )
        for sweep in (self._files, self._documents):
            sweep.show((identity, None) for identity in ids)

    def seen(self) -> Iterator[Seen]:
        """Each of them once, those changed last first."""
        # A cursor of its own: the connection goes on to be used while rows are read.
        with self._landing.duckdb.cursor() as cursor:
            cursor.execute(
                f"""
                select
                    listed.file,
                    listed.asked_at,
                    files.payload,
                    coalesce(not files.is_deleted, false),
                    coalesce(not documents.is_deleted, false)
                from (
                    select external_id, arg_max(file, asked_at) as file, max(asked_at) as asked_at
                    from {LISTED}
                    group by external_id
                ) as listed
                left join ({self._landing.latest(FILES)}) as files
                    on listed.external_id = files.external_id
                left join (
                    select external_id, is_deleted
                    from ({self._landing.latest(DOCUMENTS)}) as landed_documents
                ) as documents
                    on listed.external_id = documents.external_id
                order by
                    json_extract_string(listed.file, '$.modifiedTime') desc nulls last,
                    listed.external_id
                """  # noqa: S608
            )
            while rows := cursor.fetchmany(ROWS_PER_FETCH):
                for file, at, payload, *flags in rows:
                    yield Seen(
                        orjson.loads(file),
                        EPOCH + timedelta(microseconds=at),
                        Landed(_parsed(payload), *flags),
                    )

    def absent_from(self, drive: str) -> Iterator[str]:
        """Ids of files landed as lying in a shared drive that the lists do not show."""
        text = drive.replace("'", "''")
        yield from self._files.absent(f"json_extract_string(payload, '$.driveId') = '{text}'")

    def absent(self) -> Iterator[str]:
        """Ids of landed files, of all that there are, that the lists do not show.

        Raises:
            LorelineError: they are too many.
        """
        self._rails.check("google_docs", "files", *self._files.count_absent())
        yield from self._files.absent()

    def absent_documents(self) -> Iterator[str]:
        """Ids of landed documents, without landed metadata, that the lists do not show.

        Raises:
            LorelineError: they are too many.
        """
        files = self._landing.latest(FILES)
        alone = (
            f"external_id not in (select f.external_id from ({files}) as f where not f.is_deleted)"  # noqa: S608
        )
        absent, _ = self._documents.count_absent(alone)
        _, landed = self._documents.count_absent()
        self._rails.check("google_docs", "documents", absent, landed)
        yield from self._documents.absent(alone)


def is_folder(file: Mapping[str, Json]) -> bool:
    """Whether a file is a folder."""
    return file.get("mimeType") == FOLDER_TYPE


def _parsed(payload: str | None) -> Mapping[str, Json]:
    found = orjson.loads(payload) if payload else {}
    return found if isinstance(found, dict) else {}


def _version(file: Mapping[str, Json]) -> int:
    told = file.get("version")
    return int(told) if isinstance(told, str) and told.isdecimal() else 0
