"""`loreline build` runs dbt, and says what it changed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from loreline.postgres import connect
from loreline.settings import Settings


@pytest.fixture
def build(settings: Settings, tmp_path: Path):
    """Run `loreline build …` in a process of its own, with dbt's files apart from others'."""

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = "import sys; from loreline.cli import main; sys.exit(main())"
        places = ["--target-path", str(tmp_path / "target"), "--log-path", str(tmp_path / "logs")]
        return subprocess.run(
            [sys.executable, "-c", command, "build", *arguments, *places],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    return call


def recorded(settings: Settings) -> list[tuple[str, str, bool, int]]:
    """Of each run on record: command, selection, whether it has an end, and how many failures."""
    query = (
        "select command, selection, ended_at is not null, jsonb_array_length(failures)"
        f" from {settings.prefix}operations.builds order by started_at"
    )
    with connect(settings) as connection:
        return connection.execute(query).fetchall()


@pytest.mark.soak
def test_a_second_build_changes_nothing(build, settings: Settings) -> None:
    seeds = ("--select", "chunking_strategies", "embedding_models")
    first = build("--json", *seeds)
    assert first.returncode == 0, first.stderr
    summary = json.loads(first.stdout)
    written = {commit["table"]: commit["rows"] for commit in summary["commits"]}
    prefix = settings.prefix
    assert written[f"{prefix}seeds.embedding_models"] >= 1
    assert written[f"{prefix}seeds.chunking_strategies"] >= 2
    again = json.loads(build("--json", *seeds).stdout)
    assert again["commits"] == []
    assert again["invocation_id"] != summary["invocation_id"]
    shown = build(*seeds)
    assert shown.returncode == 0
    assert "Nothing changed" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert recorded(settings) == [("build", " ".join(seeds[1:]), True, 0)] * 3


def test_a_failure_is_dbts_exit_code_without_a_stack_trace(build) -> None:
    done = build("--select", "embedding_models", "--vars", "{canonicalizer_version: [}")
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", "production"], "there is no target production: use one of"),
        (["--no-such-option"], "No such option '--no-such-option'"),
    ],
)
def test_a_wrong_argument_is_one_line(build, arguments: list[str], said: str) -> None:
    done = build(*arguments)
    assert done.returncode != 0
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.soak
def test_what_a_selection_reads_and_was_never_built_is_named(build, settings: Settings) -> None:
    def refusal(*selection: str) -> str:
        refused = build("--select", *selection)
        assert refused.returncode == 2
        (said,) = [line for line in refused.stdout.splitlines() if "never built" in line]
        return said

    said = refusal(
        "embedding_configurations", "chunking_configurations", "sentence_embeddings", "chunks"
    )
    for name, reader in {
        "embedding_models": "embedding_configurations",
        "chunking_strategies": "chunking_configurations",
        "documents": "(?:chunks|sentence_embeddings)",
    }.items():
        assert re.search(rf"{name} \(read by {reader}\)", said)
    assert "chunking_configurations (read" not in said
    (command,) = re.findall("`loreline build --select (.*?)`", said)
    assert sorted(command.split()) == ["+chunking_strategies", "+documents", "+embedding_models"]

    assert re.search(r" more: run `loreline build` first", refusal("knowledge+"))
    assert [row[2:] for row in recorded(settings)] == [(True, 1)] * 2

    assert build("--select", "+embedding_models").returncode == 0
    done = build("--json", "--select", "embedding_configurations")
    assert done.returncode == 0, done.stderr
    (commit,) = json.loads(done.stdout)["commits"]
    assert commit["table"].endswith(".embedding_configurations")
