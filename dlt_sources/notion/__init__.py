"""A Notion workspace from files: objects as the API returns them, or an export of Notion's own."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import chain
from pathlib import Path

import dlt
from dlt.extract import DltResource

from dlt_sources.json_files import input_files, observation_time
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.notion.export import find_export
from dlt_sources.notion.settings import TABLES
from dlt_sources.notion.stage import Stage
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from loreline.errors import LorelineError

_API_FILES = ("*.json", "*.jsonl", "*.jsonl.gz")


@dlt.source(name="notion")
def notion(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
) -> list[DltResource]:
    """Pages with their blocks or their Markdown, users, databases and data sources.

    A page that is not there is not deleted: an export may be partial. One whose blocks are not all
    there is set aside, as nothing can be said of it.

    Args:
        location: a `.json` or `.jsonl` file or a folder of them, with page, block, user, database
            and data source objects and list answers, in any order; or the ZIP of Notion's export
            as Markdown and CSV, or the folder that it was unpacked to.
        observed_at: when the export was made, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
    """
    location = Path(location)
    landing = landing or Landing.begin("notion")
    export = find_export(location, landing.folder, observed_at)
    try:
        files = [] if export and location.is_file() else input_files(location, *_API_FILES)
    except LorelineError:
        if not export:
            raise
        files = []
    seen_at = observed_at or (observation_time(location, files) if files else None)
    landing.quarantine.observed_at = seen_at or (export and export.observed_at)
    observed: dict[str, Iterable[Observation | Reject]] = {}
    if files and seen_at:
        stage = Stage(files, landing.folder / "notion.sqlite", seen_at)
        observed = {kind: stage.observations(kind) for kind in TABLES}
    if export:
        observed["page"] = chain(observed.get("page", ()), export.observations())
        landing.summary.passed_over["attachments"] += export.others - len(files)
    return [
        raw_resource(landing.rows(resource, observed.get(kind, ())), resource.name)
        for kind, resource in TABLES.items()
    ]
