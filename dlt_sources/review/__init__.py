"""What people have said on the review page, out of Postgres."""

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

LABELS = Resource("labels")

# What a payload says beside the verdict.
ABOUT = (
    *("queue_item_id", "kind", "leaf_node_ids", "pair_id", "content_sha256", "reviewer"),
    *("origin", "is_swapped", "comment"),
)


@dlt.source(name="review")
def review(
    location: None = None, observed_at: datetime | None = None, landing: Landing | None = None
) -> DltResource:
    """Labels as they stand, those that were withdrawn as deleted ones.

    Args:
        location: not needed: Postgres is where the settings say.
        observed_at: not needed: each label has its own time.
        landing: the load that this is part of; one of its own otherwise.
    """
    landing = landing or Landing.begin("review")
    return raw_resource(landing.rows(LABELS, labels(landing.settings)), LABELS.name)


def labels(settings: Settings) -> Iterator[Observation]:
    """Every label that is committed at this moment, in the state in which it is.

    One statement, and so one snapshot. Numbers would not do to tell what is new: of two labels
    written at once, the one with the higher number may be committed first.
    """
    rows = stored_rows(settings, "review", "label_states", order_by=("label_number",))
    return map(_observation, rows)


def _observation(row: dict[str, Any]) -> Observation:
    label_id = str(row["label_id"])
    stands_since = row["withdrawn_at"] or row["labelled_at"]
    payload = {
        "label_id": label_id,
        "verdict": {name: row[name] for name in ("preferred", "strength", "categories", "score")},
        "labelled_at": row["labelled_at"].astimezone(UTC).isoformat(),
        **{name: row[name] for name in ABOUT},
    }
    return Observation(
        external_id=label_id,
        payload=payload,
        observed_at=stands_since,
        source_updated_at=stands_since,
        is_deleted=row["withdrawn_at"] is not None,
    )
