"""LLM traffic recorded by a gateway, as CloudEvents in JSON Lines."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
import orjson
from dlt.extract import DltResource

from dlt_sources.json_files import (
    BadRecord,
    input_files,
    observation_time,
    open_lines,
    parse,
    read_lines,
)
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.versions import Resource, canonical_json

EVENTS = Resource("events")

# `str | None` would be put together again for each of millions of events.
_TEXT = (str, type(None))
_OBJECT = (dict, type(None))


@dlt.source(name="gateway")
def gateway(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
) -> DltResource:
    """Events from a `.jsonl` or `.jsonl.gz` file, or a folder of them.

    Args:
        location: the file or folder.
        observed_at: when it was written, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
    """
    files = input_files(Path(location), "*.jsonl", "*.jsonl.gz")
    seen_at = observed_at or observation_time(Path(location), files)
    landing = landing or Landing.begin("gateway")
    landing.quarantine.observed_at = seen_at
    return raw_resource(landing.rows(EVENTS, events(files, seen_at)), EVENTS.name)


def events(
    files: Sequence[tuple[Path, str]], observed_at: datetime
) -> Iterator[Observation | Reject]:
    """The events of some files; lines that are none are set aside."""
    for path, name in files:
        with open_lines(path) as stream:
            for line in read_lines(stream, name):
                yield line if isinstance(line, Reject) else event(*line, observed_at)


def event(raw: bytes, origin: str, observed_at: datetime) -> Observation | Reject:
    """One CloudEvents envelope, of whatever type.

    Its key is our own: ids from outside repeat or are missing.
    """
    try:
        envelope = parse(raw)
    except BadRecord as bad:
        return Reject(bad.reason, bad.detail, raw, origin)
    if problem := _problem(envelope):
        return Reject("wrong_type", problem, raw, origin)
    happened_at, time = _time(envelope)
    key = orjson.dumps([envelope.get("source"), envelope.get("id"), time])
    return Observation(
        external_id=hashlib.sha256(key + canonical_json(envelope)).hexdigest(),
        payload=envelope,
        observed_at=observed_at,
        source_updated_at=happened_at,
        raw=raw,
        origin=origin,
    )


def _problem(envelope: Any) -> str | None:
    if not isinstance(envelope, dict):
        return f"an event is an object, this is {type(envelope).__name__}"
    for key in ("type", "source", "subject", "time"):
        if not isinstance(envelope.get(key), _TEXT):
            return f"{key} is {type(envelope[key]).__name__}, not text"
    if not isinstance(envelope.get("data"), _OBJECT):
        return f"data is {type(envelope['data']).__name__}, not an object"
    if not envelope.get("type"):
        return "it has no type"
    return None


def _time(envelope: dict[str, Any]) -> tuple[datetime | None, Any]:
    """When it happened, and the text that says so: the start where the gateway tells it."""
    text = (envelope.get("data") or {}).get("started_at") or envelope.get("time")
    try:
        return datetime.fromisoformat(text), text
    except (TypeError, ValueError):
        return None, text
