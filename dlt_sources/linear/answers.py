"""Objects and lists in what Linear's GraphQL API answered, or in nodes of such answers.

What an object is, its `__typename` says, or else the connection or field that it is found in, or
else the file's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import PurePosixPath
from typing import Any

import orjson

from dlt_sources.json_files import Record
from dlt_sources.linear.settings import (
    CONNECTIONS,
    FIELDS,
    HAVE_A_BIN,
    INNER_FIELDS,
    LAND_IN_PART,
    MEMBERSHIPS,
    NAMES,
    TELL_READERS,
    TYPES,
    WHOLE,
)
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation

Json = dict[str, Any]

_TABLES_BY_NAME = {name.lower(): table for name, table in NAMES.items()}
_CHECKED = {
    table: {name: kind for name, kind in fields.items() if name not in TELL_READERS.get(table, ())}
    for table, fields in FIELDS.items()
}
_NO_LETTERS = re.compile(r"[^a-z]")


@dataclass(frozen=True, slots=True)
class Node:
    """An object, without the connections whose nodes are objects of their own.

    Attributes:
        table: where it belongs.
        value: its fields.
        origin: where it was read.
        is_whole: whether it is more than a reference inside of another object.
    """

    table: str
    value: Json
    origin: str
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list: of all objects of a kind, or of those that one object owns.

    Attributes:
        table: what is listed.
        field: by which the listed name their owner; empty in a list of all.
        owner: the owner's id; empty in a list of all.
        is_last: whether the list ends with it.
    """

    table: str
    field: str
    owner: str
    is_last: bool


Item = Node | Page | Reject


def table_of_file(name: str) -> str | None:
    """What a file or its nearest telling folder is named after: `issues-2.jsonl`, `issues/2.json`.

    Args:
        name: the file's path below the export.
    """
    path = PurePosixPath(name)
    for part in (path.name.partition(".")[0], *reversed(path.parent.parts)):
        if table := _TABLES_BY_NAME.get(_NO_LETTERS.sub("", part.lower())):
            return table
    return None


def items(record: Record, table: str | None) -> Iterator[Item]:
    """All objects and lists in a record: a whole answer, a connection or a node.

    Args:
        record: the record; its value is taken apart.
        table: what its file is named after.
    """
    value = record.value
    if not isinstance(value, dict):
        yield record.reject("wrong_type", f"an object is expected, not {type(value).__name__}")
    elif "data" in value or "errors" in value:
        yield from _answer(record)
    elif _is_connection(value):
        yield from _list(value, table, "", "", record.origin)
    else:
        if listed := _table_of(value, table):
            yield Page(listed, "", "", is_last=True)
        yield from _node(value, table, record.origin, is_listed=True)


def _answer(record: Record) -> Iterator[Item]:
    data, errors = record.value.get("data"), record.value.get("errors")
    if errors or not isinstance(data, dict):
        yield record.reject("api_error", f"the API gave errors: {orjson.dumps(errors).decode()}")
    for name, part in data.items() if isinstance(data, dict) else ():
        origin = f"{record.origin}.{name}"
        if _is_connection(part):
            yield from _list(part, NAMES.get(name), "", "", origin)
        elif isinstance(part, dict):
            yield from _node(part, NAMES.get(name), origin, is_listed=False)
        elif part is not None:
            yield _reject("wrong_type", f"{name} is neither object nor list", part, origin)


def _list(value: Json, table: str | None, field: str, owner: str, origin: str) -> Iterator[Item]:
    """The nodes of a connection, and what it says of their list.

    Args:
        value: the connection.
        table: what it lists, if only `__typename` does not say.
        field: by which nodes name the object that the list is a part of, if they do.
        owner: the id of that object; empty where the list is of all.
        origin: where it was read.
    """
    nodes = _nodes(value)
    if nodes is None:
        yield _reject("wrong_type", "a list without nodes", value, origin, table or "")
        return
    if table and (field or not owner):
        yield Page(table, field, owner, not _goes_on(value))
    for number, node in enumerate(nodes):
        place = f"{origin}[{number}]"
        if not isinstance(node, dict):
            yield _reject("wrong_type", "a node is no object", node, place, table or "")
            continue
        if field and not node.get(field):
            node[field] = {"id": owner}
        yield from _node(node, table, place, is_listed=not owner)


def _node(value: Json, table: str | None, origin: str, *, is_listed: bool) -> Iterator[Item]:
    """An object, and all that lies in its connections."""
    table = _table_of(value, table)
    if table is None:
        yield from _between(value, origin)
        return
    identity = value.get("id")
    if not isinstance(identity, str) or not identity:
        reason = "wrong_type" if identity else "missing_id"
        yield _reject(reason, f"the id is {identity!r}, not text", value, origin, table)
        return
    taken = list(_connections(value, table, identity, origin))
    yield from taken
    if problem := _wrong_type(value, _CHECKED[table]):
        yield _reject("wrong_type", problem, value, origin, table, identity)
        return
    needed = WHOLE[table][:1] if is_listed else WHOLE[table]
    is_whole = all(field in value for field in needed)
    if is_listed and not (is_whole or is_gone(value, table) or taken):
        detail = f"one of {table} without {needed[0]}"
        yield _reject("missing_field", detail, value, origin, table, identity)
    yield Node(table, value, origin, is_whole)


def _table_of(value: Json, table: str | None) -> str | None:
    """Where an object belongs: by its `__typename`, else by its place."""
    typename = value.get("__typename")
    return TYPES.get(typename) if isinstance(typename, str) else table


