"""What makes a version of an object: hashes of what it says, and its place in time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, NamedTuple

import orjson

Json = Any

# Before every time there is: where a source does not say when an object changed.
ABSENT_TIME = -(2**62)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# What is new in a signed URL at every answer, while what it points to is the same.
_SIGNATURE = re.compile(
    rb'\?(?:[^"\\\s<>|)]*&)?(?:X-Amz-Signature=|X-Goog-Signature=|Signature=|sig=|t=xox[a-z]-)'
    rb'[^"\\\s<>|)]*'
)
_EXPIRY = re.compile(rb'"expiry_time":"[^"]*",(?="url":)')


class State(NamedTuple):
    """What has to differ for a new row."""

    content_hash: str | None
    metadata_hash: str | None
    is_deleted: bool


class Key(NamedTuple):
    """Where a version stands in time, in microseconds of Unix time."""

    observed_at: int
    source_updated_at: int


@dataclass(frozen=True)
class Resource:
    """A raw table, and which parts of a payload make a version.

    Paths are keys joined by dots; lists on the way are passed through. `**` before the last key
    means at any depth (`blocks.**.request_id`).

    Attributes:
        name: the table.
        volatile: paths that change without meaning anything: left out of both hashes.
        metadata: paths of permissions, container, URL and authors: in `metadata_hash`, not in
            `content_hash`.
        content: paths that alone are in `content_hash`, of an object that its source describes at
            length and in several ways; all paths where it is empty.
        swept: whether observations can be complete, so that absent objects are deleted ones.
    """

    name: str
    volatile: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    swept: bool = False

    def hashes(self, payload: Json) -> tuple[str, str]:
        """`content_hash` and `metadata_hash` of a payload.

        Raises:
            TypeError: it is nested more than 254 levels deep.
        """
        if self.content:
            content = {path: _at(payload, path.split(".")) for path in self.content}
        else:
            content = _without(payload, self._left_out) if self._left_out else payload
        if not self.metadata:
            return json_hash(content), NO_METADATA
        steady = _without(payload, self._volatile_metadata) if self._volatile_metadata else payload
        described = {path: _at(steady, path.split(".")) for path in self.metadata}
        return json_hash(content), json_hash(described)

    @cached_property
    def _left_out(self) -> _Tree:
        """What is not in the content."""
        volatile = (path for path in self.volatile if not self._is_metadata(path))
        return _tree((*volatile, *self.metadata))

    @cached_property
    def _volatile_metadata(self) -> _Tree:
        """What is in none of the hashes although the metadata hold it: a picture's address."""
        return _tree(path for path in self.volatile if self._is_metadata(path))

    def _is_metadata(self, path: str) -> bool:
        return any(path.startswith(f"{metadata}.") for metadata in self.metadata)


_CONTAINERS = (dict, list)
# Keys of a payload that are left out (those without branches), or looked into.
_Tree = Mapping[str, "_Tree"]


def _tree(paths: Iterable[str]) -> _Tree:
    tree: dict[str, Any] = {}
    for path in paths:
        branch = tree
        for key in path.split("."):
            branch = branch.setdefault(key, {})
    return tree


def canonical_json(value: Json) -> bytes:
    """A JSON value as UTF-8 bytes: keys sorted, no blanks, signatures cut from URLs.

    Raises:
        TypeError: it is nested more than 254 levels deep.
    """
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if b"expiry_time" in text:
        text = _EXPIRY.sub(b"", text)
    if b"ignature=" in text or b"sig=" in text or b"t=xox" in text:
        text = _SIGNATURE.sub(b"", text)
    return text


def json_hash(value: Json) -> str:
    """SHA-256 of the canonical JSON, in lower-case hex."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


NO_METADATA = json_hash({})


def row_id(
    table: str,
    external_id: str,
    content_hash: str | None,
    metadata_hash: str | None,
    is_deleted: bool,
    observed_at: int,
    source_updated_at: int,
    repetition: int = 0,
) -> str:
    """A raw row's `_dlt_id`: the same whenever the same version is landed.

    Args:
        table: `source.resource`.
        external_id: the object's id.
        content_hash: of the version, as `metadata_hash` and `is_deleted`.
        metadata_hash: see there.
        is_deleted: see there.
        observed_at: in microseconds of Unix time, as `source_updated_at`.
        source_updated_at: see there.
        repetition: how many equal rows the object has at the very same time (A → B → A within one
            observation).
    """
    return hashlib.sha256(
        f"{table}\x1f{external_id}\x1f{content_hash}\x1f{metadata_hash}\x1f{is_deleted:d}\x1f"
        f"{observed_at}\x1f{source_updated_at}\x1f{repetition}".encode()
    ).hexdigest()


def microseconds(moment: datetime | None) -> int:
    """Unix time in microseconds; a moment without a zone is UTC, none is before all others."""
    if moment is None:
        return ABSENT_TIME
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _without(value: Json, left_out: _Tree) -> Json:
    if isinstance(value, list):
        return [_without(item, left_out) for item in value]
    if not isinstance(value, dict):
        return value
    if anywhere := left_out.get("**"):
        return _without_anywhere(value, anywhere)
    return {
        key: _without(item, left_out[key]) if key in left_out else item
        for key, item in value.items()
        if left_out.get(key) != {}
    }


def _without_anywhere(value: Json, names: _Tree) -> Json:
    # Most values are scalars: a call for each would be half of the time of a load.
    if type(value) is dict:
        return {
            key: _without_anywhere(item, names) if type(item) in _CONTAINERS else item
            for key, item in value.items()
            if key not in names
        }
    if type(value) is list:
        return [
            _without_anywhere(item, names) if type(item) in _CONTAINERS else item for item in value
        ]
    return value


def _at(value: Json, path: list[str]) -> Json:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value
