"""Gateway events from NATS and from tables of Postgres: each once in the lake, whatever happens."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import threading
import time
from collections import Counter

import orjson
import pytest
from psycopg.types.json import Jsonb

from dlt_sources.gateway.live import gateway_streams
from dlt_sources.live import load_live, plan_live
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.postgres import connect, in_schema
from tests.end_to_end.forest import assistant, chat, user
from tests.simulators.nats import nats_server
from tests.simulators.recorders import litellm_payload, otlp_export, span
from tests.steps import Step

INSERT = "insert into {}.pipeline_event_inbox (payload) values (%s)"
WAITING = (
    "select count(*), count(*) filter (where consumed_at is null) from {}.pipeline_event_inbox"
)


@pytest.fixture(scope="module")
def nats(tmp_path_factory):
    with nats_server(tmp_path_factory.mktemp("nats")) as server:
        server.make_stream()
        yield server


@pytest.fixture
def streaming(settings, nats):
    """Settings that name the server; the consumer is this test's own."""
    return dataclasses.replace(
        settings, nats_url=nats.url, nats_stream="gateway", nats_subject=subject(settings)
    )


def subject(settings):
    return f"gateway.events.{settings.namespace_suffix}"


def environment(settings):
    return {**os.environ, **settings.environment()}


def event(n, **changes):
    return chat(f"t{n}", [user(f"question {n}")], assistant(f"answer {n}"), at=n, **changes)


def raw(*values):
    return [orjson.dumps(value) for value in values]


def ingest(settings):
    streams = gateway_streams(settings)
    assert streams
    return load_live(settings, "gateway", streams)


def landed(settings):
    """How often each turn is in the lake."""
    with duck.connect(settings) as lake:
        rows = lake.execute(
            "select json_extract_string(payload, '$.data.turn_id')"
            f" from lake.{settings.prefix}raw_gateway.events"
        ).fetchall()
    return Counter(turn for (turn,) in rows)


def once(numbers):
    return Counter(f"t{n}" for n in numbers)


def test_messages_of_every_shape_land_once_and_are_acknowledged(streaming, nats):
    spans = otlp_export([event(2), event(3)], span("GET /", {"http.request.method": "GET"}))
    odd = b"not json"
    messages = raw(event(0), litellm_payload(event(1)), spans, [event(4), event(5)], event(0))
    nats.publish([*messages, odd], subject(streaming))
    assert plan_live(streaming, "gateway", gateway_streams(streaming)).objects == 6
    summary = ingest(streaming)
    assert summary.landed["events"] == 6
    assert (summary.unchanged, summary.quarantined, summary.passed_over) == (
        1,
        {"broken_json": 1},
        {"spans": 1},
    )
    assert nats.waiting(f"{streaming.prefix}loreline") == (0, 0)
    with duck.connect(streaming) as lake:
        rows = lake.execute(
            "select landed_by, count(distinct delivery_id) from"
            f" lake.{streaming.prefix}raw_gateway.events group by 1"
        ).fetchall()
    assert rows == [("stream", 4)]
    with connect(streaming) as connection:
        query = in_schema(streaming, "operations", "select payload, origin from {}.quarantine")
        [(payload, origin)] = connection.execute(query).fetchall()
    assert payload == "not json" and origin.startswith("nats:gateway:")
    nats.publish(raw(event(0), event(6)), subject(streaming))
    again = ingest(streaming)
    assert (again.landed["events"], again.unchanged) == (1, 1)


def test_a_consumer_killed_between_commit_and_acknowledgement_lands_each_event_once(
    streaming, nats
):
    count = 300
    nats.publish(raw(*map(event, range(count))), subject(streaming))
    for when in ("before the commit", "after the commit"):
        step = Step(
            "ingest_gateway", environment(streaming), stops=when, per_commit=100, ack_wait=2.0
        )
        step.wait_until_started()
        assert step.kill(0)
    before = landed(streaming)
    assert (before.total(), max(before.values())) == (100, 1), "committed, and not acknowledged"
    assert sum(nats.waiting(f"{streaming.prefix}loreline")) == count
    summary = ingest(streaming)
    assert landed(streaming) == once(range(count))
    assert summary.landed["events"] == count - 100
    assert nats.waiting(f"{streaming.prefix}loreline") == (0, 0)


def test_a_server_that_goes_away_is_said_and_loses_nothing(settings, tmp_path):
    with nats_server(tmp_path) as own:
        own.make_stream()
        own.publish(raw(event(1)))
        streaming = dataclasses.replace(settings, nats_url=own.url)
        assert ingest(streaming).rows == 1
        own.publish(raw(event(2)))
        own.kill()
        with pytest.raises(LorelineError, match="NATS failed"):
            ingest(streaming)
        own.start()
        assert ingest(streaming).rows == 1
        assert landed(streaming) == once([1, 2])
        with pytest.raises(LorelineError, match="no stream other"):
            ingest(dataclasses.replace(streaming, nats_stream="other"))


