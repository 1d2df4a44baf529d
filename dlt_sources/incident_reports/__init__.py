"""Incident reports: Markdown files with YAML front matter."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import dlt
import orjson
import pyarrow as pa
from dlt.extract import DltResource

from dlt_sources.incident_reports.front_matter import BadReport, read_report
from dlt_sources.incident_reports.settings import (
    MAX_DELETED_SHARE,
    MIN_SUSPICIOUS_DELETIONS,
    REPORTS,
)
from dlt_sources.json_files import EXPORT_FILE, MAX_FIELD_BYTES, input_files, observation_time
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation

_YES = {"true", "yes", "on"}


@dlt.source(name="incident_reports")
def incident_reports(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
    max_deleted_share: float = MAX_DELETED_SHARE,
) -> DltResource:
    """Reports from a `.md` file or a folder of them.

    A folder whose `export.json` says `"complete": true` speaks for all reports: one that was landed
    before and is not there was deleted.

    Args:
        location: the file or folder.
        observed_at: when they were written, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
        max_deleted_share: a larger share of absent reports, 0 to 1, is taken for a broken folder.
    """
    place = Path(location)
    files = input_files(place, "*.md")
    seen_at = observed_at or observation_time(place, files)
    landing = landing or Landing.begin("incident_reports")
    landing.quarantine.observed_at = seen_at
    tables = _reports(landing, files, seen_at, _is_complete(place), max_deleted_share)
    return raw_resource(tables, REPORTS.name)


def reports(
    files: Sequence[tuple[Path, str]], observed_at: datetime
) -> Iterator[Observation | Reject]:
    """The reports of some files; what is none is set aside."""
    read_from: dict[str, str] = {}
    for path, name in files:
        raw = path.read_bytes()
        try:
            if len(raw) > MAX_FIELD_BYTES:
                raise BadReport("field_too_large", f"it is longer than {MAX_FIELD_BYTES} bytes")
            fields, body = read_report(raw)
        except BadReport as bad:
            yield Reject(bad.reason, bad.detail, raw[:MAX_FIELD_BYTES], name)
            continue
        written = fields.get("id")
        identity = (written.strip() if isinstance(written, str) else "") or path.stem
        if identity in read_from:
            detail = f"{read_from[identity]} has the id {identity!r} too"
            yield Reject("duplicate_id", detail, raw, name, external_id=identity)
            continue
        read_from[identity] = name
        yield Observation(
            external_id=identity,
            payload={"file": name, "fields": fields, "body": body},
            observed_at=observed_at,
            source_updated_at=_time(fields.get("updated_at")),
            is_deleted=str(fields.get("deleted", "")).lower() in _YES,
            origin=name,
        )


def _reports(
    landing: Landing,
    files: Sequence[tuple[Path, str]],
    observed_at: datetime,
    is_complete: bool,
    max_deleted_share: float,
) -> Iterator[pa.Table]:
    set_aside = landing.quarantine.counts.total()
    yield from landing.rows(REPORTS, reports(files, observed_at))
    # Which report a file is that could not be read is not known: any absent one may be it.
    if is_complete and landing.quarantine.counts.total() == set_aside:
        yield from landing.tombstones(
            REPORTS, "true", observed_at, max_deleted_share, MIN_SUSPICIOUS_DELETIONS
        )


def _is_complete(place: Path) -> bool:
    told = place / EXPORT_FILE
    return told.is_file() and orjson.loads(told.read_bytes()).get("complete") is True


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
