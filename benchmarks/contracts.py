"""What judging rows by their contract adds to landing them: the same rows with and without.

    python -m benchmarks.contracts [--rows 300000] [--rounds 5] [--json FILE]

Two kinds of rows: simple ones in bulk, as in `benchmarks.landing`, whose landing costs least, and
the sample workspace's events as JSON lines, judged by the 44 rules of the gateway's contract.
Rounds with and without a contract take turns; each lands rows that were not there before. Great
Expectations is imported in a load before: that takes its two seconds once in a process, as the
last line says. Time of the CPU is what is compared, of all threads; what passes is shown beside. Of
each, the round counts that was disturbed least.
"""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import orjson

from benchmarks.landing import simple, write_rows
from benchmarks.sandbox import Measurement, arguments, show
from dlt_sources import load, pipeline
from loreline import postgres, stack
from loreline.settings import PROJECT_ROOT, Settings

MOST = 1.25
# Events are as many times fewer as they are larger.
EVENTS_SHARE = 5
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: raw_simple.lines
version: 1.0.0
status: active
schema:
  - name: lines
    physicalName: raw_simple.lines
    properties:
      - {name: host, logicalType: string, required: true}
      - name: level
        logicalType: string
        required: true
        quality:
          - {metric: invalidValues, mustBe: 0, arguments: {validValues: [info, warning, error]}}
      - {name: n, logicalType: integer, required: true}
      - {name: service, logicalType: string, required: true}
      - {name: text, logicalType: string, required: true}
    quality:
      - type: custom
        engine: loreline
        implementation:
          volumeChange: {most: 1000000}
"""


def write_events(path: Path, first: int, count: int) -> Path:
    """Events as the sample workspace has them, over and over, each with an id of its own."""
    sample = PROJECT_ROOT / "sample_workspace" / "day_one" / "gateway" / "events.jsonl"
    events = [orjson.loads(line) for line in sample.read_bytes().splitlines()]
    with path.open("wb") as written:
        for n in range(count):
            event = events[n % len(events)] | {"id": f"event-{first + n}"}
            written.write(orjson.dumps(event) + b"\n")
    return path


def measured(settings: Settings, source: str, location: Path, count: int) -> tuple[float, float]:
    """Seconds of CPU and of the clock that a load takes."""
    started, worked = time.perf_counter(), time.process_time()
    summary = load(settings, source, location)
    assert (summary.rows, summary.broken, summary.new_fields) == (count, [], {}), summary
    return time.process_time() - worked, time.perf_counter() - started


def measure(settings: Settings, folder: Path, count: int, rounds: int) -> Iterator[Measurement]:
    """Each kind of rows, with and without a contract."""
    pipeline.SOURCES["simple"] = simple
    with_contracts = folder / "contracts"
    with_contracts.mkdir()
    (with_contracts / "raw_simple.lines.odcs.yaml").write_text(CONTRACT)
    gateway = settings.contracts_folder / "raw_gateway.events.odcs.yaml"
    # The first, small load is not what the others are measured by.
    any_number = re.sub(r"volumeChange: .*", "volumeChange: {most: 1000000}", gateway.read_text())
    (with_contracts / gateway.name).write_text(any_number)
    checked = dataclasses.replace(settings, contracts=str(with_contracts))
    unchecked = dataclasses.replace(settings, contracts=str(folder))
    ways = {"without": unchecked, "with": checked}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    first = 10**9
    for turn in range(-1, rounds):
        rows = count if turn >= 0 else 100
        for way in sorted(ways, reverse=bool(turn % 2)):
            few = max(rows // EVENTS_SHARE, 100)
            inputs = {
                "simple": (write_rows(folder / "rows.parquet", first, rows), rows),
                "gateway": (write_events(folder / "events.jsonl", first, few), few),
            }
            first += rows
            for source, (location, landed) in inputs.items():
                figures = measured(ways[way], source, location, landed)
                if turn >= 0:
                    found.setdefault((source, way), []).append(
                        tuple(seconds / landed for seconds in figures)
                    )
    names = {"simple": "simple rows in bulk", "gateway": "JSON lines of events"}
    for source, name in names.items():
        bare, judged = (
            [min(column) for column in zip(*found[source, way], strict=True)]
            for way in ("without", "with")
        )
        for n, unit in enumerate(("µs of CPU a row", "µs a row")):
            yield Measurement(
                f"{name}, {unit}, to without a contract",
                judged[n] * 1e6,
                bare[n] * 1e6,
                MOST if n == 0 else None,
                True,
            )


def import_seconds() -> float:
    """CPU that importing Great Expectations takes in a process that has landed before."""
    code = (
        "import time, dlt_sources, pandas; t = time.process_time();"
        "from loreline.contracts import suite; suite.context(); print(time.process_time() - t)"
    )
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(finished.stdout.splitlines()[-1])


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__doc__)
    parser.add_argument("--rows", type=int, default=300_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder)
        stack.up(home)
        try:
            variables = json.loads((home / "stack.json").read_text())["variables"]
            names = {f.metadata["variable"]: f.name for f in dataclasses.fields(Settings)}
            given = {names[name]: value for name, value in variables.items()}
            settings = Settings(
                **given, target="ci", namespace_suffix="contracts", state_folder=str(home / "run")
            )
            postgres.upgrade(settings)
            (home / "rows").mkdir()
            found = list(measure(settings, home / "rows", options.rows, options.rounds))
        finally:
            stack.down(home)
    found.append(Measurement("importing Great Expectations, s of CPU, once", import_seconds()))
    show("Contracts", found, options.json)


if __name__ == "__main__":
    main()
