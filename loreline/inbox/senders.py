"""Who delivers, how a delivery is known to be theirs, and which objects it is about.

Signatures are checked on the bytes as they came, in constant time. What is not proved to come from
its sender is refused and leaves nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import orjson

from loreline.settings import Settings, variable

Json = Any
Headers = Mapping[str, str]

SLACK_SECONDS = 5 * 60
LINEAR_SECONDS = 60
MAX_ID_CHARACTERS = 200


@dataclass(frozen=True)
class Delivery:
    """Something to be stored.

    Attributes:
        source: whose objects it is about.
        delivery_id: the same when it is delivered again.
        names: of the objects; none of what says everything itself.
        fault: why it cannot be worked on, which does not make it vanish.
        body: what is stored in the place of the body, where headers say a part of it.
    """

    source: str
    delivery_id: str
    names: tuple[str, ...] = ()
    fault: str = ""
    body: bytes | None = None


@dataclass(frozen=True)
class Reply:
    """An answer to what is no delivery.

    Attributes:
        content: of the answer.
        token: a verification token, to be kept for the operator.
    """

    content: Json = None
    token: str = ""


class RefusedError(Exception):
    """A request that is not let in.

    Args:
        status: of the answer.
        why: for our log, not for who asked.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True)
class Sender:
    """One route.

    Attributes:
        path: of the route.
        variable: the setting that holds its secret, for messages.
        secret: what proves that a delivery is theirs; empty where nothing is set.
        receive: checks a request (its headers with names in lower case, its body, the secret, the
            time now in seconds of Unix time) and says what it is.
        max_bytes: of a body.
        proof: what the headers alone say to prove it, where they do.
    """

    path: str
    variable: str
    secret: str
    receive: Callable[[Headers, bytes, str, float], Delivery | Reply]
    max_bytes: int = 1024 * 1024
    proof: Callable[[Headers], str] | None = None

    def admit(self, headers: Headers) -> None:
        """Check what can be, before a body is read.

        Raises:
            RefusedError: the request is not let in.
        """
        if self.proof:
            _require(self.secret, self.proof(headers), self.secret)

    def received(self, headers: Headers, body: bytes, now: float | None = None) -> Delivery | Reply:
        """Check a request.

        Raises:
            RefusedError: it is not let in.
        """
        self.admit(headers)
        return self.receive(headers, body, self.secret, time.time() if now is None else now)


def senders(settings: Settings) -> list[Sender]:
    """All routes."""
    # Here, and not with the first delivery: what comes along takes seconds to import.
    for source in ("linear", "notion", "slack"):
        import_module(f"dlt_sources.{source}.deliveries")
    megabytes = settings.number("max_events_megabytes")
    events = settings.events_token, _events, int(megabytes * 1024 * 1024), _bearer_token
    webhooks = {
        "notion": ("notion_webhook_token", _notion, None),
        "slack": ("slack_signing_secret", _slack, None),
        "linear": ("linear_webhook_secret", _linear, None),
        "google-drive": ("google_channel_token", _google_drive, _channel_token),
    }
    return [
        *(
            Sender(
                f"/webhooks/{name}",
                variable(secret),
                getattr(settings, secret),
                receive,
                proof=proof,
            )
            for name, (secret, receive, proof) in webhooks.items()
        ),
        *(Sender(path, variable("events_token"), *events) for path in ("/events", "/v1/traces")),
    ]


def _notion(headers: Headers, body: bytes, secret: str, now: float) -> Delivery | Reply:
    # https://developers.notion.com/reference/webhooks
    # Nothing proves the token itself: it is taken until one is set.
    if not secret and isinstance(token := _fields(body).get("verification_token"), str):
        return Reply({}, token=token[:MAX_ID_CHARACTERS])
    _require(secret, headers.get("x-notion-signature", ""), "sha256=" + _hmac(secret, body))
    from dlt_sources.notion.deliveries import names

    return _delivery("notion", body, _fields(body).get("id"), names)