def test_rows_that_become_visible_late_are_read(settings):
    inbox = dataclasses.replace(settings, event_inbox_table="pipeline_event_inbox")
    early, late = connect(settings), connect(settings)
    insert = in_schema(settings, "operations", INSERT)
    with early, late:
        late.execute(insert, [Jsonb(event(1))])
        early.execute(insert, [Jsonb([event(2), litellm_payload(event(3))])])
        early.execute(insert, [Jsonb("no event")])
        early.commit()
        assert plan_live(inbox, "gateway", gateway_streams(inbox)).objects == 2
        assert ingest(inbox).landed["events"] == 2
        late.commit()
    summary = ingest(inbox)
    assert summary.landed["events"] == 1
    assert landed(inbox) == once([1, 2, 3])
    assert waiting(inbox) == [(3, 0)]
    assert ingest(inbox).rows == 0
    removing = dataclasses.replace(inbox, event_inbox_remove="true")
    with connect(settings) as connection:
        connection.execute(insert, [Jsonb(event(4))])
    ingest(removing)
    assert waiting(inbox) == [(3, 0)]


def test_writers_whose_transactions_end_in_any_order(settings):
    inbox = dataclasses.replace(settings, event_inbox_table="pipeline_event_inbox")
    insert = in_schema(settings, "operations", INSERT)

    def write(writer):
        order = random.Random(writer)
        with connect(settings) as connection:
            for n in range(10):
                connection.execute(insert, [Jsonb(event(writer * 10 + n))])
                if order.random() < 0.5:
                    time.sleep(order.random() / 10)
                    if order.random() < 0.7:
                        connection.commit()

    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        ingest(inbox)
    ingest(inbox)
    assert landed(inbox) == once(range(80))
    assert waiting(inbox) == [(80, 0)]


def test_an_inbox_elsewhere_and_files_are_read_together(settings, tmp_path, monkeypatch):
    table = f"{settings.prefix}gateway.outbox"
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"create schema {settings.prefix}gateway")
        connection.execute(
            f"create table {table} (id uuid primary key default gen_random_uuid(), payload json,"
            " created_at timestamptz default now())"
        )
        connection.execute(f"insert into {table} (payload) values (%s)", [json.dumps(event(1))])
    (tmp_path / "a.jsonl").write_bytes(raw(event(2))[0])
    monkeypatch.setenv("LORELINE_GATEWAY_LOCATION", str(tmp_path))
    both = dataclasses.replace(
        settings, event_inbox_url=settings.postgres_url, event_inbox_table=table
    )
    with pytest.raises(LorelineError, match="consumed_at"):
        ingest(both)
    with connect(settings, autocommit=True) as connection:
        connection.execute(f"alter table {table} add consumed_at timestamptz")
    assert ingest(both).rows == 1, "the file has landed before"
    assert landed(both) == once([1, 2])
    again = ingest(both)
    assert (again.rows, again.unchanged) == (0, 1)
    with pytest.raises(LorelineError, match="cannot be read"):
        ingest(dataclasses.replace(both, event_inbox_url="postgresql://127.0.0.1:1/none"))


def test_a_killed_reader_of_the_inbox_lands_each_row_once(settings):
    inbox = dataclasses.replace(settings, event_inbox_table="pipeline_event_inbox")
    insert = in_schema(settings, "operations", INSERT)
    with connect(settings) as connection, connection.cursor() as cursor:
        cursor.executemany(insert, [[Jsonb(event(n))] for n in range(300)])
    for when in ("before the commit", "after the commit"):
        step = Step("ingest_gateway", environment(inbox), stops=when, per_commit=100)
        step.wait_until_started()
        assert step.kill(0)
    assert landed(inbox) == once(range(100))
    assert waiting(inbox) == [(300, 300)]
    ingest(inbox)
    assert landed(inbox) == once(range(300))
    assert waiting(inbox) == [(300, 0)]


def test_a_table_that_is_not_there_is_no_inbox(settings):
    with pytest.raises(LorelineError, match="is no inbox of events"):
        ingest(dataclasses.replace(settings, event_inbox_table="nowhere.nothing"))


def waiting(settings):
    """Rows in all, and those that wait."""
    with connect(settings) as connection:
        return connection.execute(in_schema(settings, "operations", WAITING)).fetchall()
