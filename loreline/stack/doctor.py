"""Look at everything that a build needs, and say what to do about what is missing."""

from __future__ import annotations

import csv
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import duckdb

from loreline import postgres
from loreline.embedding import model_folder
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.catalog import load_catalog
from loreline.settings import PROJECT_ROOT, Settings

EMBEDDING_MODELS = PROJECT_ROOT / "seeds" / "embedding_models.csv"

_GIGABYTE = 1 << 30
_LEAST_FREE_BYTES = 2 * _GIGABYTE
_OLDEST_VECTOR = (0, 8)  # iterative index scans
# Versions are ordered by time, and S3 refuses a request whose time is 15 minutes off.
_MOST_CLOCK_SKEW_SECONDS = 5.0
_TEXT_OF_PROBE = b"loreline doctor"


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        name: what was looked at.
        ok: whether a build would get along with it.
        detail: what was found, or what is wrong.
        next_step: what to do; empty when `ok`.
    """

    name: str
    ok: bool
    detail: str
    next_step: str = ""


def checks(settings: Settings) -> list[Check]:
    """Look at everything, however much of it fails."""
    examinations: dict[str, Callable[[], str]] = {
        "Python": _python,
        "DuckDB extensions": partial(_duckdb_extensions, settings),
        "disk space": partial(_disk_space, settings),
        "object store": partial(_object_store, settings),
        "Iceberg catalog": partial(_catalog, settings),
        "Postgres": partial(_postgres, settings),
        "schema": partial(_schema, settings),
        "clock": partial(_clock, settings),
        "embedding model": partial(_embedding_model, settings),
    }
    return [_check(name, examine) for name, examine in examinations.items()]


def _check(name: str, examine: Callable[[], str]) -> Check:
    try:
        return Check(name, ok=True, detail=examine())
    except LorelineError as error:
        return Check(name, ok=False, detail=error.what, next_step=error.next_step)


def _python() -> str:
    return f"{platform.python_version()}, {sys.executable}"


def _duckdb_extensions(settings: Settings) -> str:
    with duckdb.connect() as connection:
        for statement in duck.load_statements(settings):
            try:
                connection.execute(statement)
            except duckdb.Error as error:
                raise LorelineError(
                    f"DuckDB {duckdb.__version__} refused `{statement}` ({_first_line(error)})",
                    "install the matching ones with `pip install -r requirements.lock`",
                ) from error
    return f"{', '.join(duck.EXTENSIONS)} of {duckdb.__version__}"


def _disk_space(settings: Settings) -> str:
    home = settings.home.absolute()
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < _LEAST_FREE_BYTES:
        raise LorelineError(
            f"{free / _GIGABYTE:.1f} GB free in {home}",
            "free some, or set LORELINE_HOME to a larger disk",
        )
    return f"{free / _GIGABYTE:.0f} GB free in {home}"


def _object_store(settings: Settings) -> str:
    from pyarrow.fs import S3FileSystem

    settings.require_stores()
    store = S3FileSystem(
        endpoint_override=settings.s3_endpoint,
        region=settings.s3_region,
        access_key=settings.s3_access_key_id,
        secret_key=settings.s3_secret_access_key,
        connect_timeout=5,
        request_timeout=10,
    )
    landing = urlsplit(settings.landing_url)
    path = f"{landing.netloc}{landing.path}".rstrip("/") + f"/.doctor-{uuid4().hex}"
    begin = time.perf_counter()
    try:
        with store.open_output_stream(path) as file:
            file.write(_TEXT_OF_PROBE)
        with store.open_input_stream(path) as file:
            read = file.read()
        store.delete_file(path)
    except OSError as error:
        raise LorelineError(
            f"{settings.landing_url} at {settings.s3_endpoint} cannot be written and read "
            f"({_first_line(error)})",
            "start the local stack with `loreline up`, or check LORELINE_S3_… and "
            "LORELINE_LANDING_URL",
        ) from error
    if read != _TEXT_OF_PROBE:
        raise LorelineError(
            f"{settings.landing_url} gave back other bytes than were written",
            f"look at what answers at {settings.s3_endpoint}",
        )
    milliseconds = (time.perf_counter() - begin) * 1000
    return f"{settings.landing_url}: written, read and deleted in {milliseconds:.0f} ms"


def _catalog(settings: Settings) -> str:
    from pyiceberg.exceptions import RESTError

    try:
        namespaces = len(load_catalog(settings).list_namespaces())
    except (OSError, RESTError) as error:
        raise LorelineError(
            f"Iceberg catalog at {settings.catalog_uri} does not list warehouse "
            f"{settings.catalog_warehouse} ({_first_line(error)})",
            "check LORELINE_CATALOG_WAREHOUSE and LORELINE_CATALOG_CREDENTIAL",
        ) from error
    return f"{namespaces} namespaces in {settings.catalog_warehouse} at {settings.catalog_uri}"


def _postgres(settings: Settings) -> str:
    with postgres.connect(settings) as connection:
        query = "select default_version from pg_available_extensions where name = 'vector'"
        found = connection.execute(query).fetchone()
        version = connection.info.parameter_status("server_version")
    if found is None:
        raise LorelineError(
            f"Postgres {version} has no pgvector", "install its package on the server"
        )
    if tuple(int(part) for part in found[0].split(".")[:2]) < _OLDEST_VECTOR:
        raise LorelineError(f"pgvector {found[0]} is too old", "install 0.8 or later on the server")
    return f"{version} with pgvector {found[0]}"


def _schema(settings: Settings) -> str:
    postgres.check_schema(settings)
    return f"version {len(postgres.available_migrations())}"


def _clock(settings: Settings) -> str:
    with postgres.connect(settings, autocommit=True) as connection:
        row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    skew = abs((datetime.now(UTC) - row[0]).total_seconds())
    if skew > _MOST_CLOCK_SKEW_SECONDS:
        raise LorelineError(
            f"this machine and Postgres differ by {skew:.0f} s", "let NTP set both clocks"
        )
    return f"within {max(skew, 0.1):.1f} s of Postgres"


def _embedding_model(settings: Settings) -> str:
    from huggingface_hub import try_to_load_from_cache

    with EMBEDDING_MODELS.open(newline="") as file:
        models = [row["model"] for row in csv.DictReader(file) if row["status"] == "served"]
    missing = [
        model
        for model in models
        if not Path(model_folder(model, settings)).is_dir()
        and not isinstance(try_to_load_from_cache(model, "config.json"), str)
    ]
    if missing:
        raise LorelineError(
            f"{', '.join(missing)} not on this machine",
            "the first build downloads it from the hub; or set LORELINE_MODEL_PATH to a folder "
            "that has it",
        )
    return ", ".join(models)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
