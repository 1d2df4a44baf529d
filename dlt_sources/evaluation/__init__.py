"""Evaluation sets: what a model will be tested with, so that it is not trained on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
from dlt.extract import DltResource

from dlt_sources.json_files import Record, input_files, observation_time, read_file
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.versions import Resource

ITEMS = Resource("items")

SHAPE = 'an item is {"evaluation_set": "…", "item_id": "…", "texts": ["…"]}'


@dlt.source(name="evaluation")
def evaluation(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
) -> DltResource:
    """Items from a `.json` or `.jsonl` file (also `.jsonl.gz`), or a folder of them.

    Args:
        location: the file or folder.
        observed_at: when it was written, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
    """
    files = input_files(Path(location), "*.jsonl", "*.jsonl.gz", "*.json")
    seen_at = observed_at or observation_time(Path(location), files)
    landing = landing or Landing.begin("evaluation")
    landing.quarantine.observed_at = seen_at
    return raw_resource(landing.rows(ITEMS, items(files, seen_at)), ITEMS.name)


def items(
    files: Sequence[tuple[Path, str]], observed_at: datetime
) -> Iterator[Observation | Reject]:
    """The items of some files; what is none is set aside."""
    for path, name in files:
        for document in read_file(path, name):
            if isinstance(document, Reject):
                yield document
                continue
            for record in document.records:
                yield record if isinstance(record, Reject) else item(record, observed_at)


def item(record: Record, observed_at: datetime) -> Observation | Reject:
    """One item of a set; `is_deleted` takes it out again."""
    if problem := _problem(record.value):
        return record.reject("wrong_type", f"{problem}: {SHAPE}")
    value = record.value
    return Observation(
        external_id=f"{value['evaluation_set']}:{value['item_id']}",
        payload=value,
        observed_at=observed_at,
        is_deleted=value.get("is_deleted") is True,
        raw=record.raw,
        origin=record.origin,
    )


def _problem(value: Any) -> str | None:
    if not isinstance(value, dict):
        return f"this is {type(value).__name__}"
    for key in ("evaluation_set", "item_id"):
        if not isinstance(value.get(key), str) or not value[key]:
            return f"{key} is no text"
    texts = value.get("texts", [] if value.get("is_deleted") is True else None)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return "texts is no list of text"
    return None
