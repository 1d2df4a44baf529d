"""A page as its API requests show it: the object, its tree of blocks, its comments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from dlt_sources.api import ApiError, NotFoundError
from dlt_sources.json_files import BadRecord, parse
from dlt_sources.notion.client import MAX_ITEMS, MalformedAnswerError, NotionApi, ServiceClock
from dlt_sources.notion.objects import Problem, is_trashed, observation, problem_of
from dlt_sources.notion.settings import MAX_DEPTH, PAGES, WITHOUT_CHILDREN
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation

Json = dict[str, Any]

# A page that is edited while it is read is begun again.
ATTEMPTS = 3
# What Notion says where a block that was just listed is no longer there, or is being written.
_CHANGED_MEANWHILE = (400, 404, 409)
# The properties whose values are lists, each element as one property item gives it.
_LISTED = ("relation", "people", "title", "rich_text")


class UnusablePageError(Exception):
    """A page that is there, and of which no whole can be made."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass
class Tree:
    """The blocks of a page.

    Attributes:
        blocks: as the API gives them, each with its `children`.
        pages: ids of the child pages among them.
        databases: ids of the child databases.
        originals: ids of the synced blocks that other pages may show too.
        unsupported: how many blocks the API does not show.
        unshared: how many are copies of a synced block that is not shared with the integration.
    """

    blocks: list[Json] = field(default_factory=list)
    pages: list[str] = field(default_factory=list)
    databases: list[str] = field(default_factory=list)
    originals: list[str] = field(default_factory=list)
    unsupported: int = 0
    unshared: int = 0


@dataclass
class PageRead:
    """What reading one page gave.

    Attributes:
        page_id: its id.
        seen: the page with its blocks, or why there is none; None where it is gone.
        observed_at: when it was seen, or seen to be gone.
        asked_at: what the service's clock said then.
        comments: by the page or block that was asked; without those that may not be read.
        tree: its blocks.
    """

    page_id: str
    seen: Observation | Reject | None
    observed_at: datetime
    asked_at: datetime
    comments: dict[str, list[Any]] = field(default_factory=dict)
    tree: Tree = field(default_factory=Tree)


class PageReader:
    """Reads pages; threads may share it.

    Args:
        api: the client.
        clock: of the service.

    Attributes:
        is_refused_comments: whether the integration was found to have no right to read comments.
    """

    def __init__(self, api: NotionApi, clock: ServiceClock) -> None:
        self._api = api
        self._clock = clock
        self.is_refused_comments = False

    def read(self, page_id: str, commented: Sequence[str] = ()) -> PageRead:
        """Read a page to its end, or not at all.

        Args:
            page_id: its id.
            commented: blocks of it that had comments.

        Raises:
            LorelineError: the service does not answer, or refuses the credentials.
        """
        page: Any = None
        why = ""
        for _ in range(ATTEMPTS):
            try:
                page = self._api.object("page", page_id)
            except NotFoundError:
                return self._read(page_id, None)
            if isinstance(page, dict) and is_trashed(page):
                return self._read(page_id, None)
            found = self._read(page_id, None)
            try:
                self._fill(found, page, commented)
            except (UnusablePageError, MalformedAnswerError, BadRecord) as error:
                reason = getattr(error, "reason", "wrong_type")
                found.seen = _reject(page_id, page, reason, str(error))
            except ApiError as error:
                if error.status in _CHANGED_MEANWHILE:
                    why = str(error)
                    continue
                if error.status == 401:
                    raise
                found.seen = _reject(page_id, page, "missing_children", str(error))
            return found
        detail = f"its blocks could not be read to their end ({why})"
        return self._read(page_id, _reject(page_id, page, "missing_children", detail))

    def comments(self, block_id: str) -> list[Any] | None:
        """The comments of a page or block; None where the integration may not read them.

        Raises:
            NotFoundError: the page or block is gone.
        """
        if self.is_refused_comments:
            return None
        try:
            return self._api.comments(block_id)
        except ApiError as error:
            if error.status == 403:
                self.is_refused_comments = True
                return None
            raise

    def _read(self, page_id: str, seen: Reject | None) -> PageRead:
        return PageRead(page_id, seen, self._clock.now(), self._clock.told())

    def _fill(self, found: PageRead, page: Any, commented: Sequence[str]) -> None:
        problem = problem_of(page)
        if problem is None and page["object"] != "page":
            problem = Problem("wrong_type", f"a page is expected, not a {page['object']}")
        if problem:
            raise UnusablePageError(problem.reason, problem.detail)
        complete_properties(self._api, page)
        found.tree = read_tree(self._api, page["id"])
        for block_id in (page["id"], *commented):
            try:
                comments = self.comments(block_id)
            except NotFoundError:
                # A block that went with its comments.
                comments = [] if block_id != page["id"] else None
            if comments is not None:
                found.comments[block_id] = comments
        if found.tree.unshared:
            # What could not be found was perhaps the page.
            self._api.object("page", page["id"])
        payload = {"page": page, "blocks": found.tree.blocks}
        found.seen = observation(page, payload, found.observed_at)
        found.seen.raw = encoded(payload)


