"""A Notion workspace from files that hold API objects as the API returns them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import dlt
from dlt.extract import DltResource

from dlt_sources.json_files import input_files, observation_time, told_complete
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.notion.settings import TABLES
from dlt_sources.notion.stage import Stage


@dlt.source(name="notion")
def notion(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
) -> list[DltResource]:
    """Pages with their blocks, users, databases and data sources.

    A page that is not there is not deleted: an export may be partial. One whose blocks are not all
    there is set aside, as nothing can be said of it.

    Args:
        location: a `.json` or `.jsonl` file or a folder of them, with page, block, user, database
            and data source objects and list answers, in any order.
        observed_at: when the export was made, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
    """
    files = input_files(Path(location), "*.json", "*.jsonl", "*.jsonl.gz")
    seen_at = observed_at or observation_time(Path(location), files)
    landing = landing or Landing.begin("notion")
    # A few pages by themselves are an input, too.
    landing.is_complete = told_complete(Path(location)) is True
    stage = Stage(files, landing.folder / "notion.sqlite", seen_at)
    return [
        raw_resource(landing.rows(resource, stage.observations(kind)), resource.name)
        for kind, resource in TABLES.items()
    ]
