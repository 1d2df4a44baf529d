"""A load killed anywhere, and run again, leaves what an undisturbed one leaves."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dlt_sources import load
from loreline import postgres
from loreline.lake import duck

# Small slices and packages, so that a kill can fall before, between and after commits.
LOADER = textwrap.dedent(
    """
    import sys
    from dlt_sources import landing, load, pipeline
    from loreline.settings import Settings

    landing.SLICE_ROWS = 150
    pipeline.PACKAGE_BYTES = 100_000
    print("ready", flush=True)
    load(Settings.load(), sys.argv[1], sys.argv[2], progress=lambda line: print(line, flush=True))
    """
)
BAD_LINE = '{"type": '
SECONDS = 60


def workspace(folder: Path) -> Path:
    """Pages, users and a broken line: several tables, several packages."""
    folder.mkdir()
    pages = [
        {"object": "page", "id": f"p{n:03d}", "properties": {"n": n}, "url": "x" * 300}
        for n in range(700)
    ]
    users = [{"object": "user", "id": f"u{n:03d}", "name": "y" * 100} for n in range(300)]
    lines = [*map(json.dumps, pages), BAD_LINE, *map(json.dumps, users)]
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "export.json").write_text('{"exported_at": "2026-10-01T00:00:00Z"}')
    return folder


def versions(settings):
    """Everything in the raw tables that does not depend on when it landed."""
    columns = (
        "external_id, content_hash, metadata_hash, payload, source_updated_at, observed_at,"
        " is_deleted, _dlt_id"
    )
    with duck.connect(settings) as connection:
        return [
            connection.execute(
                f"select {columns} from lake.{settings.prefix}raw_notion.{table} order by all"
            ).fetchall()
            for table in ("pages", "users")
        ]


def run_and_kill(settings, folder: Path, chance: random.Random) -> bool:
    """Start a load and kill it after some of what it prints; whether it was still running."""
    process = subprocess.Popen(
        [sys.executable, "-c", LOADER, "notion", str(folder)],
        env={**os.environ, **settings.environment()},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout
    for _ in range(chance.randrange(1, 9)):
        process.stdout.readline()
    try:
        process.wait(chance.uniform(0, 1.5))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.stdout.close()
    return process.wait(SECONDS) != 0


@pytest.mark.parametrize(
    "rounds", [3, pytest.param(30, marks=pytest.mark.soak)], ids=["three", "thirty"]
)
def test_killed_loads_end_in_the_same_tables(settings, tmp_path, rounds):
    folder = workspace(tmp_path / "export")
    chance = random.Random(rounds)
    kills = sum(run_and_kill(settings, folder, chance) for _ in range(rounds))
    assert kills
    load(settings, "notion", folder)
    killed = versions(settings)
    assert [len(rows) for rows in killed] == [700, 300]
    undisturbed = dataclasses.replace(settings, namespace_suffix=f"{settings.namespace_suffix}_2")
    postgres.upgrade(undisturbed)
    load(undisturbed, "notion", folder)
    assert killed == versions(undisturbed)
    # Another input with the same objects: it has to be compared.
    with (folder / "a.jsonl").open("a") as file:
        file.write("\n")
    again = load(settings, "notion", folder)
    assert (again.rows, again.unchanged, again.quarantined) == (0, 1_000, {"broken_json": 1})
    with duck.connect(settings) as connection:
        query = f"select count(*) from pg.{settings.prefix}operations.quarantine"
        assert connection.execute(query).fetchone() == (1,)
