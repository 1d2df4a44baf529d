"""What models were asked to judge and have said, out of Postgres."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import dlt
from dlt.extract import DltResource

from dlt_sources.landing import Landing, raw_resource
from dlt_sources.slices import Observation
from dlt_sources.stored import stored_rows
from dlt_sources.versions import Resource
from loreline.settings import Settings

JUDGEMENTS = Resource("judgements")

# What a payload says beside the time.
ABOUT = (
    *("judgement_id", "judge", "labeller_version", "kind", "subject_id", "leaf_node_ids"),
    *("content_sha256", "model", "verdicts"),
)


@dlt.source(name="judge")
def judge(
    location: None = None, observed_at: datetime | None = None, landing: Landing | None = None
) -> DltResource:
    """Judgements as they stand, those whose version no longer counts as deleted ones.

    Args:
        location: not needed: Postgres is where the settings say.
        observed_at: not needed: each judgement has its own time.
        landing: the load that this is part of; one of its own otherwise.
    """
    landing = landing or Landing.begin("judge")
    return raw_resource(landing.rows(JUDGEMENTS, judgements(landing.settings)), JUDGEMENTS.name)


def judgements(settings: Settings) -> Iterator[Observation]:
    """Every judgement that is whole, in one statement, and so in one snapshot."""
    rows = stored_rows(settings, "operations", "judgements", order_by=("judged_at", "judgement_id"))
    return map(_observation, rows)


def _observation(row: dict[str, Any]) -> Observation:
    judged_at = row["judged_at"].astimezone(UTC).isoformat()
    return Observation(
        external_id=row["judgement_id"],
        payload={name: row[name] for name in ABOUT} | {"judged_at": judged_at},
        observed_at=row["stands_since"],
        source_updated_at=row["stands_since"],
        is_deleted=row["is_withdrawn"],
    )
