"""Imported last by the process that steps are forked from: what every one of them would do first.

dbt makes the classes and schemas that it reads a project with when it first needs them. What is
there then stays: the garbage collector is not to look through it in each child, which would copy
all of it.
"""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path

from dbt.cli.main import dbtRunner

PROJECT = "{name: warm, version: '1', profile: warm}"
PROFILE = "warm: {target: warm, outputs: {warm: {type: duckdb, path: ':memory:'}}}"

with tempfile.TemporaryDirectory() as folder:
    place = Path.cwd()
    (Path(folder) / "models").mkdir()
    (Path(folder) / "dbt_project.yml").write_text(PROJECT)
    (Path(folder) / "profiles.yml").write_text(PROFILE)
    (Path(folder) / "models" / "one.sql").write_text("select 1 as one")
    (Path(folder) / "models" / "models.yml").write_text("models: [{name: one, description: One}]")
    quiet = ["--quiet", "--log-level", "none", "--log-level-file", "none"]
    folders = ["--project-dir", folder, "--profiles-dir", folder]
    for command in ("parse", "parse", "compile"):
        dbtRunner().invoke([*quiet, command, *folders])
    os.chdir(place)

gc.collect()
gc.freeze()
