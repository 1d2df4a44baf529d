"""Google Docs through the APIs: what a simulated workspace holds is what is landed of it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dlt_sources.api import Patience
from dlt_sources.google_docs.client import FILE_FIELDS, LANDED_FIELDS
from dlt_sources.google_docs.live import GoogleDocs
from dlt_sources.google_docs.settings import DOCUMENTS, FILES
from loreline.errors import LorelineError
from loreline.settings import PROJECT_ROOT, Settings
from tests.simulators.api import FAULTS, Answer, Server, serving
from tests.simulators.google_drive import (
    ACCOUNT,
    FOLDER,
    TOKEN,
    Workspace,
    credentials,
    mask,
    texts,
)
from tests.simulators.lake import Killed, MemoryLake

REAL_DATA = Path(os.environ.get("LORELINE_REAL_DATA") or PROJECT_ROOT / "../shared/data")
QUICK = Patience(timeout=1, total=300, first_wait=0.01, longest_wait=0.05)


@dataclass
class World:
    """A workspace, its server, and what is landed of it."""

    workspace: Workspace
    server: Server
    lake: MemoryLake
    source: GoogleDocs

    def run(self, **how: Any) -> int:
        """The number of requests of a run."""
        self.server.clear()
        self.workspace.requests = 0
        self.lake.run(self.source, **how)
        return len(self.server.asked)

    def asked(self, part: str) -> int:
        return sum(part in asked.path for asked in self.server.asked)

    @property
    def landed(self) -> dict[str, tuple[Any, ...]]:
        """As `Workspace.expected`."""
        files, documents = self.lake.live(FILES), self.lake.live(DOCUMENTS)
        return {
            i: (
                file["name"],
                file.get("parents"),
                file.get("driveId"),
                tuple(sorted(p["emailAddress"] for p in file["permissions"]))
                if "permissions" in file and file["mimeType"] != FOLDER
                else None,
                texts(documents[i]) if i in documents else None,
            )
            for i, file in files.items()
        }

    def check(self, is_swept: bool = True) -> None:
        assert self.landed == self.workspace.expected()
        if not is_swept:
            return
        # What lost its file is no document either. Of what is deleted while it is in the trash,
        # since its folder is, only a sweep finds the text.
        alone = self.lake.live(DOCUMENTS).keys() - self.lake.live(FILES).keys()
        assert all(self.workspace.is_seen(i) and self.workspace.is_trashed(i) for i in alone)


def world_of(
    workspace: Workspace, server: Server, given: str = TOKEN, patience: Patience = QUICK
) -> World:
    settings = Settings(
        google_url=server.url, google_docs_url=server.url, google_credentials=given, google_rate="0"
    )
    return World(workspace, server, MemoryLake(settings), GoogleDocs(settings, patience))


@pytest.fixture
def world() -> Iterator[World]:
    workspace = Workspace()
    with serving(workspace, hang=3.0) as server:
        yield world_of(workspace, server)


def test_everything_lands_once_and_then_what_changes(world: World) -> None:
    w = world.workspace
    folder = w.create("Plans", kind=FOLDER)
    inside = w.create("Till", folder)
    drive = w.add_drive()
    shared = w.create("Roadmap", drive)
    w.create("Old", folder)
    world.run()
    world.check()
    assert world.asked("/documents/") == 3
    world.run()
    assert (world.lake.rows_landed, world.lake.snapshots) == (0, 0)
    assert world.asked("") == 2  # a log for the account, and one for the drive

    w.edit(inside, "Pears", "a second tab")
    w.rename(shared, "Road map")
    w.move(inside, drive)
    world.run()
    world.check()
    assert world.asked("/documents/") == 2


def test_a_sweep_fetches_what_differs_and_no_more(world: World) -> None:
    w = world.workspace
    drive = w.add_drive()
    kept = [w.create(f"Note {n}", drive) for n in range(5)]
    world.run()
    assert world.asked("/permissions") == 5
    world.run(sweep=True)
    assert (world.asked("/permissions"), world.asked("/documents/")) == (0, 0)
    assert world.lake.rows_landed == 0
    w.rename(kept[0], "Another")
    w.share(kept[1], "bo@example.com")
    # As if the logs had been lost with the cursors: lists tell of both.
    world.lake.cursors.values.clear()
    world.run()
    world.check()
    assert (world.asked("/permissions"), world.asked("/documents/")) == (1, 1)


@pytest.mark.parametrize("is_swept", [False, True])
def test_permissions_become_true(world: World, is_swept: bool) -> None:
    w = world.workspace
    folder = w.create("Plans", kind=FOLDER)
    mine = w.create("Till", folder, shared={"bo@example.com": "reader"})
    drive = w.add_drive()
    inner = w.create("Inner", drive, kind=FOLDER)
    ours = w.create("Roadmap", inner)
    w.join(drive, "cy@example.com")
    world.run()

    def become_true() -> None:
        if is_swept:
            world.lake.cursors.values.clear()
        world.run()
        world.check()

    w.share(mine, "bo@example.com", None)
    w.join(drive, "cy@example.com", None)
    become_true()
    # Told of the folders alone, and of the drive.
    w.share(folder, "di@example.com")
    w.share(inner, "ed@example.com")
    w.join(drive, "fy@example.com")
    become_true()
    everybody = {ACCOUNT, *(f"{name}@example.com" for name in ("ana", "ed", "fy"))}
    assert set(world.landed[ours][3]) == everybody
    w.share(inner, "ed@example.com", None)
    w.share(folder, "di@example.com", None)
    become_true()


def test_what_is_in_a_folder_follows_it(world: World) -> None:
    w = world.workspace
    folder = w.create("Plans", kind=FOLDER)
    deeper = w.create("Deeper", folder, kind=FOLDER)
    note = w.create("Till", deeper)
    drive = w.add_drive()
    world.run()
    for change in (
        lambda: w.trash(folder),
        lambda: w.trash(folder, trashed=False),
        lambda: w.move(folder, drive),
        lambda: w.move(folder, None),
        lambda: w.share(folder, ACCOUNT, None),
        lambda: w.share(folder, ACCOUNT, "writer"),
        lambda: w.edit(note),
        lambda: w.delete(folder),
    ):
        change()
        world.run()
        world.check()


def test_shared_drives_are_joined_and_left(world: World) -> None:
    w = world.workspace
    away = w.add_drive(is_member=False)
    note = w.create("Roadmap", away)
    alone = w.create("For us", away, shared={ACCOUNT: "reader"})
    w.create("Till")
    world.run()
    assert note not in world.landed and alone in world.landed
    w.join(away)
    world.run()
    world.check()
    w.edit(note)
    w.edit(alone)
    world.run()
    world.check()
    w.join(away, role=None)
    world.run()
    world.check()
    assert note not in world.landed and alone in world.landed
    assert "changes:" + away not in world.lake.cursors.values


def test_nothing_new_is_as_many_requests_for_fifty_files_as_for_two_thousand(world: World) -> None:
    w = world.workspace
    w.add_drive()
    asked = []
    for count in (50, 2_000):
        for n in range(count):
            w.create(f"Note {n}")
        world.run()
        asked.append(world.run())
    assert asked == [2, 2]


def test_a_log_that_cannot_be_read_on_is_a_sweep(world: World) -> None:
    w = world.workspace
    note, drive = w.create("Till"), w.add_drive()
    ours = w.create("Roadmap", drive)
    world.run()
    w.forgotten = set(world.lake.cursors.values.values())
    w.edit(note)
    w.edit(ours)
    gone = w.create("Short")
    w.delete(gone)
    world.run()
    world.check()
    assert any("found by listing" in line for line in world.lake.told)
    world.run()
    assert world.asked("") == 2


def test_pages_are_read_to_their_end(world: World) -> None:
    w = world.workspace
    w.page = 3
    drives = [w.add_drive() for _ in range(4)]
    for n in range(10):
        w.create(f"Note {n}", drives[0], shared={f"p{m}@example.com": "reader" for m in range(n)})
        w.create(f"Note {n}")
    world.run()
    world.check()
    for i in list(w.items):
        w.edit(i)
    world.run()
    world.check()


def test_a_killed_run_goes_on_where_it_was(world: World) -> None:
    w = world.workspace
    for n in range(12):
        w.create(f"Note {n}")
    for commits in (0, 1, 2):
        world.lake.dies_after = commits
        with pytest.raises(Killed):
            world.run()
    world.run()
    assert world.asked("/documents/") < 12
    world.check()
    for i in list(w.items):
        w.edit(i)
    world.lake.dies_after = 2
    with pytest.raises(Killed):
        world.run()
    world.run()
    world.check()


def test_too_much_is_not_deleted_by_accident(world: World) -> None:
    w = world.workspace
    drive = w.add_drive()
    for n in range(20):
        w.create(f"Note {n}", drive)
        w.create(f"Till {n}")
    world.run()
    before = world.landed
    w.join(drive, role=None)
    for _ in range(2):
        with pytest.raises(LorelineError, match="20 of 40 google_docs files are gone"):
            world.run(max_deleted_share=0.15)
        assert world.landed == before
    world.lake.cursors.values.clear()
    with pytest.raises(LorelineError, match="20 of 40 google_docs files are gone"):
        world.run(max_deleted_share=0.15)
    assert world.landed == before
    world.run(sweep=True, max_deleted_share=1.0)
    world.check()


def test_edits_during_a_walk_come_with_it_or_with_the_next(world: World) -> None:
    w = world.workspace
    notes = [w.create(f"Note {n}") for n in range(10)]

    def meddle(asked: Any) -> None:
        w.notice = None
        if "/documents/" in asked.path:
            w.edit(notes[3])
            w.share(notes[5], "bo@example.com")
            w.delete(notes[7])
            w.trash(notes[8])
            w.create("New")
        else:
            w.notice = meddle

    w.notice = meddle
    world.run()
    world.run()
    world.check()


@pytest.mark.parametrize("part", ["/permissions", "/documents/"])
def test_what_goes_while_it_is_fetched_is_gone(world: World, part: str) -> None:
    w = world.workspace
    notes = [w.create(f"Note {n}", w.add_drive()) for n in range(2)]
    world.run()
    for note in notes:
        w.edit(note)

    def meddle(asked: Any) -> None:
        for note in notes:
            if note in w.items and note in asked.path and part in asked.path:
                w.delete(note)

    w.notice = meddle
    world.run()
    assert world.landed == {} and not w.items
    assert not world.lake.live(DOCUMENTS)


def test_lists_that_lag_behind_change_nothing(world: World) -> None:
    w = world.workspace
    note = w.create("Till")
    world.run()
    old = json.loads(json.dumps(w._file(note)))
    w.rename(note, "Tills")
    world.run()
    show = w._file
    w._file = lambda i: old  # type: ignore[method-assign]
    world.run(sweep=True)
    w._file = show  # type: ignore[method-assign]
    world.check()


def test_who_may_read_is_not_guessed_where_it_is_not_told(world: World) -> None:
    w = world.workspace
    note = w.create("Till", shared={ACCOUNT: "reader"})
    world.run()
    world.check()
    assert "permissions" not in world.lake.live(FILES)[note]
    assert any("1 documents do not tell" in line for line in world.lake.told)


def test_hidden_ids_of_permissions_are_asked_for_each_time(world: World) -> None:
    w = world.workspace
    w.hidden = True
    drive = w.add_drive()
    inner = w.create("Inner", drive, kind=FOLDER)
    w.create("Roadmap", inner)
    world.run()
    w.share(inner, "bo@example.com")
    world.run()
    world.check()
    world.run(sweep=True)
    assert world.asked("/permissions") == 1


def hostile() -> Iterator[tuple[Any, str]]:
    tabs = [{"documentTab": {}}]
    yield [], "refused"
    yield {}, "refused"
    yield {"documentId": "other", "tabs": tabs}, "refused"
    yield {"documentId": "d1", "title": 7, "tabs": tabs}, "wrong_type"
    yield {"documentId": "d1", "tabs": {}}, "wrong_type"
    yield {"documentId": "d1"}, "wrong_type"
    yield {"documentId": "d1", "title": "a\0b", "tabs": tabs}, "nul_byte"


@pytest.mark.parametrize(("answer", "reason"), hostile())
def test_a_document_that_is_wrong_is_set_aside(world: World, answer: Any, reason: str) -> None:
    w = world.workspace
    note, other = w.create("Till"), w.create("Other")
    w.hostile[note] = answer
    world.run()
    assert [(r.reason, r.external_id) for r in world.lake.rejects] == [(reason, note)]
    assert world.lake.live(DOCUMENTS).keys() == {other}
    w.hostile.clear()
    w.edit(note)
    world.run()
    world.check()


@pytest.mark.parametrize(
    ("status", "reason"),
    [(400, "FAILED_PRECONDITION"), (403, "insufficientFilePermissions"), (404, "NOT_FOUND")],
)
def test_a_document_that_is_not_given_is_counted(world: World, status: int, reason: str) -> None:
    w = world.workspace
    note, _ = w.create("Large"), w.create("Other")
    w.refused[note] = (status, reason)
    world.run()
    assert [(r.reason, r.external_id) for r in world.lake.rejects] == [("refused", note)]
    assert world.lake.live(FILES).keys() == w.items.keys()


def test_an_api_that_is_not_switched_on_is_no_refusal_of_documents(world: World) -> None:
    note = world.workspace.create("Till")
    world.workspace.refused[note] = (403, "accessNotConfigured")
    with pytest.raises(LorelineError, match="accessNotConfigured"):
        world.run()
    assert not world.lake.rejects and not world.lake.cursors.values


@pytest.mark.parametrize(
    "changes",
    [
        [7, None, "x", [], {}, {"fileId": 7}, {"changeType": "drive"}, {"fileId": ""}],
        [{"fileId": "d1", "file": 7}, {"fileId": "d1", "file": {"id": "d2"}}],
    ],
)
def test_changes_that_are_wrong_are_set_aside(world: World, changes: list[Any]) -> None:
    w = world.workspace
    w.create("Till")
    world.run()
    show = w._changes
    w._changes = lambda query: Answer(  # type: ignore[method-assign]
        show(query).body | {"changes": changes}
    )
    world.run()
    assert len(world.lake.rejects) == len(changes)
    world.check()


@pytest.mark.parametrize("files", [[7], [{}], [{"id": 7}], [{"id": ""}], [None]])
def test_files_that_are_wrong_are_set_aside(world: World, files: list[Any]) -> None:
    w = world.workspace
    w.create("Till")
    show = w._files
    w._files = lambda query: Answer(  # type: ignore[method-assign]
        show(query).body | {"files": [*show(query).body["files"], *files]}
    )
    world.run()
    assert len(world.lake.rejects) == 1
    world.check()


@pytest.mark.parametrize("body", [[], {"files": 7}, {"files": [], "nextPageToken": 7}])
def test_a_list_that_is_none_ends_the_run_and_deletes_nothing(world: World, body: Any) -> None:
    w = world.workspace
    w.create("Till")
    world.run()
    before = world.landed
    w._files = lambda query: Answer(body)  # type: ignore[method-assign]
    with pytest.raises(LorelineError, match="in a way that is not known"):
        world.run(sweep=True)
    assert world.landed == before


def test_an_incomplete_list_deletes_nothing(world: World) -> None:
    w = world.workspace
    w.create("Till")
    world.run()
    before = world.landed
    w._files = lambda query: Answer(  # type: ignore[method-assign]
        {"files": [], "incompleteSearch": True}
    )
    with pytest.raises(LorelineError, match="could not list all"):
        world.run(sweep=True)
    assert world.landed == before


@pytest.mark.parametrize("fault", [*FAULTS, "403"])
def test_every_request_of_a_run_may_fail(world: World, fault: str) -> None:
    w = world.workspace
    drive = w.add_drive()
    for n in range(3):
        w.create(f"Note {n}", drive)
    if fault == "403":
        w.limited = {*range(0, 100, 2)}
        w.requests = 0
        world.lake.run(world.source)
    else:
        world.server.clear()
        world.server.faults = dict.fromkeys(range(0, 14, 4), fault)
        world.lake.run(world.source)
    world.check()


def test_a_notification_is_a_run_of_the_logs(world: World) -> None:
    w = world.workspace
    note = w.create("Till")
    world.run()
    w.edit(note)
    world.lake.run(world.source, names=["changes"])
    world.check()


def test_channels_are_made_and_renewed(world: World) -> None:
    w = world.workspace
    drive = w.add_drive()
    told = {"google_channel_url": "https://lore.example/webhooks/google-drive"}
    world.source.settings = replace(world.source.settings, google_channel_token="s", **told)
    for _ in range(2):
        world.run()
    assert [(c["driveId"], c["token"], c["type"]) for c in w.channels] == [
        ("", "s", "web_hook"),
        (drive, "s", "web_hook"),
    ]
    cursors = world.lake.cursors.values
    week = datetime.now(UTC) + timedelta(days=6)
    assert datetime.fromisoformat(cursors["channel:"]["expires_at"]) > week
    cursors["channel:"]["expires_at"] = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    w.join(drive, role=None)
    world.run()
    assert len({c["id"] for c in w.channels}) == 3
    assert "channel:" + drive not in cursors

    cursors.pop("channel:")
    w._watch = lambda asked: Answer({"error": {"code": 401}}, 401)  # type: ignore[method-assign]
    note = w.create("Till")
    world.run()
    assert note in world.landed
    assert any("no notifications come" in line for line in world.lake.told)


def test_a_plan_asks_little_and_lands_nothing(world: World) -> None:
    w = world.workspace
    drive = w.add_drive()
    notes = [w.create(f"Note {n}", drive if n % 2 else None) for n in range(10)]
    plan = world.lake.plan(world.source)
    assert (plan.objects, len(world.server.asked)) == (10, 3)
    assert plan.requests >= 15
    world.run()
    w.edit(notes[0])
    world.server.clear()
    plan = world.lake.plan(world.source)
    assert (plan.objects, plan.requests, len(world.server.asked)) == (1, 4, 2)
    world.run()
    world.check()


def test_a_service_account_fetches_its_tokens(tmp_path: Path) -> None:
    workspace = Workspace()
    workspace.create("Till")
    with serving(workspace) as server:
        key = tmp_path / "key.json"
        key.write_text(credentials(server.url))
        world = world_of(workspace, server, str(key))
        world.server.faults = {0: "500", 1: "no json", 2: "reset"}
        world.lake.run(world.source)
        world.check()
        # One answer was no JSON.
        assert world.asked("/token") == 2

        def expire(asked: Any) -> None:
            if "/documents/" in asked.path:
                workspace.expire_tokens()
                workspace.notice = None

        for i in list(workspace.items):
            workspace.edit(i)
        workspace.notice = expire
        world.run()
        world.check()
        assert world.asked("/token") == 2, "one at the beginning, one when it was refused"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"type": "service_account"}', None])
def test_a_key_that_is_none_is_said_to_be(world: World, tmp_path: Path, text: str | None) -> None:
    key = tmp_path / "key.json"
    if text is not None:
        key.write_text(text)
    with pytest.raises(LorelineError, match="no credentials of Google in"):
        world_of(world.workspace, world.server, str(key)).run()


def test_a_token_that_is_refused_is_said_to_be(world: World) -> None:
    with pytest.raises(LorelineError, match="check LORELINE_GOOGLE_CREDENTIALS"):
        world_of(world.workspace, world.server, "another").run()


def discovery(name: str) -> Any:
    path = REAL_DATA / "google_docs/discovery" / name
    if not path.is_file():
        pytest.skip(f"no {name} of Google's")
    return json.loads(path.read_text())


def test_whatever_is_asked_for_exists(world: World) -> None:
    drive_api, docs_api = discovery("drive.v3.json"), discovery("docs.v1.json")
    methods = [
        (api, method, re.compile(re.sub(r"\{\w+\}", "[^/]+", prefix + method["path"]) + "$"))
        for api, prefix in ((drive_api, "/drive/v3/"), (docs_api, "/"))
        for resource in api["resources"].values()
        for method in resource["methods"].values()
    ]
    w = world.workspace
    drive = w.add_drive()
    folder = w.create("Inner", drive, kind=FOLDER)
    note = w.create("Till", folder)
    w.page = 1
    other = w.create("Other")
    world.run()
    asked = list(world.server.asked)
    w.share(folder, "bo@example.com")
    w.edit(note)
    w.delete(other)
    world.run(sweep=True)
    seen = set()
    for each in (*asked, *world.server.asked):
        api, method, _ = next(
            m for m in methods if m[1]["httpMethod"] == each.method and m[2].match(each.path)
        )
        seen.add(method["id"])
        known = api["parameters"] | method["parameters"]
        for name, value in each.query.items():
            assert not known[name].get("deprecated")
            assert value in known[name].get("enum", [value])
        assert int(each.query.get("pageSize", 1)) <= int(
            re.search(r"maximum value is (\d+)", known["pageSize"]["description"])[1]
            if "pageSize" in known
            else 1
        )
        check_fields(mask(each.query.get("fields", "")), method["response"]["$ref"], api["schemas"])
    assert seen == {
        *("drive.changes.getStartPageToken", "drive.changes.list", "drive.drives.list"),
        *("drive.files.get", "drive.files.list", "drive.permissions.list", "docs.documents.get"),
    }


def check_fields(tree: dict[str, Any], schema: str, schemas: Any) -> None:
    for name, below in tree.items():
        found = schemas[schema]["properties"][name]
        assert not found.get("description", "").startswith("Deprecated")
        if below:
            check_fields(below, found.get("items", found)["$ref"], schemas)


def test_an_export_as_the_readme_says_has_the_same_fields() -> None:
    readme = (PROJECT_ROOT / "dlt_sources/google_docs/README.md").read_text()
    told = re.search(r"files\(([\w,]+)\)", readme)
    assert told and set(told[1].split(",")) == set(LANDED_FIELDS.split(","))
    assert set(FILE_FIELDS.split(",")) - set(told[1].split(",")) == {"permissionIds", "version"}
