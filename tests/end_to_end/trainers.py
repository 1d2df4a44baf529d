"""Exports of datasets, read by the libraries that trainers read them with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.end_to_end.forest import Json

LOADER = """
import json, sys
from datasets import load_dataset
from trl.data_utils import is_conversational

folder, kind = sys.argv[1:]
configs = ["forget", "retain"] if kind == "unlearning" else ["default"]
for config in configs:
    for split, rows in load_dataset(folder, config).items():
        assert len(rows), split
        lines = load_dataset("json", data_files=str(
            f"{folder}/jsonl/{config + '-' if kind == 'unlearning' else ''}{split}.jsonl"
        ))["train"]
        assert lines["example_id"][:] == rows["example_id"][:]
        for row in rows:
            if kind == "sft":
                assert is_conversational({"messages": row["messages"]}), row
                assert row["messages"][-1]["role"] == "assistant"
            if kind == "dpo":
                pair = {k: row[k] for k in ("prompt", "chosen", "rejected")}
                assert is_conversational(pair), row
                assert row["chosen"] != row["rejected"]
            if kind == "suppression":
                assert is_conversational({k: row[k] for k in ("prompt", "completion")}), row
                assert row["label"] is False
            for column in ("messages", "prompt", "chosen", "rejected", "completion"):
                for message in row.get(column) or []:
                    assert isinstance(message["content"], str)
                    for call in message.get("tool_calls") or []:
                        json.loads(call["function"]["arguments"])
            if row.get("tools"):
                print(row["tools"])
"""


def load(folder: Path, kind: str, home: Path) -> list[list[Json]]:
    """Load an export as trainers do, in a process of its own; gives the tools of its rows.

    Args:
        folder: with the files.
        kind: sft, dpo, suppression or unlearning.
        home: for what the libraries keep.
    """
    environment = os.environ | {"HF_HOME": str(home / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOADER, str(folder), kind],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]
