"""Quarantine, freshness, health, builds and the overview, against real stores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import dlt
import pyarrow as pa
import pytest

from dlt_sources import load
from dlt_sources.gateway.shapes import problem_of as gateway_problem
from dlt_sources.retry import retry
from loreline.cli import main
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.commits import Writer, append
from loreline.operations import builds
from loreline.postgres import connect
from loreline.settings import Settings

Run = Callable[..., tuple[int, str, str]]

BROKEN = b'{"type": "llm.chat", "id": \x1b[31m'
EVENT = {"specversion": "1.0", "id": "e1", "source": "gw", "time": "2026-10-01T00:00:00Z"}
GOOD = {**EVENT, "type": "llm.chat.completed", "data": {}}
# What the reader refuses, and the contract would not.
ODD = {**GOOD, "type": ""}


@pytest.fixture
def run(settings: Settings, capsys: pytest.CaptureFixture[str]) -> Run:
    """Call `loreline …`; gives exit code, output and error output."""

    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(arguments)
        return code, *capsys.readouterr()

    return call


def rows(settings: Settings, query: str) -> list[tuple]:
    with connect(settings) as connection:
        return connection.execute(query.format(f"{settings.prefix}operations")).fetchall()


def events(settings: Settings, columns: str = "count(*)") -> list[tuple]:
    with duck.connect(settings) as lake:
        return lake.execute(
            f"select {columns} from lake.{settings.prefix}raw_gateway.events"
        ).fetchall()


def put(folder: Path, files: dict[str, object]) -> Path:
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return folder


def test_what_passes_by_now_lands_and_the_rest_stays(
    settings: Settings, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"exported_at": "2026-10-02T00:00:00Z"}
    lines = b"\n".join([BROKEN, json.dumps(ODD).encode()])
    put(tmp_path / "in", {"a.jsonl": lines, "export.json": told})
    load(settings, "gateway", tmp_path / "in")
    code, out, _ = run("quarantine", "list", "--json")
    assert {(g["source"], g["reason"], g["inputs"]) for g in json.loads(out)} == {
        ("gateway", "broken_json", 1),
        ("gateway", "wrong_type", 1),
    }
    ((broken,),) = rows(
        settings, "select fingerprint from {}.quarantine where reason = 'broken_json'"
    )
    code, out, _ = run("quarantine", "show", broken[:8])
    assert code == 0
    assert "\\x1b[31m" in out and "\x1b" not in out

    code, out, _ = run("quarantine", "retry", "--source", "gateway", "--json")
    assert (code, json.loads(out)) == (1, {"tried": 2, "failed": 2})
    assert rows(settings, "select count(retry_result) from {}.quarantine") == [(2,)]

    # A newer version of the source takes what this one refuses.
    monkeypatch.setattr(
        "dlt_sources.gateway.shapes.problem_of",
        lambda envelope: None if envelope == ODD else gateway_problem(envelope),
    )
    looked_at = rows(settings, "select loaded_at from {}.source_loads")
    code, out, _ = run("quarantine", "retry", "--all", "--json")
    assert (code, json.loads(out)) == (0, {"tried": 2, "failed": 1, "landed": 1})
    assert events(settings, "observed_at::varchar") == [("2026-10-02 00:00:00",)]
    assert rows(settings, "select reason, outcome, note from {}.quarantine_log") == [
        ("wrong_type", "landed", None)
    ]
    assert rows(settings, "select loaded_at from {}.source_loads") == looked_at
    assert run("quarantine", "show", broken[:8], "--json")[0] == 0


def test_what_is_dropped_is_in_the_log_and_does_not_come_back(
    settings: Settings, run: Run, tmp_path: Path
) -> None:
    put(tmp_path / "in", {"a.jsonl": BROKEN})
    load(settings, "gateway", tmp_path / "in")
    before = rows(settings, "select fingerprint, payload, origin from {}.quarantine")
    assert run("quarantine", "drop", "--source", "gateway", "--why", "x")[0] == 1
    assert rows(settings, "select count(*) from {}.quarantine") == [(1,)]
    code, out, _ = run(
        "quarantine", "drop", before[0][0][:10], "--why", "a test of ours", "--yes", "--json"
    )
    assert (code, json.loads(out)) == (0, {"dropped": 1})
    assert rows(settings, "select fingerprint, payload, origin from {}.quarantine_log") == before
    assert rows(settings, "select outcome, note from {}.quarantine_log") == [
        ("dropped", "a test of ours")
    ]
    again = load(settings, "gateway", tmp_path / "in", again=True)
    assert again.quarantined == {"broken_json": 1}
    assert rows(settings, "select count(*) from {}.quarantine") == [(0,)]


def test_a_slack_message_is_read_in_its_channel_and_deletes_no_other(
    settings: Settings, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dlt_sources.slack import observations

    day, at = "till/2026-10-01.json", 1790812800
    sent = [
        {"type": "message", "ts": f"{at + n}.000100", "text": f"message {n}", "user": "U1"}
        for n in range(3)
    ]
    sent[1]["thread_ts"] = "soon"
    channels = [{"id": "C1", "name": "till"}, {"id": "C2", "name": "board"}]
    put(tmp_path / "in", {"channels.json": channels, "users.json": [], day: sent})
    assert load(settings, "slack", tmp_path / "in").quarantined == {"wrong_type": 1}
    problem = observations._problem
    monkeypatch.setattr(
        observations, "_problem", lambda message: None if message == sent[1] else problem(message)
    )
    code, out, _ = run("quarantine", "retry", "--source", "slack", "--json")
    assert (code, json.loads(out)) == (0, {"tried": 1, "landed": 1})
    with duck.connect(settings) as lake:
        schema = f"lake.{settings.prefix}raw_slack"
        assert lake.execute(
            f"select external_id, is_deleted from {schema}.messages order by 1"
        ).fetchall() == [(f"C1:{message['ts']}", False) for message in sent]
        assert lake.execute(f"select count(*) from {schema}.channels").fetchall() == [(2,)]


def test_what_broke_a_contract_lands_as_it_would_have(
    settings: Settings, run: Run, tmp_path: Path
) -> None:
    user = {"object": "user", "id": "u1", "name": "Ada", "avatar_url": "x"}
    later = {**user, "name": "Ada Lowe"}
    with connect(settings, autocommit=True) as connection:
        for payload, reason, observed_at in (
            (user, "contract: unique", "2026-10-01"),
            (later, "contract: not_null", "2026-10-03"),
        ):
            connection.execute(
                f"insert into {settings.prefix}operations.quarantine (fingerprint, source,"
                " resource, external_id, reason, detail, payload, origin, observed_at)"
                " values (md5(%s), 'notion', 'users', 'u1', %s, 'x', %s, 'a contract', %s)",
                [reason, reason, json.dumps(payload), f"{observed_at} 00:00:00+00"],
            )
    code, out, _ = run("quarantine", "retry", "--reason", "contract:", "--json")
    assert (code, json.loads(out)) == (0, {"tried": 2, "landed": 2})
    # The export that shows the same says nothing new, and an older one is outdated.
    told = {"exported_at": "2026-10-03T00:00:00Z"}
    again = load(settings, "notion", put(tmp_path / "a", {"u.json": later, "export.json": told}))
    assert (again.rows, again.unchanged, again.outdated) == (0, 1, 0)
    told = {"exported_at": "2026-10-02T00:00:00Z"}
    again = load(settings, "notion", put(tmp_path / "b", {"u.json": user, "export.json": told}))
    assert (again.rows, again.outdated) == (0, 1)


def test_what_an_interrupted_load_left_is_newer_than_what_is_tried_again(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def item(day: int, *texts: object) -> Path:
        told = {"evaluation_set": "s", "item_id": "i", "texts": texts, "is_deleted": False}
        files = {"items.json": [told], "export.json": {"exported_at": f"2026-10-0{day}T00:00:00Z"}}
        return put(tmp_path / str(day), files)

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    load(settings, "evaluation", item(1, 7))
    ((kept,),) = rows(settings, "select fingerprint from {}.quarantine")
    with monkeypatch.context() as patched:
        patched.setattr(dlt.Pipeline, "load", die)
        with pytest.raises(KeyboardInterrupt):
            load(settings, "evaluation", item(2, "newer"))
    monkeypatch.setattr("dlt_sources.evaluation._problem", lambda item: None)
    assert retry(settings, "evaluation", [kept]) == {"known": 1}
    with duck.connect(settings) as lake:
        table = f"lake.{settings.prefix}raw_evaluation.items"
        assert lake.execute(f"select payload ->> '$.texts[0]' from {table}").fetchall() == [
            ("newer",)
        ]


def test_a_source_without_news_was_looked_at_all_the_same(
    settings: Settings, run: Run, tmp_path: Path
) -> None:
    inputs = put(tmp_path / "in", {"a.jsonl": GOOD})
    commits = "select snapshot_id from {}.commits order by 1"

    def age(interval: str) -> None:
        with connect(settings, autocommit=True) as connection:
            connection.execute(
                f"update {settings.prefix}operations.source_loads"
                " set loaded_at = now() - %s::interval",
                [interval],
            )

    def state() -> str:
        (one,) = json.loads(run("freshness", "--json")[1])
        return one["state"]

    load(settings, "gateway", inputs)
    landed = rows(settings, commits)
    for interval, said, code in (
        ("1 hour", "fresh", 0),
        ("7 hours", "due", 0),
        ("2 days", "late", 1),
    ):
        age(interval)
        assert state() == said
        assert run("freshness", "--check")[0] == code
    load(settings, "gateway", inputs)
    assert (state(), rows(settings, commits)) == ("fresh", landed)

    age("2 days")
    with pytest.raises(LorelineError):
        load(settings, "gateway", tmp_path / "nowhere")
    code, out, _ = run("freshness", "--check")
    assert code == 1
    assert "gateway: the last load failed: nothing is at" in out
    needed = json.loads(run("status", "--json")[1])["attention"]
    assert [each["command"] for each in needed] == ["loreline ingest gateway", "loreline build"]
    load(settings, "gateway", inputs)
    assert rows(settings, "select error from {}.source_loads") == [(None,)]


def test_health_is_what_maintenance_would_do(
    settings: Settings, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("loreline.operations.overview.WRITES_WORTH_COMPACTING", 6)

    def is_needed() -> bool:
        needed = json.loads(run("status", "--json")[1])["attention"]
        return "loreline maintain" in [each["command"] for each in needed]

    name = f"{settings.prefix}knowledge.things"
    for n in range(6):
        batch = pa.table({"n": [n, n]})
        append(settings, name, batch.to_reader, writer=Writer("i", "m", "v"), job_id=str(n))
    (before,) = json.loads(run("health", "things", "--json")[1])
    assert (before["rows"], before["data_files"], before["small_share"]) == (12, 6, 1.0)
    assert (before["snapshots"], before["needs_compaction"], before["wants"]) == (
        6,
        True,
        "compact",
    )
    code, out, _ = run("health")
    assert code == 0
    assert "loreline maintain" in out and is_needed()
    assert run("maintain")[0] == 0
    kept = "select rows, data_files, needs_compaction from {}.table_health"
    assert rows(settings, kept) == [(12, 1, False)]
    assert "Nothing to tidy" in run("health")[1] and not is_needed()


def test_status_says_what_is_to_be_done(settings: Settings, run: Run, tmp_path: Path) -> None:
    def needed() -> list[str]:
        code, out, _ = run("status", "--json")
        assert code == 0
        return [each["command"] for each in json.loads(out)["attention"]]

    assert needed() == ["loreline ingest --sample day_one"]
    lines = b"\n".join([BROKEN, json.dumps(GOOD).encode()])
    load(settings, "gateway", put(tmp_path / "in", {"a.jsonl": lines}))
    assert needed() == ["loreline quarantine list", "loreline build"]

    builds.begun(settings, "one", "build", "")
    assert needed()[1:] == ["loreline build"] * 2
    results = [("model.loreline.a", "success"), ("model.loreline.b", "error"), ("test.x.c", "fail")]
    builds.ended(
        settings, "one", [{"node": n, "status": s, "message": "\0 no"} for n, s in results]
    )
    builds.begun(settings, "two", "run", "a+")
    builds.ended(
        settings, "two", [{"node": "model.loreline.a", "status": "success", "message": ""}]
    )
    told = json.loads(run("status", "--json")[1])
    assert [build["invocation_id"] for build in told["builds"]] == ["two", "one"]
    assert [f["node"] for f in told["builds"][1]["failures"]] == ["model.loreline.b", "test.x.c"]
    assert any(each["what"] == "2 failures in the last build: b, c" for each in told["attention"])
    code, out, _ = run("status")
    assert code == 0
    assert "Last run of a+" in out and "Last build:" in out and "2 FAILED" in out


def test_status_imports_nothing_heavy(settings: Settings) -> None:
    check = (
        "import sys; from loreline.cli import main; code = main(['status']);"
        "print([name for name in ('torch', 'dbt', 'dlt', 'pyiceberg') if name in sys.modules]);"
        "sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
