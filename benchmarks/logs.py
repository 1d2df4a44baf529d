"""Log files: lines a second from files to templates, and memory as their number grows.

    python -m benchmarks.logs [--lines 2000000 8000000] [--json FILE]

The input is a text log and a log of JSON lines, two thirds and one third of the lines, of some 110
and 180 bytes. They are landed, and read, masked and counted by dbt; then a thousand lines more are.
Landing and building are a process each, without their start: what is measured is the load, and what
dbt says of its models. The reference is DuckDB alone, which in the same run reads the same files as
lines and looks for the time of each. On a machine that others use too, time of the CPU says more
than lines a second: 10 µs a line are 200,000 lines/s of two cores that are free.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.process import ROOT
from benchmarks.sandbox import Measurement, arguments, show

SELECTION = [
    "stg_log_files__line_counts",
    "log_windows",
    "log_templates",
    "log_unread_lines",
    "log_bursts",
    "log_documents",
]
SEEDS = ["log_formats", "log_levels", "log_masks"]
START = datetime(2026, 9, 17, tzinfo=UTC)
MORE_LINES = 1_000


def messages(chance: random.Random) -> Iterator[str]:
    """Messages of eight templates, without end."""
    while True:
        n = chance.getrandbits(40)
        yield from (
            f"payment attempt {n % 3 + 1} of 3 failed: timeout after {n % 9000} ms",
            f"order {n % 10**7} placed by customer c-{n:010x} total {n % 9999 / 100}",
            f"GET /baskets/{n % 99999}/items 200 in {n % 400}ms from 10.0.{n % 255}.{n % 251}",
            f"lease {n:010x}{n:010x}{n:012x} renewed until 2026-09-17T{n % 24:02}:10:00Z",
            "cache warmed",
            f'user "u{n}@example.com" logged in',
            f"queue depth {n % 1000}, oldest {n % 60}.{n % 9}s",
            f"shard {n % 16} moved to /data/{n % 64}/segments/{n:010x}.idx",
        )


def write_logs(folder: Path, first: int, count: int) -> None:
    """Two logs of `count` lines, at a hundred lines a second from line number `first` on."""
    folder.mkdir()
    chance = random.Random(first)
    said = messages(chance)
    with (
        (folder / f"till{first}.log").open("w") as text,
        (folder / f"gatehouse{first}.jsonl").open("w") as lines,
    ):
        for n in range(first, first + count):
            moment = START + timedelta(milliseconds=10 * n)
            stamp = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
            level = ("INFO", "INFO", "INFO", "WARN", "ERROR")[n % 5]
            if n % 3:
                request = f"req-{n % 16**6:06x}"
                text.write(f"{stamp} {level:<5} till [{request}] {next(said)}\n")
            else:
                event = {"ts": stamp, "level": level.lower(), "service": "gatehouse"}
                event |= {"msg": next(said), "duration_ms": n % 3000}
                lines.write(json.dumps(event) + "\n")


def land(folder: str) -> dict[str, Any]:
    """Land a folder's logs in this process; importing what judges them is of its start."""
    from dlt_sources import load
    from loreline.contracts import suite
    from loreline.settings import Settings

    suite.context()
    started, worked = time.perf_counter(), time.process_time()
    summary = load(Settings.load(), "log_files", folder)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    return {"seconds": seconds, "cpu": cpu, "rows": summary.rows}


def build() -> dict[str, Any]:
    """Build the models of logs in this process; seconds are those of dbt's nodes."""
    from dbt.cli.main import dbtRunner

    def dbt(*given: str) -> Any:
        places = ["--project-dir", str(ROOT), "--profiles-dir", str(ROOT), "--quiet"]
        outcome = dbtRunner().invoke([*given, *places])
        if not outcome.success:
            said = [result.message for result in outcome.result or () if result.status != "success"]
            sys.exit(f"dbt failed: {outcome.exception or said}")
        return outcome.result.results

    dbt("seed", "--select", *SEEDS)
    worked = time.process_time()
    results = dbt("run", "--select", *SELECTION)
    cpu = time.process_time() - worked
    return {"seconds": sum(result.execution_time for result in results), "cpu": cpu}


