"""What arrives from gateways, in whichever shape, as CloudEvents.

A value is a CloudEvent, a record of LiteLLM, an OTLP export of spans, or a list of these.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from dlt_sources.gateway import litellm, opentelemetry
from dlt_sources.json_files import BadRecord, parse
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.versions import canonical_json

Json = Any

# `str | None` would be put together again for each of millions of events.
_TEXT = (str, type(None))
_OBJECT = (dict, type(None))


@dataclass(frozen=True, slots=True)
class Recorded:
    """An event, and what was received of it.

    Attributes:
        envelope: the CloudEvent, unchecked where it was received as one.
        said: what was received: the same, or what the event was made of.
    """

    envelope: Json
    said: Json


def events(value: Json) -> list[Json]:
    """The CloudEvents of a JSON value that was received; what is not recognised stays as it is."""
    return [recorded.envelope for recorded in _recorded(value, Counter())]


def observed(
    raw: bytes,
    origin: str,
    observed_at: datetime,
    *,
    delivery_id: str | None = None,
    passed_over: Counter[str] | None = None,
) -> Iterator[Observation | Reject]:
    """The events of a JSON text, or of several in lines; what is none is set aside.

    Args:
        raw: the text as received.
        origin: where from, for messages.
        observed_at: when it was received.
        delivery_id: of the message that brought it.
        passed_over: counts what is not about language models.
    """
    passed_over = Counter() if passed_over is None else passed_over
    for text in _texts(raw):
        try:
            value = parse(text)
        except BadRecord as bad:
            yield Reject(bad.reason, bad.detail, text, origin)
            continue
        for recorded in _recorded(value, passed_over):
            yield _observation(recorded, value, text, origin, observed_at, delivery_id)


def _texts(raw: bytes) -> list[bytes]:
    """The JSON texts of a body: it may be JSON Lines, of which the first says that it is."""
    first, _, more = raw.strip().partition(b"\n")
    if not more:
        return [raw]
    try:
        orjson.loads(first)
    except orjson.JSONDecodeError:
        return [raw]
    return [line for line in raw.splitlines() if line.strip()]


def _recorded(value: Json, passed_over: Counter[str]) -> Iterator[Recorded]:
    for item in value if isinstance(value, list) else [value]:
        if litellm.is_payload(item):
            yield Recorded(litellm.event(item), item)
        elif opentelemetry.is_export(item):
            export = opentelemetry.read(item)
            passed_over["spans"] += export.passed_over
            made = opentelemetry.events(export.spans)
            yield from map(Recorded, made, (span.said for span in export.spans))
            yield from (Recorded(broken, broken) for broken in export.broken)
        else:
            yield Recorded(item, item)


def _observation(
    recorded: Recorded,
    value: Json,
    raw: bytes,
    origin: str,
    observed_at: datetime,
    delivery_id: str | None,
) -> Observation | Reject:
    """An event as it was seen. Its key is our own: ids from outside repeat or are missing.

    It is made of what was received, so that reading it otherwise one day makes no other event.
    """
    envelope, said = recorded.envelope, recorded.said
    received = raw if said is value else None
    if problem := problem_of(envelope):
        return Reject("wrong_type", problem, received or orjson.dumps(said), origin)
    happened_at, time = _time(envelope)
    key = orjson.dumps([envelope.get("source"), envelope.get("id"), time])
    return Observation(
        external_id=hashlib.sha256(key + canonical_json(said)).hexdigest(),
        payload=envelope,
        observed_at=observed_at,
        source_updated_at=happened_at,
        raw=received if envelope is said else None,
        origin=origin,
        delivery_id=delivery_id,
    )


def problem_of(envelope: Json) -> str | None:
    """Why a value is no CloudEvent; None where it is one."""
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


def _time(envelope: dict[str, Json]) -> tuple[datetime | None, Json]:
    """When it happened, and the text that says so: the start where the gateway tells it."""
    text = (envelope.get("data") or {}).get("started_at") or envelope.get("time")
    try:
        return datetime.fromisoformat(text), text
    except (TypeError, ValueError):
        return None, text
