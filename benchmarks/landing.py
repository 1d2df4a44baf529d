"""Landing simple rows against bare pyiceberg: rows a second, and memory as their number grows.

    python -m benchmarks.landing [--rows 200000 1000000] [--json FILE]

The input is a Parquet file of simple rows (id, JSON of about 150 bytes, time). A load reads it as
Arrow, hashes every payload, compares every row with what is landed, and commits: first into an
empty table, then as many new rows beside those, then the same rows again. The reference is
pyiceberg's own `table.append` of the very raw rows that were landed, streamed in the same process.
Each size runs in a process of its own, whose highest resident memory is taken. The same rows as
JSON lines, parsed one by one, are shown beside. On a machine that others use too, time of the CPU
says more than rows a second: 10 µs a row are 100,000 rows/s of one core that is free.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dlt
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.sandbox import Measurement, arguments, show
from dlt_sources import load, pipeline
from dlt_sources.landing import Landing, raw_resource
from dlt_sources.versions import Resource, canonical_json
from loreline import postgres, stack
from loreline.lake.catalog import load_catalog
from loreline.settings import Settings

BATCH_ROWS = 20_000
NOON = datetime(2026, 10, 1, 12, tzinfo=UTC)
LINES = Resource("lines")
TEXT = "connection pool exhausted after 30 s waiting, retrying in the background with a new lease"


def write_rows(path: Path, first: int, count: int) -> Path:
    """Simple rows as Parquet, with ids from `first` on; as JSON lines of events beside it."""
    schema = pa.schema(
        {
            "external_id": pa.string(),
            "payload": pa.string(),
            "observed_at": pa.timestamp("us", "UTC"),
            "source_updated_at": pa.timestamp("us", "UTC"),
        }
    )
    with pq.ParquetWriter(path, schema) as parquet, path.with_suffix(".jsonl").open("wb") as lines:
        for start in range(first, first + count, BATCH_ROWS):
            numbers = range(start, min(start + BATCH_ROWS, first + count))
            values = [
                {
                    "host": f"web-{n % 40}",
                    "level": "warning",
                    "n": n,
                    "service": "till",
                    "text": TEXT,
                }
                for n in numbers
            ]
            columns = {
                "external_id": [f"till/{n}" for n in numbers],
                "payload": [canonical_json(value).decode() for value in values],
                "observed_at": [NOON] * len(numbers),
                "source_updated_at": [NOON - timedelta(milliseconds=n) for n in numbers],
            }
            parquet.write_table(pa.table(columns, schema=schema))
            for value in values:
                lines.write(orjson.dumps({"type": "log", "data": value}) + b"\n")
    return path


def tables(path: Path) -> Iterator[pa.Table]:
    """The rows of a file, a slice at a time."""
    for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS):
        yield pa.Table.from_batches([batch])


@dlt.source(name="simple")
def simple(location: Path, observed_at: datetime | None, landing: Landing) -> object:
    """Simple rows from a Parquet file."""
    return raw_resource(landing.rows(LINES, tables(location)), LINES.name)


def bare_append(settings: Settings, rows: Path) -> float:
    """Seconds that pyiceberg needs to append the rows of a file to a table of its own."""
    file = pq.ParquetFile(rows)
    catalog = load_catalog(settings)
    catalog.create_namespace_if_not_exists(f"{settings.prefix}bare")
    table = catalog.create_table(f"{settings.prefix}bare.t{uuid.uuid4().hex}", file.schema_arrow)
    started = time.perf_counter()
    table.append(
        pa.RecordBatchReader.from_batches(file.schema_arrow, file.iter_batches(BATCH_ROWS))
    )
    return time.perf_counter() - started


def landed_rows(settings: Settings, path: Path, count: int) -> Path:
    """The newest landed rows as a Parquet file."""
    table = load_catalog(settings).load_table(f"{settings.prefix}raw_simple.lines")
    reader = table.scan(limit=count).to_arrow_batch_reader()
    with pq.ParquetWriter(path, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch)
    return path


def measure(settings: Settings, folder: Path, count: int) -> dict[str, float]:
    """Rows a second of each step, and the highest resident memory of the landing in MB."""
    pipeline.SOURCES["simple"] = simple
    old = write_rows(folder / f"old{count}.parquet", 0, count)
    new = write_rows(folder / f"new{count}.parquet", count, count)
    # Imports, connections and the first compilation of everything are not what grows with rows.
    load(settings, "simple", write_rows(folder / "first.parquet", 10**9, 100))

    figures: dict[str, float] = {}

    def rate(source: str, location: Path, landed: int) -> float:
        started, worked = time.perf_counter(), time.process_time()
        summary = load(settings, source, location, again=True)
        assert summary.rows == landed, summary
        figures["cpu"] = (time.process_time() - worked) / count * 1e6
        return count / (time.perf_counter() - started)

    figures["empty"] = rate("simple", old, count)
    figures["beside"] = rate("simple", new, count)
    figures["cpu beside"] = figures["cpu"]
    figures["again"] = rate("simple", new, 0)
    figures["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["json"] = rate("gateway", new.with_suffix(".jsonl"), count)
    rows = landed_rows(settings, folder / f"landed{count}.parquet", count)
    bare_append(settings, rows)
    figures["bare"] = count / bare_append(settings, rows)
    return figures


def in_a_process(home: Path, count: int) -> dict[str, float]:
    """The figures for a number of rows, from a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.landing", "--child", str(home), "--rows"]
    finished = subprocess.run([*command, str(count)], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(finished.stdout.splitlines()[-1])


def child(home: Path, count: int) -> None:
    """Measure one size and print the figures."""
    variables = json.loads((home / "stack.json").read_text())["variables"]
    names = {f.metadata["variable"]: f.name for f in dataclasses.fields(Settings)}
    given = {names[name]: value for name, value in variables.items()}
    settings = Settings(
        **given, target="ci", namespace_suffix=f"rows{count}", state_folder=str(home / str(count))
    )
    postgres.upgrade(settings)
    with tempfile.TemporaryDirectory(dir=home) as folder:
        print(json.dumps(measure(settings, Path(folder), count)))


def measurements(sizes: list[int], figures: list[dict[str, float]]) -> Iterator[Measurement]:
    """The figures beside their references."""
    steps = {
        "empty": "into an empty table",
        "beside": "beside as many",
        "again": "again, nothing new",
    }
    for size, found in zip(sizes, figures, strict=True):
        for step, name in steps.items():
            yield Measurement(f"{size:,} rows {name}, rows/s", found[step], None, 100_000)
        yield Measurement(
            f"{size:,} rows beside as many, µs of CPU a row", found["cpu beside"], None, 10, True
        )
        yield Measurement(f"{size:,} rows, to bare pyiceberg", found["beside"], found["bare"])
        yield Measurement(f"{size:,} JSON lines, rows/s", found["json"])
    smallest, largest = figures[0]["peak_mb"], figures[-1]["peak_mb"]
    yield Measurement(
        f"peak memory, {sizes[-1]:,} rows to {sizes[0]:,}, MB", largest, smallest, 1.25, True
    )


def main() -> None:
    """Run the benchmark."""
    parser: argparse.ArgumentParser = arguments(__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.rows[0])
        return
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder)
        stack.up(home)
        try:
            figures = [in_a_process(home, count) for count in options.rows]
        finally:
            stack.down(home)
    show("Landing", list(measurements(options.rows, figures)), options.json)


if __name__ == "__main__":
    main()
