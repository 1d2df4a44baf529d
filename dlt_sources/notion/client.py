"""Notion's API as far as it is read here: objects by their ids, and lists that are paged.

Written after https://developers.notion.com/reference, versions 2025-09-03 and 2026-03-11.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any
from urllib.parse import quote

from dlt_sources.api import Api, Patience
from loreline.errors import LorelineError
from loreline.settings import Settings

Json = dict[str, Any]

# The most that an answer holds.
PAGE_SIZE = 100
# Of requests of one page each waits for the one before; several pages are read beside each other.
PAGES_AT_ONCE = 8
# Pages that were read wait here while those before them are committed.
PAGES_AHEAD = 64
# A page object holds no more references, people or pieces of text of one property than this.
MAX_ITEMS = 25
_INSTANT = timedelta(microseconds=1)


class MalformedAnswerError(LorelineError):
    """An answer that is JSON, and not what was asked for."""


class NotionApi(Api):
    """A client of one workspace."""

    def __init__(
        self, settings: Settings, told: Callable[[str], None], patience: Patience | None = None
    ) -> None:
        super().__init__(
            "Notion",
            settings.notion_url,
            {
                "authorization": f"Bearer {settings.notion_token}",
                "notion-version": settings.notion_version,
            },
            rate=rate_of(settings),
            at_once=PAGES_AT_ONCE,
            credential="LORELINE_NOTION_TOKEN",
            patience=patience,
            told=told,
        )

    def search(self) -> Iterator[list[Any]]:
        """Pages and data sources, those that were edited last first."""
        newest_first = {"timestamp": "last_edited_time", "direction": "descending"}
        return self._answers("POST", "/v1/search", sort=newest_first)

    def rows(self, data_source_id: str) -> Iterator[list[Any]]:
        """The pages that are rows of a data source."""
        return self._answers("POST", f"/v1/data_sources/{_in_path(data_source_id)}/query")

    def users(self) -> Iterator[list[Any]]:
        """People and bots; not guests."""
        return self._answers("GET", "/v1/users")

    def children(self, block_id: str) -> Iterator[list[Any]]:
        """The blocks right below a page or block."""
        return self._answers("GET", f"/v1/blocks/{_in_path(block_id)}/children")

    def comments(self, block_id: str) -> list[Any]:
        """The comments on a page or block that are not resolved."""
        return [
            each
            for answer in self._answers("GET", "/v1/comments", block_id=block_id)
            for each in answer
        ]

    def property_items(self, page_id: str, property_id: str) -> list[Any]:
        """All items of one property of a page."""
        # An id comes as it is written in an address.
        path = f"/v1/pages/{_in_path(page_id)}/properties/{quote(property_id, safe='%')}"
        return [each for answer in self._answers("GET", path) for each in answer]

    def object(self, kind: str, identity: str) -> Any:
        """One object.

        Args:
            kind: page, data_source, database or user.
            identity: its id.

        Raises:
            NotFoundError: it is gone, or not shared with the integration.
        """
        return self.get(f"/v1/{kind}s/{_in_path(identity)}")

    def _answers(self, method: str, path: str, **asked: Any) -> Iterator[list[Any]]:
        """The elements of a list, answer by answer.

        Raises:
            MalformedAnswerError: an answer is no list, or the list has no end.
        """
        cursor: str | None = None
        used: set[str] = set()
        while True:
            content = {**asked, "page_size": PAGE_SIZE}
            if cursor:
                content["start_cursor"] = cursor
            answer = self.post(path, content) if method == "POST" else self.get(path, **content)
            results = answer.get("results") if isinstance(answer, dict) else None
            if not isinstance(results, list):
                raise MalformedAnswerError(f"{self.service} answered {method} {path} with no list")
            yield results
            if answer.get("has_more") is not True:
                return
            cursor = answer.get("next_cursor")
            if not isinstance(cursor, str) or cursor in used:
                raise MalformedAnswerError(
                    f"{self.service} does not say how the list {method} {path} goes on"
                )
            used.add(cursor)


class ServiceClock:
    """The service's time, in which no two moments are alike.

    `Date` tells seconds, and may step back where another machine answers; what is seen later is to
    be later, whatever it says.

    Args:
        api: the client, which reads `Date`.
        last: the last moment that was given before.
    """

    def __init__(self, api: Api, last: datetime | None) -> None:
        self._api = api
        self._lock = Lock()
        self.last = last or datetime.min.replace(tzinfo=UTC)

    def told(self) -> datetime:
        """What the service said last."""
        told = self._api.server_time
        if told is None:
            raise ValueError("nothing was asked yet")
        return told

    def now(self) -> datetime:
        """A moment after all that were given."""
        with self._lock:
            self.last = max(self.told(), self.last + _INSTANT)
            return self.last


def rate_of(settings: Settings) -> float:
    """Requests per second."""
    try:
        return float(settings.notion_rate)
    except ValueError:
        raise LorelineError(
            f"LORELINE_NOTION_RATE is {settings.notion_rate!r}, not a number",
            "write one, or unset it",
        ) from None


def _in_path(identity: str) -> str:
    return quote(identity, safe="")
