"""A Linear workspace from files that hold what its GraphQL API answered."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import dlt
import pyarrow as pa
from dlt.extract import DltResource

from dlt_sources.json_files import EXPORT_FILE, input_files, is_complete, observation_time
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.linear.settings import MAX_DELETED_SHARE, MIN_SUSPICIOUS_DELETIONS, TABLES
from dlt_sources.linear.stage import Stage
from dlt_sources.versions import Resource

# Lists of what belongs to one issue for good: such a list alone tells what is gone.
_LISTED_BY_ISSUES = ("attachments", "comments", "history", "relations")


@dlt.source(name="linear")
def linear(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
    max_deleted_share: float = MAX_DELETED_SHARE,
) -> list[DltResource]:
    """Issues, comments, relations, history, projects, cycles, users, teams, labels and more.

    What is absent is not deleted, unless `export.json` says that the export is complete.

    Args:
        location: a `.json` or `.jsonl` file or a folder of them, with answers of the API, their
            connections or their nodes, in any order.
        observed_at: when the export was made, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
        max_deleted_share: a larger share of absent objects, 0 to 1, is taken for a broken export.
    """
    place = Path(location)
    files = input_files(place, "*.json", "*.jsonl", "*.jsonl.gz")
    seen_at = observed_at or observation_time(place, files)
    landing = landing or Landing.begin("linear")
    landing.quarantine.observed_at = seen_at
    stage = Stage(files, landing.folder / "linear.sqlite", seen_at)
    told = place / EXPORT_FILE
    share = max_deleted_share if told.is_file() and is_complete(told.read_bytes(), False) else None
    return [
        raw_resource(_rows(landing, stage, resource, share), resource.name)
        for resource in TABLES.values()
    ]


def _rows(
    landing: Landing, stage: Stage, resource: Resource, max_deleted_share: float | None
) -> Iterator[pa.Table]:
    """The rows of a table, deletions of what a complete export does not show included."""
    yield from landing.rows(resource, stage.observations(resource.name))
    if max_deleted_share is None or not stage.is_readable(resource.name):
        return
    landing.duckdb.register("left_out", stage.left_out(resource.name))
    landing.duckdb.register("owners", stage.lists_of_owners(resource.name))
    if covered := _covered(resource.name, is_listed=stage.lists_all(resource.name)):
        yield from landing.tombstones(
            resource, covered, stage.observed_at, max_deleted_share, MIN_SUSPICIOUS_DELETIONS
        )


def _covered(table: str, *, is_listed: bool) -> str | None:
    """The landed objects that a complete export shows if they are there, as an SQL condition.

    Args:
        table: whose objects.
        is_listed: whether there is a list of them all; else only lists of single issues tell.
    """
    is_usable = "external_id not in (select id from left_out)"
    if table not in _LISTED_BY_ISSUES:
        return is_usable if is_listed else None
    owner = "coalesce(json_extract_string(payload, '$.issue.id'), '')"
    owners = "select owner from owners where field = 'issue'"
    if is_listed:
        return f"{is_usable} and {owner} not in ({owners} and not is_whole)"
    return f"{is_usable} and {owner} in ({owners} and is_whole)"
