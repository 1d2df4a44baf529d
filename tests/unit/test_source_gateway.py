"""Gateway events: keyed by what they say, whatever their ids."""

import json
from datetime import UTC, datetime

import pytest

from dlt_sources.gateway import events
from dlt_sources.gateway.shapes import observed
from dlt_sources.quarantine import Reject

NOW = datetime(2026, 10, 1, tzinfo=UTC)


def envelope(**fields):
    return {
        "specversion": "1.0",
        "id": "e1",
        "source": "gateway/eu",
        "type": "llm.chat.completed",
        "time": "2026-09-30T12:00:05Z",
        "subject": "s1",
        "data": {"turn_id": "t1", "started_at": "2026-09-30T12:00:00Z", "duration_ms": 5000},
        **fields,
    }


def read(value):
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    [found] = observed(raw, "f:1", NOW)
    return found


def test_an_event_keeps_its_text_and_happens_when_it_started():
    raw = b'{"type": "x.y",  "data": {"cost": 1.10}, "time": "2026-09-30T12:00:05Z"}'
    found = read(raw)
    assert found.raw == raw
    assert found.source_updated_at == datetime(2026, 9, 30, 12, 0, 5, tzinfo=UTC)
    started = read(envelope()).source_updated_at
    assert started == datetime(2026, 9, 30, 12, tzinfo=UTC)


def test_the_key_is_the_content_in_any_order_of_keys():
    one = read(envelope()).external_id
    assert read(dict(reversed(envelope().items()))).external_id == one
    assert len(one) == 64
    others = [
        envelope(id="e2"),
        envelope(id=None),
        envelope(source="gateway/us"),
        envelope(time="2026-09-30T12:00:06Z"),
        envelope(data=envelope()["data"] | {"turn_id": "t2"}),
    ]
    assert len({one, *(read(other).external_id for other in others)}) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"id": None},
        {"id": 7},
        {"type": "somebody.elses"},
        {"data": None},
        {"data": {"started_at": 1790683200}},
        {"time": "noon", "data": {}},
    ],
)
def test_an_unusual_event_lands(change):
    assert not isinstance(read(envelope(**change)), Reject)


def test_an_event_without_id_or_time_lands():
    found = read({"type": "x", "data": {}})
    assert found.source_updated_at is None


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"{", "broken_json"),
        ([1], "wrong_type"),
        ("text", "wrong_type"),
        ({}, "wrong_type"),
        (envelope(type=5), "wrong_type"),
        (envelope(type=""), "wrong_type"),
        (envelope(data=[1]), "wrong_type"),
        (envelope(data="text"), "wrong_type"),
        (envelope(subject=5), "wrong_type"),
        (envelope(time=5), "wrong_type"),
        (b'{"type": "a", "type": 5}', "duplicate_key"),
        (b'{"type": "a", "data": {"x": "\\u0000"}}', "nul_byte"),
    ],
)
def test_what_is_no_event_is_set_aside(value, reason):
    found = read(value)
    assert isinstance(found, Reject)
    assert found.reason == reason


def test_files_are_read_line_by_line(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(envelope(id=n)) for n in range(3)]
    path.write_text("\n".join([lines[0], "broken", "", *lines[1:]]))
    found = list(events([(path, "a.jsonl")], NOW))
    assert [type(item).__name__ for item in found] == [
        "Observation",
        "Reject",
        "Observation",
        "Observation",
    ]
    assert found[1].origin == "a.jsonl:2"
    assert all(item.observed_at == NOW for item in found if not isinstance(item, Reject))
