"""Which inputs were landed to their end, so that the same bytes are not read again."""

from __future__ import annotations

import hashlib
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from psycopg.sql import SQL, Identifier
from psycopg.types.json import Jsonb

from dlt_sources.json_files import EXPORT_FILE
from dlt_sources.landing import Landing
from loreline import __version__
from loreline.lake.catalog import find_table, load_catalog


def fingerprint(
    location: Path, observed_at: datetime | None, options: dict[str, Any], contracts: str = ""
) -> str:
    """SHA-256 of all that decides what a load makes of files: bytes, time, options, version.

    Among them is what the source's contracts say, as `contracts`: a row that one of them refused is
    landed once the contract allows it.

    Where nothing says when the input was exported, that is told by the files' modification times,
    which then count too.
    """
    digest = hashlib.sha256(
        repr((__version__, observed_at, sorted(options.items()), contracts)).encode()
    )
    is_dated = observed_at is not None or (location / EXPORT_FILE).is_file()
    paths = sorted(location.rglob("*")) if location.is_dir() else [location]
    for path in paths:
        if not path.is_file():
            continue
        name = path.relative_to(location) if path != location else path.name
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        changed = "" if is_dated else path.stat().st_mtime_ns
        digest.update(f"{name}\0{content}\0{changed}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def was_landed(landing: Landing, input_fingerprint: str) -> bool:
    """Whether this input was landed before; the load's summary then says what it said.

    A record without the tables that the source once filled is not believed.
    """
    row = landing.postgres.execute(
        SQL("select objects, quarantined from {} where source = %s and fingerprint = %s").format(
            _table(landing)
        ),
        (landing.source, input_fingerprint),
    ).fetchone()
    if row is None or not tables_exist(landing):
        return False
    landing.summary.unchanged, quarantined = row
    landing.summary.quarantined = Counter(quarantined)
    return True


def remember(landing: Landing, input_fingerprint: str) -> None:
    """Record that this input was landed to its end."""
    summary = landing.summary
    landing.postgres.execute(
        SQL(
            "insert into {} (source, fingerprint, objects, quarantined) values (%s, %s, %s, %s)"
            " on conflict (source, fingerprint) do nothing"
        ).format(_table(landing)),
        (
            landing.source,
            input_fingerprint,
            summary.rows + summary.unchanged + summary.outdated,
            Jsonb(dict(summary.quarantined)),
        ),
    )


def tables_exist(landing: Landing) -> bool:
    """Whether the tables that the source once filled are still there."""
    query = SQL("select resource from {} where source = %s").format(
        _table(landing, "source_freshness")
    )
    resources = landing.postgres.execute(query, (landing.source,)).fetchall()
    catalog = load_catalog(landing.settings)
    return all(find_table(catalog, f"{landing.namespace}.{name}") for (name,) in resources)


def _table(landing: Landing, name: str = "landed_inputs") -> Identifier:
    return Identifier(f"{landing.settings.prefix}operations", name)
