"""What events of Slack's Events API are about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlt_sources.slack.deliveries import names

A, B = "1790769600.000100", "1790769700.000200"

EVENTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"type": "message", "channel": "C01", "ts": A, "text": "x"}, [f"message:C01:{A}:"]),
    ({"type": "message", "channel": "C01", "ts": A, "thread_ts": A}, [f"message:C01:{A}:"]),
    ({"type": "message", "channel": "C01", "ts": B, "thread_ts": A}, [f"message:C01:{B}:{A}"]),
    (
        {
            "type": "message",
            "subtype": "message_changed",
            "channel": "C01",
            "ts": B,
            "message": {"ts": A, "thread_ts": A},
        },
        [f"message:C01:{A}:"],
    ),
    (
        {
            "type": "message",
            "subtype": "message_deleted",
            "channel": "C01",
            "ts": "1790769800.000300",
            "deleted_ts": B,
            "previous_message": {"ts": B, "thread_ts": A},
        },
        [f"message:C01:{B}:{A}"],
    ),
    (
        {"type": "message", "subtype": "channel_topic", "channel": "C01", "ts": A},
        [f"message:C01:{A}:", "channel:C01"],
    ),
    (
        {"type": "reaction_added", "item": {"type": "message", "channel": "C01", "ts": A}},
        [f"message:C01:{A}:"],
    ),
    ({"type": "reaction_added", "item": {"type": "file"}}, []),
    ({"type": "channel_rename", "channel": {"id": "C01", "name": "new"}}, ["channel:C01"]),
    ({"type": "channel_deleted", "channel": "C01"}, ["channel:C01"]),
    ({"type": "channel_left", "channel": "C01"}, ["channel:C01"]),
    ({"type": "group_archive", "channel": "G01"}, ["channel:G01"]),
    ({"type": "member_joined_channel", "channel": "C01", "user": "U01"}, ["channel:C01"]),
    ({"type": "member_left_channel", "channel": "G01", "user": "U01"}, ["channel:G01"]),
    ({"type": "user_change", "user": {"id": "U01"}}, ["user:U01"]),
    ({"type": "team_join", "user": {"id": "U01"}}, ["user:U01"]),
    ({"type": "app_mention", "channel": "C01", "ts": A}, []),
    ({"type": "message", "channel": "C01:x", "ts": A}, []),
    ({"type": "message", "channel": "C01", "ts": "now"}, []),
    ({"type": "message", "subtype": "message_changed", "channel": "C01", "message": "x"}, []),
    ({"type": ["message"]}, []),
]


@pytest.mark.parametrize(("event", "expected"), EVENTS)
def test_an_event_names_what_it_is_about(event: dict[str, Any], expected: list[str]) -> None:
    assert names({"type": "event_callback", "event": event}) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["event", "type", "channel", "ts", "message", "item", "user", "id"]
                ),
                inner | st.sampled_from(["message", "channel_rename", "C01", A]),
                max_size=5,
            )
        ),
        max_leaves=20,
    )
)
def test_what_is_no_event_names_nothing_or_something_whole(body: Any) -> None:
    for name in names(body):
        assert name.split(":")[0] in ("message", "channel", "user")


def test_recorded_envelopes_are_understood(real_data: Path) -> None:
    paths = sorted((real_data / "slack" / "events").glob("*.json"))
    assert paths
    for path in paths:
        body = json.loads(path.read_text())
        event = body["event"]
        assert names(body) == []  # every id in them is masked
        event |= {"channel": "C01", "ts": A}
        for key in ("message", "previous_message"):
            if key in event:
                event[key] |= {"ts": B, "thread_ts": ""}
        if "deleted_ts" in event:
            event["deleted_ts"] = B
        expected = B if "message" in event or "deleted_ts" in event else A
        assert names(body)[0] == f"message:C01:{expected}:", path.name
