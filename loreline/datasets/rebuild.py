"""Running the recorded code of a frozen dataset over the snapshots that it was made from.

Every SQL model of the datasets layer that the dataset comes from is run by itself, as it was: its
git commit in a worktree of its own, its upstream tables at the snapshots that it read. The rows
have to be those of its own tagged snapshot. What other layers, incremental models and Python models
gave (embeddings, clusters, judgements) is pinned: their snapshots are inputs.

The models of a commit run in a process of their own, `loreline.datasets.rerun`, with the worktree's
Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from loreline.datasets import snapshots
from loreline.datasets.registry import FrozenDataset
from loreline.errors import LorelineError
from loreline.lake.made_from import MadeFrom, git
from loreline.settings import PROJECT_ROOT, Settings

Progress = Callable[[str], None]


@dataclass(frozen=True)
class RebuiltModel:
    """One model that was run again.

    Attributes:
        table: `namespace.table`.
        commit: of the code that ran.
        rows: how many the tagged snapshot has.
        rebuilt: how many the code gave.
        missing: rows of the tagged snapshot that the code did not give.
        extra: rows that it gave, and that the tagged snapshot does not have.
        is_same_sql: whether the compiled SQL was the recorded one.
    """

    table: str
    commit: str
    rows: int
    rebuilt: int
    missing: int
    extra: int
    is_same_sql: bool

    @property
    def is_equal(self) -> bool:
        """Whether the rows are the same."""
        return not self.missing and not self.extra and self.rows == self.rebuilt


def rebuild(
    settings: Settings,
    frozen: FrozenDataset,
    *,
    project: Path = PROJECT_ROOT,
    progress: Progress = lambda _: None,
) -> list[RebuiltModel]:
    """Run the recorded code over the tagged snapshots, and compare the rows.

    Args:
        settings: the stores.
        frozen: what.
        project: the dbt project in whose git repository the recorded commits are.
        progress: called with a line at each step.

    Raises:
        LorelineError: the code or an input is not what was recorded, and cannot be had.
    """
    snapshots.tagged(settings, frozen.dataset, frozen.tag, frozen.iceberg_snapshot_id)
    for one in frozen.upstream:
        snapshots.tagged(settings, one.table, one.tag, one.snapshot_id)
    models = _models(frozen)
    for table, _, made in models:
        _refuse_unrepeatable(table, made)
    rebuilt = []
    for commit in dict.fromkeys(made.code.commit for _, _, made in models):
        progress(f"commit {commit[:12]} …")
        with worktree(project, commit) as folder, _Rerun(settings, folder) as rerun:
            for table, snapshot_id, made in models:
                if made.code.commit == commit:
                    progress(f"running {table} …")
                    rebuilt.append(rerun.model(table, snapshot_id, made))
    return rebuilt


@contextmanager
def worktree(project: Path, commit: str) -> Iterator[Path]:
    """The project as it was at a commit, in a worktree that is removed again.

    Raises:
        LorelineError: the repository does not hold the commit.
    """
    try:
        within = git(project, "rev-parse", "--show-prefix")
        git(project, "cat-file", "-e", f"{commit}^{{commit}}")
    except (OSError, subprocess.CalledProcessError) as error:
        raise LorelineError(
            f"commit {commit[:12]}, whose code built the dataset, is not in {project}",
            "fetch it, or name the project's checkout with --project-dir",
        ) from error
    with tempfile.TemporaryDirectory(prefix="loreline-rebuild-") as temporary:
        folder = Path(temporary) / "code"
        git(project, "worktree", "add", "--detach", "--force", str(folder), commit)
        try:
            yield folder / within
        finally:
            git(project, "worktree", "remove", "--force", str(folder))


def _models(frozen: FrozenDataset) -> list[tuple[str, int, MadeFrom]]:
    """What to run: the dataset, and the SQL models of its layer that it comes from."""
    layer = frozen.dataset.rsplit(".", 1)[0] + "."
    recorded = [(frozen.dataset, frozen.iceberg_snapshot_id, frozen.parameters["made_from"])]
    recorded += [(one.table, one.snapshot_id, one.made_from) for one in frozen.upstream]
    models = [
        (table, snapshot_id, MadeFrom.from_json(text))
        for table, snapshot_id, text in recorded
        if table.startswith(layer) and text
    ]
    if not models[0][2].code.sql_sha256:
        raise LorelineError(
            f"{frozen.dataset} is no SQL model, so that there is nothing to run again",
            "its snapshot is tagged: `loreline freeze --verify` compares its bytes",
        )
    return [model for model in models if model[2].code.sql_sha256]


def _refuse_unrepeatable(table: str, made: MadeFrom) -> None:
    code = made.code
    if not code.commit:
        raise LorelineError(
            f"{table} was built outside a git repository: its code is not recorded",
            "keep the project in git, build from a commit and freeze again",
        )
    if not code.is_clean:
        raise LorelineError(
            f"{table} was built from files that differ from commit {code.commit[:12]}",
            "commit them, build and freeze again under another name",
        )
    if made.outside:
        raise LorelineError(
            f"{table} also read {', '.join(made.outside)}, which has no history",
            "land it in the lake and read it from there",
        )


class _Rerun:
    """The process that runs the models of a worktree."""

    def __init__(self, settings: Settings, project: Path) -> None:
        # Where the commit holds the package too, it is the commit's that runs.
        others = {k: v for k, v in os.environ.items() if not k.startswith("LORELINE_")}
        path = os.pathsep.join([str(project), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.project = project
        # A file, as a pipe that nobody reads would fill up.
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self.process = subprocess.Popen(
            [sys.executable, "-m", "loreline.datasets.rerun"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=others | settings.environment() | {"PYTHONPATH": path},
            cwd=project,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process, self.errors:
            self.process.kill()

    def model(self, table: str, snapshot_id: int, made: MadeFrom) -> RebuiltModel:
        """Run a model, and compare what it gives with its snapshot."""
        request: dict[str, Any] = {
            "project": str(self.project),
            "table": table,
            "snapshot_id": snapshot_id,
            "inputs": list(made.inputs),
            "variables": dict(made.code.variables),
        }
        answer = self._asked(json.dumps(request))
        if not answer:
            self.process.wait()
            self.errors.seek(0)
            lines = self.errors.read().strip().splitlines() or ["it gave no reason"]
            raise LorelineError(
                f"{table} cannot be run again at commit {made.code.commit[:12]} ({lines[-1]})",
                "its tagged rows are as they were: see `loreline freeze --verify`",
            )
        found = json.loads(answer)
        return RebuiltModel(
            table,
            made.code.commit,
            found["rows"],
            found["rebuilt"],
            found["missing"],
            found["extra"],
            found["sql_sha256"] == made.code.sql_sha256,
        )

    def _asked(self, request: str) -> str:
        """The answer to a request; empty where the process ended instead."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
        return self.process.stdout.readline()
