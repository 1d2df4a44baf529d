"""Google Docs through the APIs into a real lake, beside the file route."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dlt_sources import load
from dlt_sources.google_docs import live as live_module
from dlt_sources.google_docs.live import GoogleDocs
from dlt_sources.landing import LoadSummary
from dlt_sources.live import load_live, plan_live
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.postgres import connect, in_schema
from loreline.settings import Settings
from tests.simulators.api import Server, serving
from tests.simulators.google_drive import FOLDER, TOKEN, Workspace, texts
from tests.unit.test_google_docs_live import QUICK


@pytest.fixture
def workspace() -> Workspace:
    return Workspace()


@pytest.fixture
def server(workspace: Workspace) -> Iterator[Server]:
    with serving(workspace) as running:
        yield running


@pytest.fixture
def live(settings: Settings, server: Server) -> GoogleDocs:
    own = dataclasses.replace(
        settings,
        google_url=server.url,
        google_docs_url=server.url,
        google_credentials=TOKEN,
        google_rate="0",
    )
    return GoogleDocs(own, QUICK)


def run(live: GoogleDocs, **how: Any) -> LoadSummary:
    return load_live(live.settings, "google_docs", live, **how)


def newest(settings: Settings, table: str) -> dict[str, Any]:
    """Payloads by id of what is landed and not deleted."""
    with duck.connect(settings) as lake:
        rows = lake.execute(
            f"select external_id, payload from lake.{settings.prefix}raw_google_docs.{table}"
            " qualify row_number() over ("
            "partition by external_id order by observed_at desc, landed_at desc) = 1"
            " and not is_deleted"
        ).fetchall()
    return {identity: json.loads(payload) for identity, payload in rows}


def check(workspace: Workspace, settings: Settings) -> None:
    files, documents = newest(settings, "files"), newest(settings, "documents")
    expected = workspace.expected()
    assert files.keys() == expected.keys()
    for identity, (name, parents, drive, readers, tabs) in expected.items():
        file = files[identity]
        assert (file["name"], file.get("parents"), file.get("driveId")) == (name, parents, drive)
        if tabs is not None:
            assert texts(documents[identity]) == tabs
        if readers is not None:
            assert tuple(sorted(p["emailAddress"] for p in file["permissions"])) == readers


def test_days_of_a_workspace(workspace: Workspace, server: Server, live: GoogleDocs) -> None:
    w, settings = workspace, live.settings
    plans = w.create("Plans", kind=FOLDER)
    inside = w.create("Till", plans)
    drive = w.add_drive()
    roadmap = w.create("Roadmap", drive)
    w.join(drive, "cy@example.com")
    assert plan_live(settings, "google_docs", live).objects == 2
    assert run(live).landed == {"files": 3, "documents": 2}
    check(w, settings)
    for sweep in (False, True):
        again = run(live, sweep=sweep)
        assert (again.rows, again.snapshots) == (0, {})

    w.edit(inside, "Pears", "another tab")
    w.share(plans, "bo@example.com")
    w.join(drive, "cy@example.com", None)
    run(live)
    check(w, settings)
    w.move(inside, drive)
    w.trash(roadmap)
    w.rename(plans, "Ideas")
    server.faults = {1: "500", 3: "cut", 4: "429"}
    run(live)
    check(w, settings)
    w.trash(roadmap, trashed=False)
    w.delete(plans)
    run(live, deliveries={"changes": "delivery-7"})
    check(w, settings)
    with duck.connect(settings) as lake:
        table = f"lake.{settings.prefix}raw_google_docs.files"
        brought = lake.execute(
            f"select distinct landed_by, delivery_id from {table} where landed_by <> 'api'"
        ).fetchall()
    assert brought == [("webhook", "delivery-7")]


def test_a_sweep_that_would_delete_much_stops(
    workspace: Workspace, live: GoogleDocs, settings: Settings
) -> None:
    drive = workspace.add_drive()
    for n in range(12):
        workspace.create(f"Note {n}", drive if n else None)
    run(live)
    workspace.join(drive, role=None)
    for sweep in (False, True):
        with pytest.raises(LorelineError, match="11 of 12 google_docs files are gone"):
            run(live, sweep=sweep)
    assert len(newest(settings, "files")) == 12
    assert run(live, sweep=True, allow_deletes=True).tombstones == 22
    check(workspace, settings)


def test_a_run_that_ends_before_its_cursor_is_saved_doubles_nothing(
    workspace: Workspace, live: GoogleDocs, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = [workspace.create(f"Note {n}") for n in range(3)]
    run(live)
    for note in notes:
        workspace.edit(note)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("dlt_sources.cursors.Cursors.save", die)
        with pytest.raises(KeyboardInterrupt):
            run(live)
    check(workspace, settings)
    assert run(live).rows == 0
    with connect(settings) as connection:
        query = in_schema(settings, "operations", "select name, value from {}.source_cursors")
        assert dict(connection.execute(query).fetchall())[live_module.LOG] == ":" + str(
            workspace.ticks
        )


def export(workspace: Workspace, folder: Path, at: datetime) -> Path:
    """What the README says to write into files."""
    folder.mkdir()
    told = {"exported_at": at.isoformat()}
    (folder / "export.json").write_text(json.dumps(told))
    answers = []
    for identity in workspace.items:
        file = workspace._file(identity)
        if workspace.drive_of(identity):
            file["permissions"] = workspace._permission_list(identity)
        left_out = ("permissionIds", "version", "size")
        answers.append({name: file[name] for name in file if name not in left_out})
        query = {"includeTabsContent": "true", "suggestionsViewMode": "SUGGESTIONS_INLINE"}
        answers.append(workspace._document(identity, query).body)
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    return folder


def test_files_and_apis_mix_in_any_order(
    workspace: Workspace, live: GoogleDocs, settings: Settings, tmp_path: Path
) -> None:
    drive = workspace.add_drive()
    note, _ = workspace.create("Till"), workspace.create("Roadmap", drive)
    began = datetime.now(UTC)
    first = export(workspace, tmp_path / "first", began)
    assert load(settings, "google_docs", first).rows == 4
    assert run(live).rows == 0
    workspace.edit(note)
    newer = export(workspace, tmp_path / "newer", datetime.now(UTC))
    assert load(settings, "google_docs", newer).rows == 2
    assert run(live).rows == 0
    workspace.edit(note)
    assert run(live).rows == 2
    same = export(workspace, tmp_path / "same", datetime.now(UTC))
    assert load(settings, "google_docs", same).rows == 0
    old = load(settings, "google_docs", first, again=True)
    assert (old.rows, old.outdated) == (0, 2)
    later = load(settings, "google_docs", same, observed_at=began + timedelta(hours=1), again=True)
    assert later.rows == 0
    check(workspace, settings)
