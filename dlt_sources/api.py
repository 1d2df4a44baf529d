"""Talking to the HTTP API of a service: in its pace, and again where a failure may pass."""

from __future__ import annotations

import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from typing import Any, Self, TypeVar

import httpx2
import orjson
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_before_delay
from tenacity.wait import wait_random_exponential

from loreline.errors import LorelineError

Json = Any
Item = TypeVar("Item")
Result = TypeVar("Result")

LIMITED = (429, 529)
ERROR_CHARACTERS = 300
# How often who waits for a result is told so.
SECONDS_BETWEEN_TELLINGS = 0.1


@dataclass(frozen=True)
class Patience:
    """How long to wait for a service.

    Attributes:
        timeout: seconds without a byte of an answer.
        total: seconds for one request, with all its repetitions.
        first_wait: seconds before the first repetition, at most; doubled for each further one.
        longest_wait: seconds between two, at most, unless the service asks for more.
    """

    timeout: float = 30.0
    total: float = 300.0
    first_wait: float = 0.5
    longest_wait: float = 30.0


class ApiError(LorelineError):
    """An answer that says no, and would say so again.

    Args:
        what: what failed, and why.
        next_step: what to do.
        status: of the answer.
        code: what the service calls the error; empty where it does not.
    """

    def __init__(self, what: str, next_step: str = "", *, status: int = 0, code: str = "") -> None:
        super().__init__(what, next_step)
        self.status = status
        self.code = code


class NotFoundError(ApiError):
    """There is no such object, or it is not shared with us: services do not tell which."""


class _PassingError(Exception):
    """A failure that may pass; `seconds` to wait where the service asked for it."""

    def __init__(self, cause: str, seconds: float | None = None) -> None:
        super().__init__(cause)
        self.seconds = seconds


class Waiting:
    """Says that a result is not there yet."""


@cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust: read once in a process, as that takes a tenth of a second."""
    return httpx2.create_ssl_context()


class Api:
    """A client of one service. Threads may share it.

    Args:
        service: what it is called in messages.
        url: what paths are added to.
        headers: of each request, such as the authorization.
        rate: requests per second that are begun at most; 0 for as many as the service answers.
        at_once: requests under way in `map`.
        credential: the variable that holds the token, for messages.
        patience: how long to wait.
        told: told in a line what is waited for.

    Attributes:
        requests: how many were sent, repetitions included.
        server_time: when the last answer was made, by the service's clock; None before the first.
        passing_refusals: what `refusal` says where asking again may help.
    """

    passing_refusals: frozenset[str] = frozenset()

    def __init__(
        self,
        service: str,
        url: str,
        headers: Mapping[str, str],
        *,
        rate: float = 0.0,
        at_once: int = 4,
        credential: str = "",
        patience: Patience | None = None,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.service = service
        self.at_once = at_once
        self.credential = credential
        self.patience = patience or Patience()
        self.requests = 0
        self.server_time: datetime | None = None
        self._told = told
        self._between = 1 / rate if rate else 0.0
        self._lock = threading.Lock()
        # No request is begun before, in seconds of the monotonic clock.
        self._free_at = 0.0
        self._client = httpx2.Client(
            base_url=url,
            headers={"user-agent": "loreline", **headers},
            timeout=self.patience.timeout,
            verify=_certificates(),
            limits=httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once),
        )
        self._back_off = wait_random_exponential(
            multiplier=self.patience.first_wait, max=self.patience.longest_wait
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str, **parameters: str | int | bool | None) -> Json:
        """Ask with GET; parameters that are None are left out."""
        given = {name: value for name, value in parameters.items() if value is not None}
        return self.request("GET", path, params=given)

    def post(self, path: str, body: Json = None, **parameters: str | int) -> Json:
        """Ask with POST and a JSON body."""
        return self.request("POST", path, json=body, params=parameters)

    def request(self, method: str, path: str, **content: Any) -> Json:
        """Ask until there is an answer that is one.

        Returns:
            The parsed JSON.

        Raises:
            NotFoundError: the object is not there for us.
            ApiError: the service says no.
            LorelineError: it does not answer, or asks for more patience than we have.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(_PassingError),
            wait=self._wait,
            stop=stop_before_delay(self.patience.total),
            reraise=True,
        )
        try:
            return attempts(self._once, method, path, content)
        except _PassingError as error:
            raise LorelineError(
                f"{self.service} did not answer {method} {path} ({error})",
                "run this again later: it goes on where it is",
            ) from error

    def map(
        self, ask: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 0
    ) -> Iterator[Result]:
        """What `ask` gives for each item, in their order, with a few requests under way at once.

        Args:
            ask: makes the requests of one item.
            items: read in the thread that reads the results.
            ahead: how many results may wait to be read, so that the service goes on to be asked
                while they are; at least a few do.
        """
        results = self.map_or_wait(ask, items, ahead=ahead)
        return (result for result in results if not isinstance(result, Waiting))

    def map_or_wait(
        self, ask: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 0
    ) -> Iterator[Result | Waiting]:
        """As `map`, for who has something to do meanwhile: told a few times a second to wait."""
        waiting: deque[Future[Result]] = deque()
        pool = ThreadPoolExecutor(self.at_once)
        try:
            for item in items:
                waiting.append(pool.submit(ask, item))
                if len(waiting) > max(ahead, 2 * self.at_once):
                    yield from _result_or_wait(waiting.popleft())
            while waiting:
                yield from _result_or_wait(waiting.popleft())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def limited_for(self, status: int, headers: Mapping[str, str], body: Json) -> float | None:
        """Seconds to wait where an answer says that there were too many requests, else None.

        Services that say it in their own way override this.
        """
        return retry_after(headers) if status in LIMITED else None

    def refusal(self, status: int, body: Json) -> str:
        """Why an answer with status 200 is none, as some services say it; empty where it is one."""
        return ""

    def _once(self, method: str, path: str, content: Mapping[str, Any]) -> Json:
        self._take_turn()
        try:
            answer = self._client.request(method, path, **content)
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _PassingError(str(error) or type(error).__name__) from error
        self._note_time(answer.headers)
        body = _parsed(answer.content)
        seconds = self.limited_for(answer.status_code, answer.headers, body)
        if seconds is not None:
            self._hold(seconds)
            raise _PassingError(f"too many requests, status {answer.status_code}", seconds)
        if answer.status_code >= 500 or answer.status_code == 408:
            raise _PassingError(f"status {answer.status_code}", retry_after(answer.headers, 0.0))
        if answer.status_code >= 400:
            raise self._error(f"{method} {path}", answer.status_code, body)
        if body is None:
            raise _PassingError("the answer is not JSON, or was cut off")
        if code := self.refusal(answer.status_code, body):
            if code in self.passing_refusals:
                raise _PassingError(code)
            raise self._error(f"{method} {path}", answer.status_code, body, code)
        return body

    def _error(self, request: str, status: int, body: Json, code: str = "") -> ApiError:
        code, message = (code, "") if code else _told(body)
        why = " ".join(filter(None, [code, message]))[:ERROR_CHARACTERS] or f"status {status}"
        if status == 401:
            return ApiError(
                f"{self.service} refused the credentials ({why})",
                f"check {self.credential}",
                status=status,
                code=code,
            )
        kind = NotFoundError if status in (404, 410) else ApiError
        return kind(f"{self.service} refused {request} ({why})", status=status, code=code)

    def _take_turn(self) -> None:
        """Wait until a request may begin."""
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._free_at:
                    # A late one may be made up for, a long pause not.
                    self._free_at = max(self._free_at, now - self._between) + self._between
                    self.requests += 1
                    return
                seconds = self._free_at - now
            time.sleep(seconds)

    def _hold(self, seconds: float) -> None:
        """Let nobody ask for a while."""
        if seconds > 1:
            self._told(f"{self.service} asks to wait {seconds:.0f} s")
        with self._lock:
            self._free_at = max(self._free_at, time.monotonic() + seconds)

    def _wait(self, state: RetryCallState) -> float:
        """Seconds before a repetition: as the service asks, or longer each time."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, _PassingError) and error.seconds:
            return error.seconds
        return self._back_off(state)

    def _note_time(self, headers: Mapping[str, str]) -> None:
        try:
            self.server_time = parsedate_to_datetime(headers.get("date", "")).astimezone(UTC)
        except ValueError:
            self.server_time = self.server_time or datetime.now(UTC)


def _result_or_wait(asked: Future[Result]) -> Iterator[Result | Waiting]:
    while not wait([asked], SECONDS_BETWEEN_TELLINGS).done:
        yield Waiting()
    yield asked.result()


def retry_after(headers: Mapping[str, str], unless_told: float = 1.0) -> float:
    """Seconds in `Retry-After`, which holds them or a date (RFC 9110, section 10.2.3)."""
    told = headers.get("retry-after", "")
    try:
        return max(0.0, float(told))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(told) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return unless_told


def _parsed(content: bytes) -> Json:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def _told(body: Json) -> tuple[str, str]:
    """Code and message of an error, as Notion, Google and GraphQL servers write them."""
    if not isinstance(body, dict):
        return "", ""
    errors = body.get("errors")
    inner = errors[0] if isinstance(errors, list) and errors else body.get("error")
    found = inner if isinstance(inner, dict) else body
    extensions = found.get("extensions")
    codes = [
        extensions.get("code") if isinstance(extensions, dict) else None,
        *reasons(body),
        found.get("code"),
        found.get("status"),
        inner,
    ]
    message = found.get("message")
    return (
        next((code for code in codes if isinstance(code, str) and code), ""),
        message if isinstance(message, str) else "",
    )


def reasons(body: Json) -> list[str]:
    """The reasons in an error of Google: in `errors` of its older APIs, `details` of the others."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return []
    listed = [error.get("errors"), error.get("details")]
    parts = [part for each in listed if isinstance(each, list) for part in each]
    given = [part.get("reason") for part in parts if isinstance(part, dict)]
    return [reason for reason in given if isinstance(reason, str)]