def bare(folder: str) -> dict[str, Any]:
    """DuckDB alone over the same files: each line, and whether there is a time in it."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("set threads = 2")
        started, worked = time.perf_counter(), time.process_time()
        connection.execute(
            "select count(*) from read_csv(?, header = false, delim = '\x01', quote = '',"
            " escape = '', columns = {'line': 'varchar'})"
            r" where regexp_matches(line, '\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d')",
            [f"{folder}/*"],
        ).fetchall()
        return {
            "seconds": time.perf_counter() - started,
            "cpu": time.process_time() - worked,
        }


STEPS = {"land": land, "build": build, "bare": bare}


def step(environment: dict[str, str], *given: str) -> dict[str, Any]:
    """What a step measured of itself, in a process that does nothing else; its peak memory."""
    command = [sys.executable, "-m", "benchmarks.logs", "--step", *given]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def scenario(count: int, workspace: Path) -> dict[str, dict[str, Any]]:
    """Land and build so many lines, then a thousand more, in a stack of its own."""
    from loreline.stack import down, up

    home = workspace / f"home-{count}"
    target = str(home / "dbt")
    environment = {**os.environ, "LORELINE_HOME": str(home), "LORELINE_TARGET": "local"}
    environment |= {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target}
    logs, more = workspace / f"logs-{count}", workspace / f"more-{count}"
    write_logs(logs, 0, count)
    write_logs(more, count, MORE_LINES)
    up(home)
    try:
        return {
            "bare": step(environment, "bare", str(logs)),
            "land": step(environment, "land", str(logs)),
            "again": step(environment, "land", str(logs)),
            "build": step(environment, "build"),
            "land more": step(environment, "land", str(more)),
            "build more": step(environment, "build"),
        }
    finally:
        down(home)


def measurements(
    sizes: list[int], figures: list[dict[str, dict[str, Any]]]
) -> Iterator[Measurement]:
    """The figures beside their references."""
    for size, found in zip(sizes, figures, strict=True):
        both = [found["land"], found["build"]]
        cpu = sum(one["cpu"] for one in both) / size * 1e6
        yield Measurement(
            f"{size:,} lines landed and templated, lines/s",
            size / sum(one["seconds"] for one in both),
            None,
            # What is made once, such as the first tables, takes some four seconds.
            200_000 if size == max(sizes) else None,
        )
        yield Measurement(f"{size:,}: µs of CPU a line, both", cpu, None, 10, True)
        for name in ("land", "build"):
            yield Measurement(
                f"{size:,}: µs of CPU a line, {name}", found[name]["cpu"] / size * 1e6
            )
        yield Measurement(
            f"{size:,}: lines/s to bare DuckDB reading and looking for a time",
            size / sum(one["seconds"] for one in both),
            size / found["bare"]["seconds"],
        )
        yield Measurement(f"{size:,}: landed again, s", found["again"]["seconds"])
        yield Measurement(
            f"{size:,}: {MORE_LINES:,} more, s of dbt", found["build more"]["seconds"]
        )
    for name in ("land", "build"):
        yield Measurement(
            f"peak memory of {name}, {sizes[-1]:,} lines to {sizes[0]:,}, MB",
            figures[-1][name]["peak_mb"],
            figures[0][name]["peak_mb"],
            1.25,
            True,
        )


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--lines", type=int, nargs="+", default=[2_000_000, 8_000_000])
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        name, *given = options.step
        measured = STEPS[name](*given)
        measured["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(measured))
        return
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        figures = [scenario(count, Path(folder)) for count in options.lines]
    show("Log files", list(measurements(options.lines, figures)), options.json)


if __name__ == "__main__":
    main()
