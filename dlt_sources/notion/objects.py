"""What Notion's objects say of themselves, by whichever route they come."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple

from dlt_sources.notion.settings import TABLES, TRASHED
from dlt_sources.slices import Observation

Json = dict[str, Any]


class Problem(NamedTuple):
    """Why an object cannot be used.

    Attributes:
        reason: a short name, as the quarantine counts by.
        detail: what exactly is wrong.
        table: the raw table that it was meant for; empty where that is not known.
        external_id: its id, where it has one.
    """

    reason: str
    detail: str
    table: str = ""
    external_id: str | None = None


def problem_of(value: Any) -> Problem | None:
    """Why an object of the API cannot be used, if it cannot."""
    if not isinstance(value, dict):
        return Problem("wrong_type", f"an object is expected, not {type(value).__name__}")
    kind, identity = value.get("object"), value.get("id")
    if kind != "block" and kind not in TABLES:
        return Problem("wrong_type", f"{kind!r} is no kind of object that is landed")
    table = TABLES[kind].name if kind in TABLES else "pages"
    if not identity:
        return Problem("missing_id", f"a {kind} without an id", table)
    if not isinstance(identity, str):
        return Problem("wrong_type", f"the id is {identity!r}, not text", table)
    if detail := _wrong_type(value):
        return Problem("wrong_type", detail, table, identity)
    return None


def is_trashed(value: Json) -> bool:
    """Whether an object is in the bin."""
    return any(value.get(name) is True for name in TRASHED)


def edited_at(value: Json) -> datetime | None:
    """When an object was changed last; Notion rounds it to the minute."""
    told = value.get("last_edited_time")
    moment = datetime.fromisoformat(told) if told else None
    return moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None


def observation(
    value: Json, payload: Json, observed_at: datetime, *, is_deleted: bool = False
) -> Observation:
    """An object as it was seen.

    Args:
        value: the object.
        payload: what to land of it.
        observed_at: when it was seen.
        is_deleted: whether it is known to be gone.
    """
    return Observation(
        external_id=value["id"],
        payload=payload,
        observed_at=observed_at,
        source_updated_at=edited_at(value),
        is_deleted=is_deleted or is_trashed(value),
    )


def _wrong_type(value: Json) -> str | None:
    edited = value.get("last_edited_time")
    if edited is not None:
        try:
            datetime.fromisoformat(edited)
        except (TypeError, ValueError):
            return f"last_edited_time is {edited!r}, not a time"
    if value["object"] == "page" and not isinstance(value.get("properties"), dict | None):
        return "properties is not an object"
    if value["object"] not in ("block", "comment"):
        return None
    parent = value.get("parent")
    if not isinstance(parent, dict) or not isinstance(parent.get(parent.get("type")), str):
        return f"a {value['object']} that names no parent"
    if value["object"] == "block" and not isinstance(value.get("type"), str):
        return "a block without a type"
    return None
