"""An OpenAI-compatible API: asking it, and telling its failures apart."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import openai

from loreline.calls.budget import Estimate, Limits
from loreline.conversations.canonical import Message, Messages, parsed
from loreline.errors import LorelineError

Json = Any

# By this header of an answer a gateway tells the id under which it records the turn.
TURN_HEADER = "x-turn-id"
# What a header may hold as it is: printable ASCII.
_PRINTABLE = "".join(map(chr, range(0x20, 0x7F)))
# Fields of a request that the client has arguments of its own for.
_OWN = ("model", "messages")


@dataclass(frozen=True)
class Endpoint:
    """Where calls go.

    Attributes:
        url: of the OpenAI-compatible API, up to and with its `/v1`.
        api_key: empty where none is needed.
        records: whether it records calls itself, so that their events need not be written here.
    """

    url: str
    api_key: str = field(default="", repr=False)
    records: bool = False

    @property
    def host(self) -> str:
        """Host and port, without what else an address may hold, such as a password."""
        parts = urlsplit(self.url)
        return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


@dataclass(frozen=True)
class Reply:
    """What an endpoint answered, or why it did not.

    Attributes:
        response: empty where it failed.
        turn_id: under which the endpoint records the turn, where it tells.
        error: None where it did not fail.
        started_at: when it was asked first.
        seconds: until the answer, retries with them.
        asked_in_vain: how often it may have answered, and been paid, without our hearing it.
    """

    response: dict[str, Json]
    turn_id: str | None
    error: dict[str, Json] | None
    started_at: datetime
    seconds: float
    asked_in_vain: int

    @property
    def status(self) -> str:
        """As an event says it."""
        return "failed" if self.error else "completed"

    def used(self, estimate: Estimate) -> tuple[int, int]:
        """Tokens read and written; where it does not tell, what it was expected to take."""
        if self.asked_in_vain:
            tries = self.asked_in_vain
            return tries * estimate.prompt_tokens, tries * estimate.completion_tokens
        if not self.response:
            return 0, 0
        usage = self.response.get("usage")
        told = usage if isinstance(usage, dict) else {}
        read, written = told.get("prompt_tokens"), told.get("completion_tokens")
        return (
            read if type(read) is int else estimate.prompt_tokens,
            written if type(written) is int else estimate.completion_tokens,
        )


class Client:
    """Asks an endpoint.

    Args:
        endpoint: where calls go.
        limits: its retries and timeout.
    """

    def __init__(self, endpoint: Endpoint, limits: Limits) -> None:
        self._endpoint = endpoint
        self._limits = limits
        self._client = openai.OpenAI(
            base_url=endpoint.url,
            api_key=endpoint.api_key or "none",
            max_retries=limits.retries,
            timeout=limits.timeout,
        )

    def ask(self, request: Mapping[str, Json], headers: Mapping[str, str]) -> Reply:
        """Ask, and ask again for as long as a failure may pass.

        Raises:
            LorelineError: no call can succeed.
        """
        others = {name: value for name, value in request.items() if name not in _OWN}
        started_at, started = datetime.now(UTC), time.monotonic()
        response: dict[str, Json] = {}
        turn_id, error, was_asked_in_vain = None, None, False
        try:
            reply = self._client.chat.completions.with_raw_response.create(
                model=request["model"],
                messages=request["messages"],
                extra_body=others,
                extra_headers=headers,
            )
            turn_id = reply.headers.get(TURN_HEADER)
            response = _read(reply.http_response.content)
            error = _fault(response)
        except openai.APITimeoutError:
            error = {"message": f"no answer within {self._limits.timeout:g} s"}
            was_asked_in_vain = True
        except openai.APIConnectionError as broken:
            if isinstance(broken.__cause__, httpx2.ConnectError):
                raise LorelineError(
                    f"nothing answers at {self._endpoint.host} ({broken.__cause__})",
                    "start the gateway, or check LORELINE_GATEWAY_URL; then run this again",
                ) from broken
            error = {"message": f"the connection broke ({broken.__cause__ or broken})"}
            was_asked_in_vain = True
        except openai.AuthenticationError as refused:
            raise LorelineError(
                f"{self._endpoint.host} refused the credentials ({refused.message})",
                "check LORELINE_GATEWAY_API_KEY",
            ) from refused
        except openai.APIStatusError as failed:
            error = {"status": failed.status_code, "message": failed.message}
        seconds = time.monotonic() - started
        in_vain = (self._limits.retries + 1) * was_asked_in_vain
        return Reply(response, turn_id, error, started_at, seconds, in_vain)


def first_answer(response: dict[str, Json]) -> Message:
    """The first answer of a response.

    Raises:
        ValueError: and others, where there is none.
    """
    choices = response.get("choices")
    if not isinstance(choices, list) or not choices:
        raise ValueError("no choices")
    said = choices[0]["message"]
    return Messages().message({**said, "role": said.get("role") or "assistant"})


def header(value: str) -> str:
    """A value as a header holds it.

    Ids come from outside: what a header cannot hold is percent-encoded.
    """
    quoted = quote(value, safe=_PRINTABLE)
    # A header begins and ends with something that can be seen.
    start, end = (len(quoted) - len(quoted.lstrip()), len(quoted.rstrip()))
    return "%20" * start + quoted[start:end] + "%20" * (len(quoted) - max(start, end))


def _read(content: bytes) -> dict[str, Json]:
    """A response as JSON; as text, where it is something else."""
    try:
        response = parsed(content)
    except (ValueError, RecursionError):
        response = None
    return response if isinstance(response, dict) else {"text": content.decode(errors="replace")}


def _fault(response: dict[str, Json]) -> dict[str, Json] | None:
    """What keeps a response from being an answer."""
    try:
        first_answer(response)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as fault:
        return {"message": f"the endpoint gave no answer ({str(fault) or type(fault).__name__})"}
    return None
