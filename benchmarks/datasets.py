"""From conversations to four frozen datasets: trajectories, selection, comparison, splits, files.

    python -m benchmarks.datasets [--trajectories 200000] [--sql-only 1000000] [--json FILE]

Conversations of a generator, two turns and about 2 kB each: some with tools that fail or are
ignored, some with a second answer and ranks, some that nearly repeat another one, some that hold an
item of an evaluation set; all that is good enough is chosen. The forest is built before, and
measured elsewhere. Clusters are stubbed with random ones: embedding is measured elsewhere, too.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks.forest import CHAT, START, TOOLS, Event, chat_data, dbt, model_seconds, stage
from benchmarks.process import timed_process

CLUSTERS = 40
EVALUATION_ITEMS = 1_000
DATASETS = ("sft", "dpo", "suppression", "unlearning")

# What holds the tables of vectors, and of everything that is not about conversations.
UNTIMED = ["--select", "stg_gateway__events+", "--exclude", "stg_gateway__events"]
UNTIMED += ["tag:serving", "tag:evaluation", "tag:manual", "text_embeddings"]
EMPTY = ["--empty", "--select", "+trajectory_clusters", "--exclude", "stg_gateway__events+"]
VECTORS = ["trajectory_texts", "text_embeddings", "trajectory_embeddings", "clustering_runs"]
VECTORS += ["trajectory_clusters"]
STAGED = ["stg_evaluation__items", "stg_review__labels", "human_eval_labels"]
STAGED += ["stg_judge__judgements", "model_eval_labels"]
UNITS = ["trajectory_units", "trajectory_features", "cluster_category_labels"]
PREFERENCES = ["candidate_preference_pairs", "preference_labels", "preference_consensus"]
SELECTED = ["trajectory_scores", "positive_topk_trajectories", "negative_bottomk_trajectories"]


def conversations(count: int) -> Iterator[Event]:
    """Events of so many conversations."""
    chance = random.Random(0)
    words = [f"{a}{b}{c}" for a in "bdfgklmnprst" for b in "aeiou" for c in ("n", "r", "st", "lo")]
    last = ""
    for number in range(count):
        at = START + timedelta(seconds=30 * number)
        first = last if chance.random() < 0.05 and last else _text(chance, words, 80)
        last = first
        yield from _conversation(chance, words, str(number), at, first)


def _conversation(
    chance: random.Random, words: list[str], session: str, at: Any, first: str
) -> Iterator[Event]:
    uses_tool, is_ranked = chance.random() < 0.2, chance.random() < 0.1
    if chance.random() < 0.01:
        first = f"{first} {item_text(chance.randrange(EVALUATION_ITEMS))}"
    if chance.random() < 0.05:
        first += f" Write to {session}@example.com."
    history: list[dict[str, Any]] = [
        {"role": "system", "content": "You help engineers."},
        {"role": "user", "content": first},
    ]
    request = {"model": f"m-{chance.randrange(3)}", "messages": history, "temperature": 0.2}
    answer: dict[str, Any] = {"role": "assistant", "content": _text(chance, words, 120)}
    said: dict[str, Any] = {"role": "user", "content": _text(chance, words, 40)}
    if uses_tool:
        request["tools"] = TOOLS
        function = {"name": "search", "arguments": json.dumps({"query": first[:20]})}
        call = {"id": "c", "type": "function", "function": function}
        answer = {"role": "assistant", "content": None, "tool_calls": [call]}
        said = {"role": "tool", "tool_call_id": "c", "content": _text(chance, words, 120)}
    yield at, session, CHAT, chat_data(session, 0, request, answer, at)
    at += timedelta(seconds=9)
    later = {**request, "messages": [*history, answer, said]}
    claims = f" It is {chance.randrange(10**6)} of {chance.randrange(10**6)}."
    final = _text(chance, words, 120) + (claims if chance.random() < 0.3 else "")
    end = {"role": "assistant", "content": final}
    yield at, session, CHAT, chat_data(session, 1, later, end, at)
    if is_ranked:
        other = {"role": "assistant", "content": _text(chance, words, 100)}
        at += timedelta(seconds=9)
        yield at, session, CHAT, chat_data(session, 2, later, other, at)
        for turn, rank in ((1, 0), (2, 1)):
            told = {"tenant": "bench", "turn_id": f"{session}-{turn}", "rank": rank}
            yield at, session, "feedback.ranked", {**told, "labeller": "people"}


def item_text(number: int) -> str:
    """The text of an item of the evaluation set."""
    chance = random.Random(f"item {number}")
    return " ".join(f"{chance.choice('xyz')}{chance.randrange(10**4)}" for _ in range(20))


def _text(chance: random.Random, words: list[str], count: int) -> str:
    return " ".join(chance.choices(words, k=count))


def land_items() -> None:
    """Land the evaluation set."""
    from dlt_sources import load
    from loreline.settings import Settings

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "items.jsonl"
        file.write_text(
            "".join(
                json.dumps({"evaluation_set": "bench", "item_id": str(n), "texts": [item_text(n)]})
                + "\n"
                for n in range(EVALUATION_ITEMS)
            )
        )
        load(Settings.load(), "evaluation", file)


def choose_all() -> None:
    """Load the seeds, and let nothing be left out for want of places."""
    from loreline.lake import duck
    from loreline.settings import Settings

    dbt("seed")
    with duck.connect(Settings.load(), read_only=False) as connection:
        connection.execute("update lake.seeds.selection_sizes set k = 1000000")


def stub_clusters() -> None:
    """Say at random which cluster each trajectory belongs to."""
    from loreline.lake import duck
    from loreline.lake.commits import Writer, locked
    from loreline.settings import Settings

    settings = Settings.load()
    table = "evaluation.trajectory_clusters"
    with duck.connect(settings) as connection:
        found = connection.execute(
            "select trajectory_id, config_hash, clustering,"
            f" case when random() < 0.8 then 'c-' || floor({CLUSTERS} * random())::int end,"
            " false, 0.0::double, 'stub', 1::bigint, ''"
            " from lake.evaluation.trajectory_units, lake.evaluation.clustering_variants"
        )
        names = ["trajectory_id", "config_hash", "clustering", "cluster_id", "is_outlier"]
        names += ["distance", "assigned_by", "run_number", "content_hash"]
        rows = found.to_arrow_table().rename_columns(names)
    with locked(settings, table) as target:
        target.append(rows, Writer("benchmark", table, "benchmark"))


def freeze_all() -> None:
    """Freeze every dataset."""
    from loreline.datasets.freeze import Request, freeze
    from loreline.settings import Settings

    settings = Settings.load()
    for name in DATASETS:
        frozen = freeze(settings, Request(name, f"bench-{name}"))
        print(name, frozen.row_count)


STEPS = {
    "seed": choose_all,
    "empty": lambda: dbt("run", *EMPTY),
    "forest": lambda: dbt("run", *UNTIMED),
    "items": land_items,
    "staged": lambda: dbt("run", "--select", *STAGED),
    "units": lambda: dbt("run", "--select", *UNITS),
    "vectors": lambda: dbt("run", "--empty", "--select", *VECTORS),
    "clusters": stub_clusters,
    "preferences": lambda: dbt("run", "--select", *PREFERENCES),
    "selection": lambda: dbt("run", "--select", *SELECTED),
    "datasets": lambda: dbt("run", "--select", "tag:datasets", "--exclude", *SELECTED),
    "freeze": freeze_all,
}
UNTIMED_STEPS = ("seed", "empty", "forest", "vectors", "items", "staged", "clusters")


def scenario(count: int, workspace: Path, *, sql_only: bool = False) -> dict[str, Any]:
    """Everything for so many conversations, in a stack of its own."""
    from loreline.stack import down, up

    home = workspace / f"home-{count}"
    target = str(home / "dbt")
    environment = {**os.environ, "LORELINE_HOME": str(home), "LORELINE_TARGET": "local"}
    environment |= {"DBT_TARGET_PATH": target, "DBT_LOG_PATH": target}
    environment |= {"LORELINE_DUCKDB_MEMORY_LIMIT": "4GB"}
    up(home)
    seconds: dict[str, float] = {}
    models: dict[str, float] = {}
    peak = 0.0
    try:
        timed_process(["benchmarks.datasets", "--stage", str(count)], environment)
        for step in STEPS:
            if sql_only and step in ("items", "datasets", "freeze"):
                continue
            wall, memory = timed_process(["benchmarks.datasets", "--step", step], environment)
            print(f"{count:>9,} {step:<14}{wall:>8.1f} s{memory:>8.0f} MB", flush=True)
            if step not in UNTIMED_STEPS:
                seconds[step] = round(wall, 1)
                peak = max(peak, memory)
                if step != "freeze":
                    models |= model_seconds(home)
    finally:
        down(home)
    models.pop("all", None)
    return {
        "trajectories": count,
        "seconds": round(sum(seconds.values()), 1),
        "peak MB": round(peak),
        "steps, seconds": seconds,
        "models, seconds": dict(sorted(models.items(), key=lambda item: -item[1])),
    }


def main() -> None:
    """Run at a tenth of the size, at the size, and the SQL parts at five times as much."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trajectories", type=int, default=200_000)
    parser.add_argument("--sql-only", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--step")
    parser.add_argument("--stage", type=int)
    options = parser.parse_args()
    if options.stage:
        stage(conversations(options.stage))
        return
    if options.step:
        STEPS[options.step]()
        return
    workspace = Path(tempfile.mkdtemp(prefix="loreline-benchmark-"))
    try:
        small = scenario(options.trajectories // 10, workspace)
        shutil.rmtree(workspace / f"home-{options.trajectories // 10}")
        large = scenario(options.trajectories, workspace)
        shutil.rmtree(workspace / f"home-{options.trajectories}")
        sql = scenario(options.sql_only, workspace, sql_only=True) if options.sql_only else None
    finally:
        shutil.rmtree(workspace, ignore_errors=True)
    result: dict[str, Any] = {
        f"{options.trajectories} trajectories (s), < 600": large["seconds"],
        "peak memory (MB), < 6000": large["peak MB"],
        "ten times as many / a tenth, ≤ 12": round(large["seconds"] / small["seconds"], 1),
    }
    if sql:
        chosen = [*UNITS, *SELECTED]
        result[f"units, features, selection of {options.sql_only} (s), < 180"] = round(
            sum(sql["models, seconds"][name] for name in chosen), 1
        )
    for name, value in result.items():
        print(f"{name:<60}{value}")
    if options.json:
        result |= {"small": small, "large": large, "sql": sql}
        options.json.write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
