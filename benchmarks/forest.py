"""Conversations as a forest: from staged events to sessions, and what a thousand more turns cost.

    python -m benchmarks.forest [--turns 1000000] [--json FILE]

Traffic of a generator: sessions of ten turns, each turn's request holding the whole history, a date
in the system prompt, tool loops, regenerated answers and other settings; arrival times as in
`gateway/arrivals.csv`, where the real input is there. It is written to `stg_gateway__events`;
landing is measured elsewhere.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from benchmarks.process import ROOT, timed_process

TURNS_PER_SESSION = 10
MORE_TURNS = 1_000
EVENTS_PER_COMMIT = 50_000
SELECTION = ["--select", "stg_gateway__events+", "--exclude", "stg_gateway__events", "tag:serving"]
PUSH = ["--select", "lineage_copies"]
START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
CHAT = "llm.chat.completed"

# When it was recorded, its session, its type, its data.
Event = tuple[datetime, str, str, dict[str, Any]]

SCHEMA = pa.schema(
    [
        ("raw_dlt_id", pa.string()),
        ("raw_batch", pa.int64()),
        ("event_key", pa.string()),
        ("event_id", pa.string()),
        ("event_source", pa.string()),
        ("event_type", pa.string()),
        ("event_at", pa.timestamp("us")),
        ("session_id", pa.string()),
        ("turn_id", pa.string()),
        ("tenant", pa.string()),
        ("payload", pa.string()),
        ("observed_at", pa.timestamp("us")),
    ]
)
WORDS = [
    *("deploy", "rollback", "invoice", "queue", "customer", "latency", "schema", "retry", "search"),
    *("alert", "region", "cache", "token", "batch", "vector", "cluster", "budget", "owner", "in"),
    *("review", "release", "incident", "why", "does", "the", "and", "of", "to", "it", "is"),
]
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("search", "read_file", "run_query")
]


def traffic(turns: int, seed: int = 0) -> Iterator[Event]:
    """Chat events, session after session; within one, a turn follows the turn before it."""
    chance = random.Random(seed)
    gaps = _gaps()
    begun = START
    made = number = 0
    while made < turns:
        session = f"{seed}-{number}"
        number += 1
        begun += timedelta(seconds=chance.choice(gaps))
        for at, data in _session(chance, session, begun):
            yield at, session, CHAT, data
            made += 1
            if made == turns:
                return


def _session(
    chance: random.Random, session: str, begun: datetime
) -> Iterator[tuple[datetime, dict[str, Any]]]:
    at = begun
    history: list[dict[str, Any]] = [
        {"role": "system", "content": f"You help engineers. Today is {begun:%A, %d %B %Y}."}
    ]
    history.append({"role": "user", "content": _text(chance, 25)})
    for turn in range(TURNS_PER_SESSION):
        calls_tool = chance.random() < 0.25
        kind = chance.random()
        request = {"model": "m-large", "messages": history, "temperature": 0.2, "tools": TOOLS}
        if kind < 0.04:
            request["model"] = "m-small"
        answer: dict[str, Any] = {"role": "assistant", "content": _text(chance, 40)}
        if calls_tool:
            arguments = json.dumps({"query": _text(chance, 4)})
            function = {"name": "search", "arguments": arguments}
            call = {"id": f"call_{turn}", "type": "function", "function": function}
            answer = {"role": "assistant", "content": None, "tool_calls": [call]}
        at += timedelta(milliseconds=chance.randint(2_000, 60_000))
        yield at, chat_data(session, turn, request, answer, at)
        if kind > 0.9:
            # The answer did not please: another one, with which the conversation goes on.
            answer = {"role": "assistant", "content": _text(chance, 40)}
            again = {**request, "temperature": 0.9} if kind > 0.95 else request
            at += timedelta(milliseconds=chance.randint(2_000, 20_000))
            yield at, chat_data(session, f"{turn}b", again, answer, at)
            calls_tool = False
        if calls_tool:
            said = {"role": "tool", "tool_call_id": f"call_{turn}", "content": _text(chance, 30)}
        else:
            said = {"role": "user", "content": _text(chance, 25)}
        history = [*history, answer, said]


def chat_data(
    session: str, turn: object, request: dict[str, Any], answer: dict[str, Any], at: datetime
) -> dict[str, Any]:
    """The data of a chat event."""
    return {
        "turn_id": f"{session}-{turn}",
        "session_id": session,
        "tenant": "bench",
        "request": request,
        "response": {
            "choices": [{"index": 0, "message": answer, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 400, "completion_tokens": 60},
        },
        "backend": "vllm-a",
        "model_snapshot_id": "m@1",
        "started_at": (at - timedelta(milliseconds=1_500)).isoformat(),
        "duration_ms": 1_500,
        "status": "completed",
    }


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def _gaps() -> list[float]:
    """Seconds between arrivals: real ones where they are there."""
    folder = Path(os.environ.get("LORELINE_REAL_DATA") or ROOT.parent / "shared" / "data")
    file = folder / "gateway" / "arrivals.csv"
    if not file.is_file():
        return [0.4]
    with file.open() as lines:
        times = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in csv.DictReader(lines)]
    return [(b - a).total_seconds() for a, b in pairwise(times)]


def stage(events: Iterator[Event]) -> None:
    """Append events to `stg_gateway__events`, as its model would."""
    from loreline.lake.commits import Writer, locked
    from loreline.settings import Settings

    settings = Settings.load()
    writer = Writer("benchmark", "staging.stg_gateway__events", "benchmark")

    def batches() -> Iterator[pa.Table]:
        rows: list[tuple[Any, ...]] = []
        for at, session, kind, data in events:
            envelope = {
                "specversion": "1.0",
                "id": data["turn_id"],
                "source": "benchmark",
                "type": kind,
                "time": at.isoformat(),
                "subject": session,
                "data": data,
            }
            payload = orjson.dumps(envelope).decode()
            key = hashlib.sha256(payload.encode()).hexdigest()
            time_of = at.replace(tzinfo=None)
            identity = (data["turn_id"], "benchmark", kind, time_of, session)
            rows.append((key, 0, key, *identity, data["turn_id"], "bench", payload, time_of))
            if len(rows) == EVENTS_PER_COMMIT:
                yield _table(rows)
                rows = []
        if rows:
            yield _table(rows)

    for table in batches():
        with locked(settings, "staging.stg_gateway__events") as target:
            target.append(table, writer)


def _table(rows: list[tuple[Any, ...]]) -> pa.Table:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def dbt(*arguments: str) -> None:
    """Run dbt in this process."""
    from dbt.cli.main import dbtRunner

    folders = ["--project-dir", str(ROOT), "--profiles-dir", str(ROOT)]
    result = dbtRunner().invoke([*arguments, *folders])
    if not result.success:
        sys.exit(f"dbt failed: {result.exception}")


def timed(step: str, environment: dict[str, str], *arguments: str) -> tuple[float, float]:
    """Run a step of this benchmark as a process of its own; its seconds and its peak memory."""
    return timed_process(["benchmarks.forest", "--step", step, *arguments], environment)


def scenario(turns: int, workspace: Path) -> dict[str, Any]:
    """Build so many turns at once, then a thousand more, in a stack of its own."""
    from loreline.stack import down, up

    home = workspace / f"home-{turns}"
    target = str(home / "dbt")
    environment = {**os.environ, "LORELINE_HOME": str(home), "LORELINE_TARGET": "local"}
    environment |= {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target}
    # Below it DuckDB spills to disk; two models run at once.
    environment |= {"LORELINE_DUCKDB_MEMORY_LIMIT": "4GB"}
    up(home)
    try:
        timed("stage", environment, str(turns), "0")
        wall, peak = timed("build", environment)
        full = model_seconds(home)
        timed("push", environment)
        push = model_seconds(home)["all"]
        timed("stage", environment, str(MORE_TURNS), "1")
        more_wall, _ = timed("build", environment)
        more = model_seconds(home)
        timed("push", environment)
        push_more = model_seconds(home)["all"]
    finally:
        down(home)
    result = {
        "turns": turns,
        "seconds": round(wall, 1),
        "peak MB": round(peak),
        "a thousand more, seconds": round(more_wall, 1),
        "copied to Postgres, seconds": push,
        "a thousand more copied, seconds": push_more,
        "models, seconds": full,
        "models of a thousand more, seconds": more,
    }
    print(json.dumps(result, indent=2), flush=True)
    return result


def model_seconds(home: Path) -> dict[str, float]:
    """How long dbt was at it in all, and at each model."""
    results = json.loads((home / "dbt" / "run_results.json").read_text())
    times = {r["unique_id"].split(".")[-1]: r["execution_time"] for r in results["results"]}
    slowest = dict(sorted(times.items(), key=lambda item: -item[1])[:16])
    return {"all": round(results["elapsed_time"], 1)} | {
        name: round(seconds, 1) for name, seconds in slowest.items()
    }


def main() -> None:
    """Run at both sizes and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step")
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_args()
    if options.step == "stage":
        turns, seed = map(int, options.arguments)
        stage(traffic(turns, seed))
        dbt("seed")
        return
    if options.step:
        dbt("run", *(SELECTION if options.step == "build" else PUSH))
        return
    workspace = Path(tempfile.mkdtemp(prefix="loreline-benchmark-"))
    try:
        small = scenario(options.small, workspace)
        large = scenario(options.turns, workspace)
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    per_turn = [s["models, seconds"]["all"] / s["turns"] for s in (small, large)]
    more = large["models of a thousand more, seconds"]["all"] / large["models, seconds"]["all"]
    result = {
        f"{options.turns} turns (s), ≤ 90": large["seconds"],
        "peak memory of the build (MB), < 6000": large["peak MB"],
        "time a turn, large / small, ≤ 1": round(per_turn[1] / per_turn[0], 2),
        "a thousand more / all, ≤ 0.05": round(more, 3),
        "copied to Postgres for replays (s)": large["copied to Postgres, seconds"],
        "a thousand more copied (s)": large["a thousand more copied, seconds"],
        "small": small,
        "large": large,
    }
    for name, value in list(result.items())[:6]:
        print(f"{name:<44}{value}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
