"""Linear's GraphQL API: one address, errors in answers of any status, limits of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from dlt_sources.api import LIMITED, Api, ApiError, NotFoundError, Patience, retry_after
from loreline.settings import Settings

Json = Any

PERSONAL_KEY = "lin_api_"
# Limits are of an hour, and refill evenly (https://linear.app/developers/rate-limiting).
PERIOD = 3600.0
# What is asked goes on while rows are committed, which takes seconds.
AT_ONCE = 8
# What is limited, as the headers name it.
_LIMITS = ("requests", "endpoint-requests", "complexity")


class LinearApi(Api):
    """A client of Linear.

    Args:
        settings: the address, the key and the rate.
        patience: how long to wait.
        told: told in a line what is waited for.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        patience: Patience | None = None,
        told: Callable[[str], None] = lambda line: None,
    ) -> None:
        address = urlsplit(settings.linear_url)
        self.path = address.path or "/"
        key = settings.linear_api_key
        super().__init__(
            "Linear",
            f"{address.scheme}://{address.netloc}",
            {"authorization": key if key.startswith(PERSONAL_KEY) else f"Bearer {key}"},
            rate=settings.number("linear_rate"),
            at_once=AT_ONCE,
            credential="LORELINE_LINEAR_API_KEY",
            patience=patience,
            told=told,
        )

    def ask(self, query: str, **variables: Json) -> dict[str, Json]:
        """The `data` of an answer without errors; variables that are None are left out.

        Raises:
            NotFoundError: one object was asked for, and is not there for us.
            ApiError: there are errors: what data there are, are a part.
        """
        given = {name: value for name, value in variables.items() if value is not None}
        try:
            return self.post(self.path, {"query": query, "variables": given})["data"]
        except ApiError as error:
            told = str(error).lower()
            if "entity not found" in told or "could not find referenced" in told:
                raise NotFoundError(error.what, status=error.status, code=error.code) from error
            if "authentication" in told:
                raise ApiError(
                    error.what, f"check {self.credential}", status=error.status, code=error.code
                ) from error
            raise

    def limited_for(self, status: int, headers: Mapping[str, str], body: Json) -> float | None:
        """Seconds until there is room for a request, where an answer says `RATELIMITED`.

        That is in HTTP 400 mostly. The headers tell when a limit is whole again, in milliseconds of
        Unix time; room for one more request is there long before, if they tell the limit too.
        """
        if status in LIMITED:
            return retry_after(headers)
        if _code(body) != "RATELIMITED":
            return None
        waits = [_refilled_after(headers, limit) for limit in _LIMITS]
        told = [seconds for seconds in waits if seconds is not None]
        return max(told) if told else retry_after(headers)

    def refusal(self, status: int, body: Json) -> str:
        """What the errors of an answer are; data beside them are not whole."""
        if not isinstance(body, dict):
            return "an answer that is no object"
        if errors := body.get("errors"):
            first = errors[0] if isinstance(errors, list) and errors else errors
            message = first.get("message") if isinstance(first, dict) else first
            return f"{_code(body)} {message}".strip()
        return "" if isinstance(body.get("data"), dict) else "an answer without data"


def _refilled_after(headers: Mapping[str, str], limit: str) -> float | None:
    """Seconds until a limit has room for one more request; None where it has, or does not tell."""
    name = f"x-ratelimit-{limit}"
    remaining, reset = _number(headers, f"{name}-remaining"), _number(headers, f"{name}-reset")
    needed = 1.0
    if limit == "complexity":
        needed = _number(headers, "x-complexity") or needed
    if reset is None or (remaining is not None and remaining >= needed):
        return None
    until_whole = max(0.0, reset / 1000 - _time(headers).timestamp())
    allowed = _number(headers, f"{name}-limit")
    if not allowed:
        return until_whole
    return min(until_whole, (needed - (remaining or 0.0)) * PERIOD / allowed)


def _time(headers: Mapping[str, str]) -> datetime:
    """The service's own time: its clock need not be ours."""
    try:
        return parsedate_to_datetime(headers.get("date", ""))
    except ValueError:
        return datetime.now(UTC)


def _number(headers: Mapping[str, str], name: str) -> float | None:
    try:
        return float(headers[name])
    except (KeyError, ValueError):
        return None


def _code(body: Json) -> str:
    """What the first error of an answer is called; empty without one."""
    errors = body.get("errors") if isinstance(body, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    extensions = first.get("extensions") if isinstance(first, dict) else None
    code = extensions.get("code") if isinstance(extensions, dict) else None
    return code if isinstance(code, str) else ""
