"""Google documents and the metadata of their files, from answers of the Docs and Drive APIs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

import dlt
import pyarrow as pa
from dlt.extract import DltResource

from dlt_sources.google_docs.objects import Objects
from dlt_sources.google_docs.settings import (
    DOCUMENTS,
    FILES,
    MAX_DELETED_SHARE,
    MIN_SUSPICIOUS_DELETIONS,
)
from dlt_sources.json_files import input_files, observation_time, told_complete
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.versions import Resource


@dlt.source(name="google_docs")
def google_docs(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
    max_deleted_share: float = MAX_DELETED_SHARE,
) -> list[DltResource]:
    """Documents with all of their tabs, and the metadata of files with their permissions.

    Where the export says that it is complete, a document or file that was landed before and is not
    there was deleted; what could not be read is not absent. An export without any document says
    nothing of documents, and one without any file or list of files nothing of files.

    Args:
        location: a `.json` or `.jsonl` file or a folder of them, with answers of `documents.get`,
            files of the Drive API and answers of `files.list`, in any order.
        observed_at: when the export was made, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
        max_deleted_share: a larger share of absent objects, 0 to 1, is taken for a broken export.
    """
    files = input_files(Path(location), "*.json", "*.jsonl", "*.jsonl.gz")
    found = Objects(files, observed_at or observation_time(Path(location), files))
    landing = landing or Landing.begin("google_docs")
    landing.quarantine.observed_at = found.observed_at
    is_complete = told_complete(Path(location)) is True

    def rows(
        resource: Resource, observations: Iterable[Observation | Reject]
    ) -> Iterator[pa.Table]:
        yield from landing.rows(resource, observations)
        if not is_complete or not found.is_whole or resource.name not in found.told:
            return
        unreadable = pa.table({"id": pa.array(sorted(found.unreadable), pa.string())})
        landing.duckdb.register("unreadable_objects", unreadable)
        yield from landing.tombstones(
            resource,
            "external_id not in (select id from unreadable_objects)",
            found.observed_at,
            max_deleted_share,
            MIN_SUSPICIOUS_DELETIONS,
        )

    return [
        raw_resource(rows(DOCUMENTS, found.documents()), DOCUMENTS.name),
        raw_resource(rows(FILES, found.metadata()), FILES.name),
    ]
