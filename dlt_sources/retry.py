"""Landing again what was set aside: each kept input is read by itself, as its source reads a file.

The bytes are those that were received; nothing is edited. What has changed since is the code, a
contract, or what else is landed. What passes lands as of the moment when it was observed, so that
it never outranks what was seen later.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Literal

import orjson
import pyarrow as pa
from psycopg import Connection

from dlt_sources.json_files import EXPORT_FILE
from dlt_sources.landing import Landing
from dlt_sources.pipeline import (
    PACKAGE_BYTES,
    SOURCES,
    STORED_SOURCES,
    land_pending,
    land_tables,
    read_whole,
)
from dlt_sources.quarantine import Reject
from dlt_sources.slack.settings import CONVERSATION_LISTS, USER_LISTS
from dlt_sources.slices import Observation
from dlt_sources.versions import Resource
from loreline.errors import LorelineError
from loreline.lake.duck import rows_if_built
from loreline.operations.quarantine import Kept, content, kept, leave, stay
from loreline.postgres import connect
from loreline.settings import Settings

# How rows that break a contract are set aside: as they would have landed.
CONTRACT = "contract: "
# What was cut out of something larger, without which it says nothing.
NEVER_ALONE = {
    "missing_children": "a page needs its blocks, which another export may bring with it",
    "missing_page": "blocks need their page, which another export may bring with them",
    "missing_nodes": "it needs the rest of its list, which another export may bring with it",
    "record_too_large": "it is a piece of a record that is too large",
    "broken_archive": "it is what is left of a file that breaks off",
    "unreadable_file": "the file was not read; landing its folder again tries it",
}
# Sources of which no record can be read without its file.
NEVER_ALONE_FROM = {
    "log_files": "a line of a log file stands between others; it has landed, with what is no text"
    " replaced",
}
RECORDS_AT_ONCE = 100
MAX_NAME_BYTES = 200

_ELEMENT = re.compile(r"(.*)\[\d+\]", re.DOTALL)
_LINE = re.compile(r"(.*):\d+", re.DOTALL)


@dataclass(frozen=True)
class Attempt:
    """What came of an input that was tried again.

    Attributes:
        kept: the input.
        outcome: landed; known, where what it says was landed by now, or is older than what was;
            failed, where it is no better than it was; or impossible, where it cannot be tried.
        detail: why it failed or is impossible.
    """

    kept: Kept
    outcome: Literal["landed", "known", "failed", "impossible"]
    detail: str = ""


class _Rejects:
    """What is rejected while one input is read, in the place of the quarantine."""

    def __init__(self) -> None:
        self.found: list[Reject] = []
        self.counts: Counter[str] = Counter()
        self.observed_at: datetime | None = None

    def add(self, reject: Reject, resource: str = "") -> None:
        self.found.append(reject)
        self.counts[reject.reason] += 1

    def flush(self) -> None:
        """Nothing is written: the input is in the quarantine already."""


def retry(
    settings: Settings,
    source: str,
    wanted: Sequence[str],
    progress: Callable[[str], None] | None = None,
) -> Counter[str]:
    """Try to land inputs of one source again.

    Args:
        settings: the stores.
        source: notion, slack, …
        wanted: fingerprints of what is set aside of it.
        progress: told in a line what goes on.

    Returns:
        How many inputs had each outcome. What landed or is known by now has left the quarantine;
        of the others the result is noted there.

    Raises:
        LorelineError: nothing of the source is landed from outside, or a store fails; what was
            landed before is settled.
    """
    if source not in SOURCES:
        raise LorelineError(
            f"what is set aside of {source} is not landed, so it cannot be landed again",
            "change what it was made from, and build again",
        )
    outcomes: Counter[str] = Counter()
    landed_by = "api" if source in STORED_SOURCES else "file"
    with (
        Landing(settings, source, landed_by=landed_by) as landing,
        connect(settings, autocommit=True) as connection,
    ):
        # Compared with less than that, an older version would land after a newer one.
        land_pending(landing)
        # Some inputs are no load of the source: nothing is missing from them.
        landing.told_complete = False
        base = landing.folder
        landing.quarantine = rejects = _Rejects()  # type: ignore[assignment]
        resources: set[str] = set()
        for attempts, tables in _packages(landing, rejects, base, wanted):
            resources.update(name for name, _ in tables)
            if tables:
                land_tables(landing, tables)
            _settle(connection, settings, attempts)
            outcomes.update(attempt.outcome for attempt in attempts)
            if progress:
                progress(f"{outcomes.total()} of {len(wanted)} tried, {outcomes['landed']} landed")
        landing.finish(sorted(resources))
    return outcomes


def resources_of(source: str) -> Mapping[str, Resource]:
    """The tables of a source by name, as the top level of its package names them."""
    found: dict[str, Resource] = {}
    for value in vars(import_module(f"dlt_sources.{source}")).values():
        for each in value.values() if isinstance(value, dict) else [value]:
            if isinstance(each, Resource):
                found[each.name] = each
    return found


def why_not(one: Kept) -> str:
    """Why an input cannot be read by itself; empty where it can."""
    if one.reason.startswith(CONTRACT):
        return ""
    return NEVER_ALONE.get(one.reason, NEVER_ALONE_FROM.get(one.source, ""))


def file_of(origin: str, raw: bytes) -> tuple[str, bytes]:
    """The name and content of a file that holds just this input, as if read from its origin.

    Args:
        origin: file, and `[element]` or `:line`; names in it are not trusted.
        raw: the bytes of the element or line, or of the file.
    """
    name, is_element = origin, False
    if match := _ELEMENT.fullmatch(name):
        name, is_element = match[1], True
    is_line = bool(match := _LINE.fullmatch(name))
    if match:
        name = match[1]
    parts = PurePosixPath(name.replace("\\", "/").removesuffix(".gz")).parts
    name = "/".join(_short(part) for part in parts if part not in ("/", "..")) or "record.json"
    if name == EXPORT_FILE:
        name = "record.json"
    suffixes = (".jsonl",) if is_line else (".json", ".jsonl")
    if (is_line or is_element) and not name.endswith(suffixes):
        name += suffixes[0]
    return name, b"[" + raw + b"]" if is_element else raw


def _short(part: str) -> str:
    """The end of a part of a path, as long as a file system takes it."""
    return part.encode()[-MAX_NAME_BYTES:].decode(errors="ignore")


def _packages(
    landing: Landing, rejects: _Rejects, base: Path, wanted: Sequence[str]
) -> Iterator[tuple[list[Attempt], list[tuple[str, pa.Table]]]]:
    """Attempts and the rows that they gave, as many as are to be landed at once."""
    for start in range(0, len(wanted), RECORDS_AT_ONCE):
        some = wanted[start : start + RECORDS_AT_ONCE]
        attempts: list[Attempt] = []
        tables: list[tuple[str, pa.Table]] = []
        for number, one in enumerate(kept(landing.settings, some)):
            attempt, rows = _tried(landing, rejects, one, base / f"retry-{number}")
            attempts.append(attempt)
            tables += rows
            if sum(table.nbytes for _, table in tables) >= PACKAGE_BYTES:
                yield attempts, tables
                attempts, tables = [], []
        yield attempts, tables


def _tried(
    landing: Landing, rejects: _Rejects, one: Kept, folder: Path
) -> tuple[Attempt, list[tuple[str, pa.Table]]]:
    """Read one input. Rows that it gives are to land, whatever else of it is rejected."""
    if why := why_not(one):
        return Attempt(one, "impossible", f"it cannot be read by itself: {why}"), []
    rejects.found.clear()
    summary = landing.summary
    rows, known = summary.rows, summary.unchanged + summary.outdated
    error: LorelineError | None = None
    try:
        if one.reason.startswith(CONTRACT):
            tables = list(_as_landed(landing, one))
        else:
            tables, error = _as_file(landing, one, folder)
    except LorelineError as raised:
        tables, error = [], raised
    if error or rejects.found:
        why = str(error) if error else "; ".join(f"{r.reason}: {r.detail}" for r in rejects.found)
        return Attempt(one, "failed", why), tables
    if summary.rows > rows:
        return Attempt(one, "landed"), tables
    if summary.unchanged + summary.outdated > known:
        return Attempt(one, "known"), tables
    return Attempt(one, "failed", "nothing in it is read any more"), tables


def _as_landed(landing: Landing, one: Kept) -> Iterator[tuple[str, pa.Table]]:
    """Rows of an object that had been read, and was refused for what it says."""
    resource = resources_of(one.source).get(one.resource)
    if resource is None or one.external_id is None:
        raise LorelineError(f"there is no table {one.source}.{one.resource} any more")
    observation = Observation(
        one.external_id,
        orjson.loads(content(landing.settings, one)),
        one.observed_at or one.landed_at,
        one.source_updated_at,
        origin=one.origin,
    )
    for table in landing.rows(resource, [observation]):
        yield resource.name, table


def _as_file(
    landing: Landing, one: Kept, folder: Path
) -> tuple[list[tuple[str, pa.Table]], LorelineError | None]:
    """Rows of a folder that holds just this input, and says that it is not all there is."""
    inputs = folder / "input"
    inputs.mkdir(parents=True)
    observed_at = one.observed_at or one.landed_at
    told = {"exported_at": observed_at.isoformat(), "complete": False}
    (inputs / EXPORT_FILE).write_text(json.dumps(told))
    name, written = file_of(one.origin, content(landing.settings, one))
    path = inputs / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(written)
    if one.source == "slack":
        _name_channel(landing, inputs, name)
    before = landing.folder
    landing.folder = folder
    try:
        source = SOURCES[one.source](inputs, observed_at, landing=landing)
        if one.source == "slack":
            # The list of channels is there for the sake of a message, and not to be landed.
            source = source.with_resources(one.resource)
        return read_whole(source)
    finally:
        landing.folder = before
        shutil.rmtree(folder)


def _name_channel(landing: Landing, inputs: Path, name: str) -> None:
    """Say of which channel a folder is, as the list of channels of an export does."""
    if name in {*CONVERSATION_LISTS, *USER_LISTS}:
        return
    rows = rows_if_built(
        landing.duckdb,
        f"""
        select external_id, json_extract_string(payload, '$.name')
        from lake.{landing.namespace}.channels
        where payload is not null
        qualify row_number() over (
            partition by external_id order by observed_at desc, _batch desc, landed_at desc
        ) = 1
        """,  # noqa: S608 - the name is our own
    )
    folder = name.partition("/")[0]
    found = [{"id": id_, "name": known} for id_, known in rows or [] if folder in (id_, known)]
    (inputs / "channels.json").write_text(json.dumps(found))


def _settle(connection: Connection, settings: Settings, attempts: Sequence[Attempt]) -> None:
    with connection.transaction():
        for outcome in ("landed", "known"):
            ids = [a.kept.fingerprint for a in attempts if a.outcome == outcome]
            if ids:
                leave(connection, settings, ids, outcome)
        results = {a.kept.fingerprint: a.detail for a in attempts if a.detail}
        stay(connection, settings, {id_: said[:2_000] for id_, said in results.items()})