def _between(value: Json, origin: str) -> Iterator[Item]:
    """What stands between an answer and its lists, such as `organization`.

    Its lists are taken for parts of something: whether they are of all is not known.
    """
    lists = {name: part for name, part in value.items() if name in NAMES and _is_connection(part)}
    for name, part in lists.items():
        yield from _list(part, NAMES[name], "", name, f"{origin}.{name}")
    if not lists:
        told = value.get("__typename") or "what no __typename, list or file name tells of"
        yield _reject("wrong_type", f"{told} is no kind of object that is landed", value, origin)


def _connections(value: Json, table: str, identity: str, origin: str) -> Iterator[Item]:
    """Take the connections out of an object, and give what lies in them."""
    for name, nested in CONNECTIONS.get(table, {}).items():
        if _is_connection(value.get(name)):
            connection, place = value.pop(name), f"{origin}.{name}"
            if table == nested.table == "comments":
                _hand_down(connection, "issue", value.get("issue"))
            yield from _list(connection, nested.table, nested.owner or "", identity, place)
    for name, (nested, kept) in MEMBERSHIPS.get(table, {}).items():
        members = _nodes(value.get(name))
        if members is None or not all(_has_id(member) for member in members):
            continue
        told = sorted(members, key=itemgetter("id"))
        goes_on = _goes_on(value[name])
        value[name] = {"nodes": [{f: m[f] for f in kept if f in m} for m in told]}
        if goes_on:
            value[name]["pageInfo"] = {"hasNextPage": True}
        for number, member in enumerate(members):
            if all(field in member for field in WHOLE[nested.table]):
                place = f"{origin}.{name}[{number}]"
                yield from _node(member, nested.table, place, is_listed=False)


def _hand_down(connection: Json, field: str, value: Any) -> None:
    for node in _nodes(connection) or ():
        if value and isinstance(node, dict):
            node.setdefault(field, value)


def _is_connection(value: Any) -> bool:
    return isinstance(value, dict) and ("nodes" in value or "edges" in value)


def _nodes(connection: Any) -> list[Any] | None:
    """The nodes of a connection, given as `nodes` or as `edges`; None where it has none."""
    if not isinstance(connection, dict):
        return None
    if isinstance(connection.get("nodes"), list):
        return connection["nodes"]
    edges = connection.get("edges")
    if not isinstance(edges, list):
        return None
    return [edge.get("node") if isinstance(edge, dict) else None for edge in edges]


def _goes_on(connection: Json) -> bool:
    page = connection.get("pageInfo")
    return isinstance(page, dict) and page.get("hasNextPage") is not False and bool(page)


def _has_id(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("id"), str)


def is_list_of_members(value: Any) -> bool:
    """Whether this is a list as `_connections` leaves it in the object whose members it has."""
    nodes = value.get("nodes") if isinstance(value, dict) else None
    return isinstance(nodes, list) and all(map(_has_id, nodes))


def is_gone(value: Json, table: str) -> bool:
    """Whether an object is in the bin or archived."""
    is_binned = table in HAVE_A_BIN and value.get("trashed") is True
    return is_binned or value.get("archivedAt") is not None


def observed(node: Node, updated: str, observed_at: datetime) -> Iterator[Observation | Reject]:
    """What an object says of itself, if it is more than a reference or is gone.

    Args:
        node: the object.
        updated: its `updatedAt` as `sortable` gives it.
        observed_at: when it was seen.
    """
    table, payload, identity = node.table, node.value, node.value["id"]
    missing = [
        name
        for name in MEMBERSHIPS.get(table, {})
        if is_list_of_members(payload.get(name)) and "pageInfo" in payload[name]
    ]
    is_deleted = is_gone(payload, table)
    if node.is_whole and missing and not is_deleted:
        detail = f"not all {missing[0]} of it are there"
        yield _reject("missing_nodes", detail, payload, node.origin, table, identity)
    if (node.is_whole and (not missing or table in LAND_IN_PART)) or is_deleted:
        yield Observation(
            external_id=identity,
            payload=payload if node.is_whole else None,
            observed_at=observed_at,
            source_updated_at=datetime.fromisoformat(updated) if updated else None,
            is_deleted=is_deleted,
        )


def sortable(moment: Any) -> str:
    """A time as text that sorts as the times do, in UTC without a zone; empty where it is none."""
    try:
        parsed = datetime.fromisoformat(moment)
        parsed = parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
    except (TypeError, ValueError, OverflowError):
        return ""
    return parsed.isoformat(timespec="microseconds")


def _wrong_type(value: Json, fields: Mapping[str, str]) -> str | None:
    """Which of the fields that are read holds what it must not; null it may hold."""
    for name, declared in fields.items():
        if (held := value.get(name)) is None:
            continue
        declared = declared.removesuffix("!")
        if declared.endswith("Connection"):
            nodes = _nodes(held)
            is_right = nodes is not None and all(map(_has_id, nodes))
        elif declared.startswith("["):
            inner = declared.strip("[]").removesuffix("!")
            is_right = isinstance(held, list) and all(_is_of(item, inner) for item in held)
        else:
            is_right = _is_of(held, declared)
        if not is_right:
            return f"{name} is {_shortened(held)}, not {declared}"
    return None


def _is_of(value: Any, declared: str) -> bool:
    if declared in INNER_FIELDS:
        return isinstance(value, dict) and not _wrong_type(value, INNER_FIELDS[declared])
    return _SCALARS.get(declared, _is_text)(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_time(value: Any) -> bool:
    try:
        datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_SCALARS = {
    "Boolean": lambda value: isinstance(value, bool),
    "DateTime": _is_time,
    "Float": _is_number,
}


def _shortened(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:60]}…"


def _reject(
    reason: str,
    detail: str,
    value: Any,
    origin: str,
    table: str = "",
    external_id: str | None = None,
) -> Reject:
    return Reject(reason, detail, orjson.dumps(value), origin, table, external_id)
