"""Events from NATS and from a table of Postgres against the same events in a file.

    python -m benchmarks.gateway_streams [--events 60000] [--json FILE]

The events are the sample workspace's, over and over, each with an id of its own for each route. All
routes parse, hash, compare, judge and commit them; what a stream adds is fetching and acknowledging
them, and a commit for every 20,000. A small load before takes the time of imports.
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from benchmarks.contracts import write_events
from benchmarks.sandbox import Measurement, arguments, show
from dlt_sources import load
from dlt_sources.gateway.live import GatewayStreams
from dlt_sources.live import load_live
from loreline import postgres, stack
from loreline.postgres import connect, in_schema
from loreline.settings import Settings
from tests.simulators.nats import nats_server

# Times what the file takes.
MOST = 2.0


def measure(settings: Settings, folder: Path, count: int) -> Iterator[Measurement]:
    """Each route with events of its own."""
    path = folder / "events.jsonl"
    by_stream = dataclasses.replace(settings, on_breach="warn")
    with nats_server(folder) as server:
        server.make_stream()
        from_nats = dataclasses.replace(by_stream, nats_url=server.url)

        def file(first: int, events: int) -> Callable[[], int]:
            write_events(path, first, events)
            return lambda: load(by_stream, "gateway", path).rows

        def nats(first: int, events: int) -> Callable[[], int]:
            server.publish(write_events(path, first, events).read_bytes().splitlines())
            return lambda: _streamed(from_nats)

        def table(first: int, events: int) -> Callable[[], int]:
            lines = write_events(path, first, events).read_text().splitlines()
            copy = in_schema(
                settings, "operations", "copy {}.pipeline_event_inbox (payload) from stdin"
            )
            with connect(settings) as connection, connection.cursor().copy(copy) as rows:
                for line in lines:
                    rows.write_row((line,))
            return lambda: _streamed(by_stream)

        found = {}
        for n, route in enumerate((file, nats, table), start=1):
            for first, events in ((n * 10**9, 500), (n * 10**9 + 10**6, count)):
                work = route(first, events)
                started, worked = time.perf_counter(), time.process_time()
                landed = work()
                assert landed == events, (route.__name__, landed)
                found[route.__name__] = (
                    (time.process_time() - worked) / events * 1e6,
                    (time.perf_counter() - started) / events * 1e6,
                )
    for route in ("nats", "table"):
        for n, unit in enumerate(("µs of CPU", "µs")):
            name = f"{route}: {unit} an event, to a file"
            limit = MOST if n == 0 else None
            yield Measurement(name, found[route][n], found["file"][n], limit, is_limit=True)


def _streamed(settings: Settings) -> int:
    return load_live(settings, "gateway", GatewayStreams(settings)).rows


def main() -> None:
    """Measure in a stack of its own."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--events", type=int, default=60_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="loreline-benchmark-") as folder:
        home = Path(folder) / "home"
        try:
            stack.up(home)
            variables = orjson.loads((home / "stack.json").read_bytes())["variables"]
            names = {f.metadata["variable"]: f.name for f in dataclasses.fields(Settings)}
            settings = Settings(
                **{names[name]: value for name, value in variables.items()},
                state_folder=str(home),
            )
            postgres.upgrade(settings)
            measured = list(measure(settings, Path(folder), given.events))
        finally:
            stack.down(home)
    show(f"Gateway streams, {given.events:,} events", measured, given.json)


if __name__ == "__main__":
    main()
