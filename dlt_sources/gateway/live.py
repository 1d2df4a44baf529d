"""Events that arrive: from files, a stream of NATS, and tables of Postgres."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from dlt_sources.gateway import EVENTS, PATTERNS, events
from dlt_sources.gateway.inbox import Inbox, inboxes
from dlt_sources.gateway.shapes import observed
from dlt_sources.inputs import fingerprint, remember, was_landed
from dlt_sources.json_files import input_files, observation_time
from dlt_sources.live import Batch, Plan, Run
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from loreline.contracts.odcs import digest_of
from loreline.settings import Settings

if TYPE_CHECKING:
    from dlt_sources.gateway.jetstream import Consumer, Message

LOCATION = "LORELINE_GATEWAY_LOCATION"
_EVENTS_PER_BATCH = 1_000
_SECONDS_TO_WAIT = 1.0


class GatewayStreams:
    """Everything that gateways have left since the last time, wherever it is.

    A run ends when it has seen all that was there; what arrives meanwhile may be for the next one.
    """

    def __init__(self, settings: Settings, location: str = "") -> None:
        self._settings = settings
        self._location = location

    def fetch(self, run: Run) -> Iterator[Batch]:
        """What is new in each place that the settings name."""
        if self._location:
            yield from _files(run, Path(self._location))
        run.landing.landed_by = "stream"
        if self._settings.nats_url:
            yield from _stream(run)
        for inbox in inboxes(self._settings):
            yield from _inbox(run, inbox)

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        """The same: nothing here is fetched by its name."""
        return self.fetch(run)

    def plan(self, run: Run) -> Plan:
        """How many messages and rows wait."""
        waiting = sum(inbox.waiting() for inbox in inboxes(self._settings))
        if self._settings.nats_url:
            from dlt_sources.gateway.jetstream import Consumer

            with Consumer(self._settings) as consumer:
                info = consumer.info()
                waiting += (info.num_pending or 0) + (info.num_ack_pending or 0)
        return Plan("events that wait", 0, 0.0, waiting)


class Received:
    """Records that were posted to us.

    Args:
        records: the id of the delivery, its body, and when it was received.
    """

    def __init__(self, records: Sequence[tuple[str, bytes, datetime]]) -> None:
        self._records = records

    def fetch(self, run: Run) -> Iterator[Batch]:
        """What they hold; what is no event is set aside."""
        for delivery_id, body, received_at in self._records:
            run.landing.quarantine.observed_at = received_at
            passed_over = run.landing.summary.passed_over
            yield _batch(
                observed(
                    body,
                    f"delivery:{delivery_id}",
                    received_at,
                    delivery_id=delivery_id,
                    passed_over=passed_over,
                )
            )

    def fetch_named(self, run: Run, names: Sequence[str]) -> Iterator[Batch]:
        """The same."""
        return self.fetch(run)

    def plan(self, run: Run) -> Plan:
        """Nothing is asked."""
        return Plan("what was posted", 0, 0.0, len(self._records))


def gateway_streams(settings: Settings) -> GatewayStreams | None:
    """The gateway's streams; None where the settings name none."""
    named = (settings.nats_url, settings.event_inbox_url, settings.event_inbox_table)
    return GatewayStreams(settings, os.environ.get(LOCATION, "")) if any(named) else None


def _files(run: Run, location: Path) -> Iterator[Batch]:
    """The events of files, unless these very ones were landed before."""
    landing = run.landing
    identity = fingerprint(location, None, {}, digest_of(run.settings, landing.source))
    if was_landed(landing, identity):
        return
    landing.landed_by = "file"
    files = input_files(location, *PATTERNS)
    seen_at = observation_time(location, files)
    landing.quarantine.observed_at = seen_at
    found = events(files, seen_at, landing.summary.passed_over)
    yield from map(_batch, _cut(found))
    yield Batch(committed=lambda: remember(landing, identity))


def _stream(run: Run) -> Iterator[Batch]:
    """The messages of NATS, also those that a killed run had in hand."""
    # Nobody else needs to have the library imported.
    from dlt_sources.gateway.jetstream import Consumer

    with Consumer(run.settings) as consumer:
        are_more = True
        in_hands = consumer.info().num_ack_pending or 0
        until = time.monotonic() + consumer.seconds_until_redelivered
        while are_more or (in_hands and time.monotonic() < until):
            messages, are_more = consumer.read(_SECONDS_TO_WAIT if in_hands else 0.0)
            if messages:
                yield _of_messages(run, consumer, messages)
            if not are_more:
                in_hands = consumer.info().num_ack_pending or 0


def _of_messages(run: Run, consumer: Consumer, messages: Sequence[Message]) -> Batch:
    """What messages hold; one that holds nothing but what is set aside is not to come again."""
    done, refused = [], []
    observations: list[Observation | Reject] = []
    for message in messages:
        place = f"{message.stream}:{message.sequence}"
        said = list(
            observed(
                message.data,
                f"nats:{place}",
                message.stored_at,
                delivery_id=place,
                passed_over=run.landing.summary.passed_over,
            )
        )
        is_refused = bool(said) and all(isinstance(item, Reject) for item in said)
        (refused if is_refused else done).append(message)
        observations += said
    run.landing.quarantine.observed_at = messages[-1].stored_at
    return _batch(observations, lambda: consumer.settle(done, refused))


def _inbox(run: Run, inbox: Inbox) -> Iterator[Batch]:
    """The rows of a table that wait."""
    are_more = True
    while are_more:
        rows, are_more = inbox.read()
        if not rows:
            return
        run.landing.quarantine.observed_at = rows[-1].created_at
        observations = [
            item
            for row in rows
            for item in observed(
                row.payload,
                f"{inbox}:{row.identity}",
                row.created_at,
                delivery_id=str(row.identity),
                passed_over=run.landing.summary.passed_over,
            )
        ]
        yield _batch(observations, lambda rows=rows: inbox.consume(rows))


def _batch(
    observations: Iterable[Observation | Reject], committed: Callable[[], None] | None = None
) -> Batch:
    return Batch([(EVENTS, each) for each in observations], committed=committed)


def _cut(
    observations: Iterable[Observation | Reject],
) -> Iterator[list[Observation | Reject]]:
    """Pieces of what is read from files."""
    waiting = iter(observations)
    while piece := list(islice(waiting, _EVENTS_PER_BATCH)):
        yield piece
