"""Which tables of events are read."""

import pytest

from dlt_sources.gateway.inbox import inboxes
from dlt_sources.gateway.live import gateway_streams
from loreline.settings import Settings

OURS, THEIRS = "postgresql://ours/lore", "postgresql://theirs/gateway"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [(OURS, "ada_operations.pipeline_event_inbox")]),
        (
            {"event_inbox_table": "pipeline_event_inbox"},
            [(OURS, "ada_operations.pipeline_event_inbox")],
        ),
        (
            {"event_inbox_table": "shop.outbox"},
            [(OURS, "shop.outbox"), (OURS, "ada_operations.pipeline_event_inbox")],
        ),
        (
            {"event_inbox_url": THEIRS},
            [
                (THEIRS, "public.pipeline_event_inbox"),
                (OURS, "ada_operations.pipeline_event_inbox"),
            ],
        ),
        (
            {"event_inbox_url": THEIRS, "event_inbox_table": "shop.outbox"},
            [(THEIRS, "shop.outbox"), (OURS, "ada_operations.pipeline_event_inbox")],
        ),
    ],
)
def test_our_own_inbox_is_read_beside_the_one_that_is_named(said, expected):
    settings = Settings(postgres_url=OURS, target="dev", namespace_suffix="ada", **said)
    assert [(inbox.url, str(inbox)) for inbox in inboxes(settings)] == expected


def test_nothing_is_read_as_a_stream_unless_the_settings_name_one():
    assert gateway_streams(Settings(postgres_url=OURS)) is None
    assert gateway_streams(Settings(postgres_url=OURS, nats_url="nats://127.0.0.1")) is not None
