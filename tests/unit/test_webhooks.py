"""What is let in by the webhooks, and as what."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import psycopg
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from loreline.inbox.senders import Delivery, RefusedError, Reply, Sender, senders
from loreline.settings import Settings
from loreline.web.webhooks import webhook_router

SECRET = "s3cret"
NOW = 1_795_000_000.0
SETTINGS = dataclasses.replace(
    Settings(),
    notion_webhook_token=SECRET,
    slack_signing_secret=SECRET,
    linear_webhook_secret=SECRET,
    google_channel_token=SECRET,
    events_token=SECRET,
)
PAGE = "3250189c-0b05-2e50-6150-70f904620c24"
ISSUE = "9b2c1a54-6a1d-4a1b-9c39-0f6f4f1e2d3c"


def by_path(settings: Settings = SETTINGS) -> dict[str, Sender]:
    return {sender.path: sender for sender in senders(settings)}


def signed(content: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def notion(body: bytes, now: float = NOW) -> dict[str, str]:
    return {"x-notion-signature": f"sha256={signed(body)}"}


def slack(body: bytes, now: float = NOW) -> dict[str, str]:
    stamp = str(int(now))
    return {
        "x-slack-request-timestamp": stamp,
        "x-slack-signature": f"v0={signed(f'v0:{stamp}:'.encode() + body)}",
    }


def linear(body: bytes, now: float = NOW) -> dict[str, str]:
    return {"linear-signature": signed(body), "linear-delivery": "d-1"}


def google(body: bytes, now: float = NOW) -> dict[str, str]:
    return {
        "x-goog-channel-token": SECRET,
        "x-goog-channel-id": "c1",
        "x-goog-message-number": "7",
        "x-goog-resource-state": "change",
    }


def events(body: bytes, now: float = NOW) -> dict[str, str]:
    return {"authorization": f"Bearer {SECRET}"}


NOTION = {"id": "n-1", "type": "page.content_updated", "entity": {"id": PAGE, "type": "page"}}
SLACK = {
    "event_id": "Ev1",
    "event": {"type": "message", "channel": "C1", "ts": "1790848800.000001", "text": "hello"},
}
LINEAR = {
    "type": "Issue",
    "action": "update",
    "data": {"id": ISSUE},
    "webhookTimestamp": NOW * 1000,
}
EVENT = {"specversion": "1.0", "id": "1", "source": "g", "type": "llm.chat.completed", "data": {}}
ROUTES: dict[str, tuple[Callable[[bytes], dict[str, str]], object, Delivery]] = {
    "/webhooks/notion": (notion, NOTION, Delivery("notion", "n-1", (f"page:{PAGE}",))),
    "/webhooks/slack": (
        slack,
        SLACK,
        Delivery("slack", "Ev1", ("message:C1:1790848800.000001:",)),
    ),
    "/webhooks/linear": (linear, LINEAR, Delivery("linear", "d-1", (f"issues:{ISSUE}",))),
    "/webhooks/google-drive": (google, None, Delivery("google_docs", "c1:7", ("changes",))),
    "/events": (events, EVENT, Delivery("gateway", "")),
    "/v1/traces": (events, {"resourceSpans": []}, Delivery("gateway", "")),
}


def body_of(value: object) -> bytes:
    return b"" if value is None else json.dumps(value).encode()


@pytest.mark.parametrize("path", ROUTES)
def test_what_its_sender_signed_is_let_in(path: str) -> None:
    headers, value, expected = ROUTES[path]
    body = body_of(value)
    found = by_path()[path].received(headers(body), body, NOW)
    assert isinstance(found, Delivery)
    assert (found.source, found.names, found.fault) == (expected.source, expected.names, "")
    digest = hashlib.sha256(body).hexdigest()
    assert found.delivery_id == (expected.delivery_id or digest)


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize("forgery", ["another secret", "nothing", "half", "not ascii"])
def test_what_is_forged_is_not(path: str, forgery: str) -> None:
    headers, value, _ = ROUTES[path]
    body = body_of(value)
    proofs = [
        name
        for name in headers(body)
        if name.endswith(("signature", "token")) or name == "authorization"
    ]
    changed = headers(body)
    for name in proofs:
        changed[name] = {
            "another secret": changed[name].replace(SECRET, "other") + "0",
            "nothing": "",
            "half": changed[name][: len(changed[name]) // 2],
            "not ascii": "sïgnature",
        }[forgery]
    with pytest.raises(RefusedError) as refused:
        by_path()[path].received(changed, body, NOW)
    assert refused.value.status == 401


@pytest.mark.parametrize("path", ["/webhooks/notion", "/webhooks/slack", "/webhooks/linear"])
def test_a_body_that_was_changed_is_not(path: str) -> None:
    headers, value, _ = ROUTES[path]
    body = body_of(value)
    with pytest.raises(RefusedError):
        by_path()[path].received(headers(body), body + b" ", NOW)


@pytest.mark.parametrize("path", ROUTES)
def test_without_a_secret_nobody_is_let_in(path: str) -> None:
    headers, value, _ = ROUTES[path]
    body = body_of(value)
    with pytest.raises(RefusedError) as refused:
        by_path(Settings())[path].received(headers(body), body, NOW)
    assert refused.value.status == 503


@pytest.mark.parametrize(
    ("path", "seconds", "is_let_in"),
    [
        ("/webhooks/slack", 299, True),
        ("/webhooks/slack", 302, False),
        ("/webhooks/slack", -302, False),
        ("/webhooks/linear", 59, True),
        ("/webhooks/linear", 61, False),
    ],
)
def test_what_is_old_is_not(path: str, seconds: float, is_let_in: bool) -> None:
    headers, value, _ = ROUTES[path]
    body = body_of(value)
    try:
        by_path()[path].received(headers(body), body, NOW + seconds)
        assert is_let_in
    except RefusedError:
        assert not is_let_in


@pytest.mark.parametrize("moment", [None, "soon", "nan", [], {}, float("inf")])
def test_what_does_not_say_when_it_was_sent_is_not(moment: object) -> None:
    body = json.dumps({**LINEAR, "webhookTimestamp": moment}).encode()
    with pytest.raises(RefusedError):
        by_path()["/webhooks/linear"].received(linear(body), body, NOW)


def test_handshakes() -> None:
    body = b'{"verification_token": "secret_abc"}'
    reply = by_path(Settings())["/webhooks/notion"].received({}, body, NOW)
    assert reply == Reply({}, token="secret_abc")
    with pytest.raises(RefusedError):
        by_path()["/webhooks/notion"].received({}, body, NOW)
    body = b'{"type": "url_verification", "challenge": "c"}'
    assert by_path()["/webhooks/slack"].received(slack(body), body, NOW) == Reply(
        {"challenge": "c"}
    )
    with pytest.raises(RefusedError):
        by_path()["/webhooks/slack"].received({}, body, NOW)
    sync = {**google(b""), "x-goog-resource-state": "sync"}
    assert by_path()["/webhooks/google-drive"].received(sync, b"", NOW) == Reply()


@pytest.mark.parametrize("sign", [notion, slack])
def test_what_is_theirs_and_no_json_is_kept(sign: Callable[[bytes], dict[str, str]]) -> None:
    body = b'{"half'
    found = by_path()[f"/webhooks/{sign.__name__}"].received(sign(body), body, NOW)
    assert isinstance(found, Delivery)
    assert "not JSON" in found.fault


def test_an_event_whose_envelope_is_in_the_headers() -> None:
    headers = {**events(b""), "ce-id": "1", "ce-source": "g", "ce-specversion": "1.0"}
    found = by_path()["/events"].received(headers, b'{"x": 1}', NOW)
    assert isinstance(found, Delivery)
    assert json.loads(found.body or b"") == {
        "id": "1",
        "source": "g",
        "specversion": "1.0",
        "data": {"x": 1},
    }


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(body_of))
def test_nothing_that_is_theirs_is_lost_or_fatal(body: bytes) -> None:
    for path, (headers, *_) in ROUTES.items():
        try:
            found = by_path()[path].received(headers(body), body, NOW)
        except RefusedError:
            assert path == "/webhooks/linear"
            continue
        assert isinstance(found, Delivery | Reply)


def test_real_events_of_slack_name_their_messages(real_data: Path) -> None:
    for file in sorted((real_data / "slack" / "events").glob("*.json")):
        body = file.read_bytes()
        found = by_path()["/webhooks/slack"].received(slack(body), body, NOW)
        assert isinstance(found, Delivery) and not found.fault, file.name


class Memory:
    """A writer that keeps what it is given, or cannot."""

    def __init__(self) -> None:
        self.kept: list[Delivery] = []
        self.tokens: list[str] = []
        self.is_broken = False

    async def put(self, delivery: Delivery, body: bytes) -> None:
        if self.is_broken:
            raise psycopg.OperationalError("gone")
        self.kept.append(delivery)

    async def keep_token(self, source: str, token: str) -> None:
        self.tokens.append(token)

    async def close(self) -> None:
        pass


def post(writer: Memory, path: str, settings: Settings = SETTINGS, **request) -> httpx2.Response:
    app = FastAPI()
    app.include_router(webhook_router(writer, senders(settings)))  # type: ignore[arg-type]

    async def ask() -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://loreline") as client:
            return await client.post(path, **request)

    return asyncio.run(ask())


def test_a_delivery_is_stored_before_it_is_answered() -> None:
    body = body_of(NOTION)
    writer = Memory()
    answer = post(writer, "/webhooks/notion", content=body, headers=notion(body))
    assert (answer.status_code, len(writer.kept)) == (200, 1)
    writer.is_broken = True
    assert post(writer, "/webhooks/notion", content=body, headers=notion(body)).status_code == 503


def test_what_is_refused_leaves_nothing() -> None:
    writer = Memory()
    assert post(writer, "/webhooks/notion", content=b"{}").status_code == 401
    assert post(writer, "/events", content=b"{}").status_code == 401
    stale = slack(b"{}", time.time() - 3_600)
    assert post(writer, "/webhooks/slack", content=b"{}", headers=stale).status_code == 401
    assert post(writer, "/webhooks/nobody", content=b"{}").status_code == 404
    assert not writer.kept


def test_a_token_is_kept_for_the_operator() -> None:
    writer = Memory()
    content = b'{"verification_token": "secret_abc"}'
    assert post(writer, "/webhooks/notion", Settings(), content=content).status_code == 200
    assert (writer.tokens, writer.kept) == (["secret_abc"], [])


def test_no_more_is_read_than_may_be() -> None:
    writer, read = Memory(), 0
    small = dataclasses.replace(SETTINGS, max_events_megabytes="0.01")
    assert (
        post(writer, "/events", small, content=b"x" * 20_000, headers=events(b"")).status_code
        == 413
    )

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(10_000):
            read += 1
            yield b"x" * 1_000

    answer = post(writer, "/events", small, content=endless(), headers=events(b""))
    assert answer.status_code == 413
    assert 10 < read < 1_000
    read = 0
    assert post(writer, "/events", small, content=endless()).status_code == 401
    assert read < 10, "the headers said enough"
    assert not writer.kept
