"""What dbt keeps of a project that it has parsed, made once a run and carried into each copy.

Parsing takes five seconds, and differs between copies only in where they are and in what stands
before the names of schemas. dbt compares every file by itself: what a copy changes is parsed anew.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
from pathlib import Path
from typing import Any

import msgpack

from loreline.settings import PROJECT_ROOT, Settings
from tests.steps import Step

PROJECT = [
    "dbt_project.yml",
    "profiles.yml",
    "selectors.yml",
    "macros",
    "models",
    "python_models",
    "seeds",
    "tests/dbt",
]
# Where dbt keeps it, below its target folder.
KEPT = "partial_parse.msgpack"
NAMESPACE = "namespace_of_the_parsed_project"


def copied_project(folder: Path) -> Path:
    """Copy the dbt project, as it is here, into a folder."""
    for name in PROJECT:
        place = PROJECT_ROOT / name
        if place.is_dir():
            shutil.copytree(place, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(place, folder / name)
    return folder


def carry_parsed(stack: Settings, settings: Settings, project: Path, target: Path) -> None:
    """Put what dbt would keep of a copy of the project into its target folder.

    Args:
        stack: the stores of this run of tests.
        settings: those that dbt will be given.
        project: the copy.
        target: dbt's target folder.
    """
    template = stack.home / "parsed_project"
    kept = template / "target" / KEPT
    with (stack.home / "parsed_project.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            shutil.rmtree(template, ignore_errors=True)
            _parse(
                copied_project(template), dataclasses.replace(settings, namespace_suffix=NAMESPACE)
            )
    changes = {str(template): str(project), NAMESPACE: settings.namespace_suffix}
    target.mkdir(parents=True)
    (target / KEPT).write_bytes(
        msgpack.packb(_changed(msgpack.unpackb(kept.read_bytes()), changes))
    )


def _parse(project: Path, settings: Settings) -> None:
    others = {k: v for k, v in os.environ.items() if not k.startswith("LORELINE_")}
    folders = ["--project-dir", str(project), "--profiles-dir", str(project)]
    done = Step("dbt", others | settings.environment(), arguments=["parse", *folders]).result()
    assert done.exit_code == 0, done.output


def _changed(value: Any, changes: dict[str, str]) -> Any:
    if isinstance(value, str):
        for old, new in changes.items():
            value = value.replace(old, new)
        return value
    if isinstance(value, dict):
        return {_changed(k, changes): _changed(v, changes) for k, v in value.items()}
    return [_changed(each, changes) for each in value] if isinstance(value, list) else value
