"""LLM traffic recorded by gateways: CloudEvents, LiteLLM's records and OpenTelemetry's spans."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

import dlt
from dlt.extract import DltResource

from dlt_sources.gateway.shapes import observed
from dlt_sources.json_files import input_files, observation_time, open_lines, read_lines
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from dlt_sources.versions import Resource

EVENTS = Resource("events")
PATTERNS = ("*.jsonl", "*.jsonl.gz")


@dlt.source(name="gateway")
def gateway(
    location: str | Path = dlt.config.value,
    observed_at: datetime | None = None,
    landing: Landing | None = None,
) -> DltResource:
    """Events from a file of JSON Lines, or a folder of `.jsonl` and `.jsonl.gz` files.

    Args:
        location: the file or folder.
        observed_at: when it was written, if the location does not tell.
        landing: the load that this is part of; one of its own otherwise.
    """
    files = input_files(Path(location), *PATTERNS)
    seen_at = observed_at or observation_time(Path(location), files)
    landing = landing or Landing.begin("gateway")
    landing.quarantine.observed_at = seen_at
    found = events(files, seen_at, landing.summary.passed_over)
    return raw_resource(landing.rows(EVENTS, found), EVENTS.name)


def events(
    files: Sequence[tuple[Path, str]],
    observed_at: datetime,
    passed_over: Counter[str] | None = None,
) -> Iterator[Observation | Reject]:
    """The events of some files; lines that are none are set aside."""
    for path, name in files:
        with open_lines(path) as stream:
            for line in read_lines(stream, name):
                if isinstance(line, Reject):
                    yield line
                else:
                    yield from observed(*line, observed_at, passed_over=passed_over)
