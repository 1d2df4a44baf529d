"""Documents and the metadata of files, told apart among the records of an export."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dlt_sources.google_docs.settings import DOCUMENTS, FILES
from dlt_sources.json_files import Record, read_file
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation

Json = dict[str, Any]

_FILE = "drive#file"
_WITH_SUGGESTIONS = "PREVIEW_SUGGESTIONS_ACCEPTED"
# The fields of a document that models and this package read, and what they are.
_DOCUMENT_TYPES = {"title": str, "tabs": list, "body": dict, "suggestionsViewMode": str}


class Objects:
    """The objects of one export.

    After a table has been read to its end, `unreadable`, `is_whole` and `told`, the tables that it
    says anything of, tell what the export covers.

    Args:
        files: what to read, each with its name for messages.
        observed_at: when the export was made.
    """

    def __init__(self, files: Sequence[tuple[Path, str]], observed_at: datetime) -> None:
        self.files = files
        self.observed_at = observed_at
        self.unreadable: set[str] = set()
        self.is_whole = True
        self.told: set[str] = set()

    def documents(self) -> Iterator[Observation | Reject]:
        """Documents, and every record that is neither a document nor a file's metadata."""
        return self._of(DOCUMENTS.name)

    def metadata(self) -> Iterator[Observation | Reject]:
        """The metadata of files of any kind."""
        return self._of(FILES.name)

    def _of(self, table: str) -> Iterator[Observation | Reject]:
        for item in self._all():
            if isinstance(item, Reject):
                if item.external_id:
                    self.unreadable.add(item.external_id)
                    self.told.add(item.resource)
                else:
                    self.is_whole = False
                if (item.resource or DOCUMENTS.name) == table:
                    yield item
            else:
                self.told.add(item[0])
                if item[0] == table:
                    yield item[1]

    def _all(self) -> Iterator[tuple[str, Observation] | Reject]:
        """Every record with the table that it belongs to."""
        answers = last_answers = 0
        for path, name in self.files:
            for document in read_file(path, name, "files"):
                if isinstance(document, Reject):
                    yield document
                    continue
                if document.is_list:
                    self.told.add(FILES.name)
                    answers += 1
                    last_answers += not document.header.get("nextPageToken")
                    if document.header.get("incompleteSearch") or document.header.get("has_more"):
                        self.is_whole = False
                for record in document.records:
                    yield record if isinstance(record, Reject) else self._told(record)
        if answers and not last_answers:
            self.is_whole = False

    def _told(self, record: Record) -> tuple[str, Observation] | Reject:
        value = record.value
        if not isinstance(value, dict):
            return record.reject("wrong_type", f"an object is expected, not {type(value).__name__}")
        if "documentId" in value:
            return document_seen(record, self.observed_at)
        if value.get("kind") == _FILE or "mimeType" in value:
            return file_seen(record, self.observed_at)
        return record.reject(
            "wrong_type", "it is neither a document (documentId) nor a file (kind, mimeType)"
        )


def document_seen(record: Record, observed_at: datetime) -> tuple[str, Observation] | Reject:
    """An answer of `documents.get`, from a file or from the API."""
    value = record.value
    identity = value["documentId"]
    if problem := _wrong_identity(identity) or _wrong_type(value, _DOCUMENT_TYPES):
        return _rejected(record, problem, DOCUMENTS.name, identity)
    if value.get("suggestionsViewMode") == _WITH_SUGGESTIONS:
        problem = "wrong_type", "its suggestions are shown as if they were accepted"
        return _rejected(record, problem, DOCUMENTS.name, identity)
    if not value.get("tabs") and not value.get("body"):
        problem = (
            "wrong_type",
            "it has neither tabs nor a body: fetch it with all of its fields",
        )
        return _rejected(record, problem, DOCUMENTS.name, identity)
    return DOCUMENTS.name, Observation(
        identity, value, observed_at, raw=record.raw, origin=record.origin
    )


def file_seen(record: Record, observed_at: datetime) -> tuple[str, Observation] | Reject:
    """A file of the Drive API: its metadata say who may read it, so they land whatever they hold.

    What had been set aside would leave those in force that came before; staging takes what it
    cannot read for a no, and the contract reports it.
    """
    value = record.value
    identity = value.get("id")
    if problem := _wrong_identity(identity):
        return _rejected(record, problem, FILES.name, identity)
    return FILES.name, Observation(
        identity,
        value,
        observed_at,
        _time(value.get("modifiedTime")),
        is_deleted=value.get("trashed") is True,
        raw=record.raw,
        origin=record.origin,
    )


def _rejected(record: Record, problem: tuple[str, str], table: str, identity: Any) -> Reject:
    known = identity if isinstance(identity, str) and identity else None
    return record.reject(*problem, resource=table, external_id=known)


def _wrong_identity(identity: Any) -> tuple[str, str] | None:
    if not identity:
        return "missing_id", "it has no id"
    if not isinstance(identity, str):
        return "wrong_type", f"the id is {identity!r}, not text"
    return None


def _wrong_type(value: Json, types: dict[str, type]) -> tuple[str, str] | None:
    for name, kind in types.items():
        if value.get(name) is not None and not isinstance(value[name], kind):
            return "wrong_type", f"{name} is {type(value[name]).__name__}, not {kind.__name__}"
    return None


def _time(text: Any) -> datetime | None:
    """A time in ISO 8601; None where it is none."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