def _slack(headers: Headers, body: bytes, secret: str, now: float) -> Delivery | Reply:
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    sent_at = headers.get("x-slack-request-timestamp", "")
    signed = b"v0:" + sent_at.encode() + b":" + body
    _require(secret, headers.get("x-slack-signature", ""), "v0=" + _hmac(secret, signed))
    _require_recent(sent_at, 1, now, SLACK_SECONDS)
    told = _fields(body)
    if told.get("type") == "url_verification":
        return Reply({"challenge": str(told.get("challenge", ""))})
    from dlt_sources.slack.deliveries import names

    return _delivery("slack", body, told.get("event_id"), names)


def _linear(headers: Headers, body: bytes, secret: str, now: float) -> Delivery | Reply:
    # https://linear.app/developers/webhooks
    _require(secret, headers.get("linear-signature", ""), _hmac(secret, body))
    _require_recent(_fields(body).get("webhookTimestamp"), 1000, now, LINEAR_SECONDS)
    from dlt_sources.linear.deliveries import names

    return _delivery("linear", body, headers.get("linear-delivery"), names)


def _channel_token(headers: Headers) -> str:
    # https://developers.google.com/workspace/drive/api/guides/push: it has no signature, but the
    # token that the channel was made with.
    return headers.get("x-goog-channel-token", "")


def _google_drive(headers: Headers, body: bytes, secret: str, now: float) -> Delivery | Reply:
    if headers.get("x-goog-resource-state") == "sync":
        return Reply()
    channel, number = headers.get("x-goog-channel-id"), headers.get("x-goog-message-number")
    identity = f"{channel}:{number}" if channel and number else None
    return _delivery("google_docs", body, identity, lambda _: ["changes"])


def _bearer_token(headers: Headers) -> str:
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _events(headers: Headers, body: bytes, secret: str, now: float) -> Delivery | Reply:
    """Records of gateways; what they are, their reader tells."""
    envelope = {
        name.removeprefix("ce-"): value for name, value in headers.items() if name.startswith("ce-")
    }
    if envelope:
        # Its envelope is in the headers, as "binary content mode" of CloudEvents has it.
        try:
            body = orjson.dumps({**envelope, "data": orjson.loads(body)})
        except orjson.JSONDecodeError:
            body = orjson.dumps({**envelope, "data": body.decode(errors="replace")})
    # Ids from outside repeat: only what is the same to the last byte is the same delivery.
    return Delivery("gateway", hashlib.sha256(body).hexdigest(), body=body)


def _delivery(
    source: str, body: bytes, identity: Json, names: Callable[[Json], list[str]]
) -> Delivery:
    """What is theirs is kept, whatever it is."""
    digest = hashlib.sha256(body).hexdigest()
    is_told = isinstance(identity, str) and 0 < len(identity) <= MAX_ID_CHARACTERS
    delivery_id = identity if is_told and "\0" not in identity else digest
    if body:
        try:
            told = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return Delivery(source, digest, fault=f"it is not JSON ({error})")
    else:
        told = None
    return Delivery(source, delivery_id, tuple(names(told)))


def _fields(body: bytes) -> dict[str, Json]:
    try:
        told = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return told if isinstance(told, dict) else {}


def _hmac(secret: str, content: bytes) -> str:
    return hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()


def _require(secret: str, given: str, expected: str) -> None:
    if not secret:
        raise RefusedError(503, "no secret is set")
    if not hmac.compare_digest(given.encode(errors="replace"), expected.encode()):
        raise RefusedError(401, "the signature is not theirs")


def _require_recent(moment: Json, per_second: int, now: float, seconds: float) -> None:
    try:
        sent_at = float(moment) / per_second
    except (TypeError, ValueError):
        raise RefusedError(401, "it does not say when it was sent") from None
    if not abs(now - sent_at) <= seconds:
        raise RefusedError(401, f"it was sent {now - sent_at:.0f} s ago")