def read_tree(api: NotionApi, page_id: str) -> Tree:
    """The blocks of a page, each with its own `children`.

    Raises:
        UnusablePageError: a block is malformed, or blocks never end.
        ApiError: a list of blocks is refused.
    """
    tree = Tree()
    tree.blocks = _children(api, page_id, (), tree)
    return tree


def complete_properties(api: NotionApi, page: Json) -> None:
    """Ask for the values of which the page object holds the first ones alone, and put them in."""
    for value in (page.get("properties") or {}).values():
        if not isinstance(value, dict) or not isinstance(value.get("id"), str):
            continue
        kind = value.get("type")
        rollup = value.get("rollup")
        if kind in _LISTED and _is_cut(value, value.get(kind)):
            items = api.property_items(page["id"], value["id"])
            value[kind] = list(_values(items, kind))
            value.pop("has_more", None)
        elif kind == "rollup" and isinstance(rollup, dict) and _is_cut(value, rollup.get("array")):
            items = api.property_items(page["id"], value["id"])
            rollup["array"] = [
                {"type": each["type"], each["type"]: each.get(each["type"])}
                for each in items
                if isinstance(each, dict) and isinstance(each.get("type"), str)
            ]
            value.pop("has_more", None)


def encoded(payload: Json) -> bytes:
    """A payload as JSON.

    Raises:
        BadRecord: it holds what cannot be stored.
    """
    try:
        raw = orjson.dumps(payload)
    except TypeError as error:
        raise BadRecord("nested_too_deep", str(error)) from None
    parse(raw)
    return raw


def _children(api: NotionApi, parent: str, above: tuple[str, ...], tree: Tree) -> list[Json]:
    return _with_children(api, _listed(api, parent), (*above, parent), tree)


def _listed(api: NotionApi, parent: str) -> list[Json]:
    """The blocks right below a page or block."""
    blocks = [block for answer in api.children(parent) for block in answer]
    for block in blocks:
        problem = problem_of(block)
        if problem is None and block["object"] != "block":
            problem = Problem("wrong_type", f"it is a {block['object']}")
        if problem:
            raise UnusablePageError("wrong_type", f"a block below {parent}: {problem.detail}")
    return blocks


def _with_children(
    api: NotionApi, blocks: list[Json], above: tuple[str, ...], tree: Tree
) -> list[Json]:
    if len(above) > MAX_DEPTH:
        raise UnusablePageError("nested_too_deep", f"blocks below {above[0]} never end")
    for block in blocks:
        kind = block["type"]
        if kind == "child_page":
            tree.pages.append(block["id"])
        elif kind == "child_database":
            tree.databases.append(block["id"])
        elif kind == "unsupported":
            tree.unsupported += 1
        if block.get("has_children") is True and kind not in WITHOUT_CHILDREN:
            block["children"] = _nested(api, block, above, tree)
    return blocks


def _nested(api: NotionApi, block: Json, above: tuple[str, ...], tree: Tree) -> list[Json]:
    """The children of a block, or for a synced copy those of its original."""
    content = block.get(block["type"])
    origin = content.get("synced_from") if isinstance(content, dict) else None
    original = origin.get("block_id") if isinstance(origin, dict) else None
    if not isinstance(original, str):
        if block["type"] == "synced_block":
            tree.originals.append(block["id"])
        return [] if block["id"] in above else _children(api, block["id"], above, tree)
    for identity in (original, block["id"]):
        if identity in above:
            return []
        try:
            children = _listed(api, identity)
        except NotFoundError:
            continue
        return _with_children(api, children, (*above, identity), tree)
    tree.unshared += 1
    return []


def _is_cut(value: Json, items: Any) -> bool:
    return value.get("has_more") is True or (isinstance(items, list) and len(items) >= MAX_ITEMS)


def _values(items: Sequence[Any], kind: str) -> Iterator[Any]:
    return (each[kind] for each in items if isinstance(each, dict) and kind in each)


def _reject(page_id: str, page: Any, reason: str, detail: str) -> Reject:
    try:
        raw = orjson.dumps(page)
    except TypeError:
        raw = repr(page).encode()
    return Reject(reason, detail, raw, f"pages/{page_id}.json", PAGES.name, page_id)
