"""Slack's Web API: https://docs.slack.dev/apis/web-api."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from dlt_sources.api import Api, ApiError, Patience, retry_after
from dlt_sources.json_files import MAX_FIELD_BYTES, BadRecord, Record, parse
from dlt_sources.quarantine import Reject
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = Any

# The most that each list gives at once.
PAGE = {
    "conversations.history": 999,
    "conversations.list": 999,
    "conversations.members": 999,
    "conversations.replies": 1000,
    "users.list": 999,
}
REFUSED_CREDENTIALS = {
    "account_inactive",
    "invalid_auth",
    "not_authed",
    "token_expired",
    "token_revoked",
}
NOT_FOUND = {"channel_not_found", "thread_not_found", "user_not_found"}
# How Slack says that a conversation is not for this bot.
NO_ACCESS = {"channel_not_found", "not_in_channel", "no_permission", "access_denied"}


@dataclass(frozen=True)
class Page:
    """A part of a list.

    Attributes:
        records: its elements; what is none is set aside.
        observed_at: when it was asked for.
        is_last: whether the list ends here.
        is_limited: whether it would go on if the workspace paid for that.
    """

    records: list[Record | Reject]
    observed_at: datetime
    is_last: bool = True
    is_limited: bool = False


class SlackApi(Api):
    """A client with a bot token.

    Slack limits each method by itself, from 20 (lists) to 100 (members) requests a minute. One rate
    for all of them, that of the methods which make nearly all requests, keeps the others below
    theirs. HTTP 429 comes with `Retry-After`.
    """

    passing_refusals = frozenset(
        {"fatal_error", "internal_error", "request_timeout", "service_unavailable"}
    )

    def ask(self, method: str, **form: str | int | bool | None) -> dict[str, Json]:
        """Call a method; arguments that are None are left out."""
        given = {
            name: json.dumps(value) if isinstance(value, bool) else value
            for name, value in form.items()
            if value is not None
        }
        return self.request("POST", f"/{method}", data=given)

    def pages(self, method: str, key: str, **form: str | int | bool | None) -> Iterator[Page]:
        """The pages of a list.

        Args:
            method: such as `conversations.list`.
            key: under which an answer has its elements.
            form: the other arguments.

        Raises:
            LorelineError: an answer is no part of a list.
        """
        form.setdefault("limit", PAGE[method])
        known = {""}
        cursor: str | None = None
        while True:
            observed_at = datetime.now(UTC)
            body = self.ask(method, cursor=cursor, **form)
            elements = body.get(key)
            if not isinstance(elements, list):
                raise LorelineError(f"Slack's answer to {method} has no list of {key}", "try again")
            metadata = body.get("response_metadata")
            cursor = (metadata.get("next_cursor") if isinstance(metadata, dict) else None) or ""
            if not isinstance(cursor, str) or (cursor and cursor in known):
                raise LorelineError(f"the pages of {method} lead in a circle", "try again")
            if body.get("has_more") is True and not cursor:
                raise LorelineError(
                    f"there is more of {method}, and Slack does not say where", "try again"
                )
            known.add(cursor)
            yield Page(
                [record_of(element, method) for element in elements],
                observed_at,
                not cursor,
                body.get("is_limited") is True,
            )
            if not cursor:
                return

    def limited_for(self, status: int, headers: Mapping[str, str], body: Json) -> float | None:
        """Seconds to wait: as HTTP 429 says, or `ratelimited` in an answer with status 200."""
        if isinstance(body, dict) and body.get("error") in ("ratelimited", "rate_limited"):
            return retry_after(headers)
        return super().limited_for(status, headers, body)

    def refusal(self, status: int, body: Json) -> str:
        """What an answer with `ok: false` calls its error."""
        if not isinstance(body, dict):
            return "no_object"
        if body.get("ok") is True:
            return ""
        error = body.get("error")
        return error if isinstance(error, str) and error else "not_ok"

    def _error(self, request: str, status: int, body: Json, code: str = "") -> ApiError:
        if code in REFUSED_CREDENTIALS:
            status = 401
        elif code in NOT_FOUND:
            status = 404
        elif code == "missing_scope":
            return ApiError(
                f"Slack refused {request} ({code}: {_text(body.get('needed'))})",
                "add the scope to the app and install it again, or leave that kind of"
                " conversation out of LORELINE_SLACK_CONVERSATIONS",
                status=status,
                code=code,
            )
        return super()._error(request, status, body, code)


def client(settings: Settings, told: Callable[[str], None], patience: Patience | None) -> SlackApi:
    """The client that the settings describe."""
    try:
        rate = float(settings.slack_rate)
    except ValueError:
        raise LorelineError(
            f"LORELINE_SLACK_RATE is {settings.slack_rate!r}, not a number", "write one"
        ) from None
    return SlackApi(
        "Slack",
        settings.slack_url,
        {"authorization": f"Bearer {settings.slack_token}"},
        rate=rate,
        at_once=8,
        credential="LORELINE_SLACK_TOKEN",
        patience=patience,
        told=told,
    )


def record_of(value: Json, origin: str) -> Record | Reject:
    """An element of an answer, set aside where a file with it would be."""
    try:
        raw = orjson.dumps(value)
    except TypeError as error:
        return Reject("nested_too_deep", str(error), json.dumps(value).encode(), origin)
    if b"\\u0000" in raw or len(raw) > MAX_FIELD_BYTES:
        try:
            parse(raw)
        except BadRecord as bad:
            return Reject(bad.reason, bad.detail, raw, origin)
    return Record(value, origin, raw)


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""
