"""Notion's own export end to end: a ZIP in, the same raw table as the API's out."""

import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dlt_sources import load
from loreline.errors import LorelineError
from loreline.lake import duck

DAY_1, DAY_2, DAY_3, DAY_4 = (datetime(2026, 10, n, tzinfo=UTC) for n in (1, 2, 3, 4))
IDS = [f"{n:032x}" for n in range(4)]
DASHED = [f"{i[:8]}-{i[8:12]}-{i[12:16]}-{i[16:20]}-{i[20:]}" for i in IDS]


def write_zip(path: Path, texts: dict[int, str], **others: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for n, text in texts.items():
            archive.writestr(f"Page {IDS[n]}.md", text)
        for name, content in others.items():
            archive.writestr(name, content)
    return path


def write_api(folder: Path, **pages: bool) -> Path:
    """Pages by number, each in the bin or not."""
    folder.mkdir()
    values = [
        {"object": "page", "id": DASHED[int(n[1:])], "in_trash": trashed, "properties": {}}
        for n, trashed in pages.items()
    ]
    (folder / "pages.json").write_text(json.dumps(values))
    return folder


def states(settings):
    """Route and deletion of each version of each page, in the order in which they landed."""
    with duck.connect(settings) as lake:
        rows = lake.execute(
            "select external_id, payload like '%\"markdown\":%', is_deleted"
            f" from lake.{settings.prefix}raw_notion.pages order by landed_at"
        ).fetchall()
    found = {}
    for external_id, is_export, is_deleted in rows:
        state = ("export" if is_export else "api") + (" gone" if is_deleted else "")
        found.setdefault(DASHED.index(external_id), []).append(state)
    return found


def test_an_export_lands_beside_what_the_api_said(settings, tmp_path):
    load(settings, "notion", write_api(tmp_path / "1", p0=False, p1=False), observed_at=DAY_1)
    load(settings, "notion", write_api(tmp_path / "3", p1=True), observed_at=DAY_3)
    texts = {0: "# One\n\ntext", 1: "# Two", 2: "# Three"}
    others = {"picture.png": b"x", "notes.txt": b"x", "no id.md": b"# ?"}
    export = write_zip(tmp_path / "export.zip", texts, **others)

    older = load(settings, "notion", export, observed_at=DAY_2)
    assert older.landed == {"pages": 2}
    assert (older.outdated, older.tombstones) == (1, 0)
    assert older.passed_over == {"attachments": 2}
    assert older.quarantined == {"missing_id": 1}
    again = load(settings, "notion", export, observed_at=DAY_2, again=True)
    assert (again.rows, again.unchanged, again.outdated) == (0, 2, 1)

    # Two is shown again, and Three is absent, which says nothing.
    part = write_zip(tmp_path / "part.zip", {1: "# Two"})
    assert load(settings, "notion", part, observed_at=DAY_4).landed == {"pages": 1}
    assert states(settings) == {
        0: ["api", "export"],
        1: ["api", "api gone", "export"],
        2: ["export"],
    }


def test_a_folder_may_hold_both(settings, tmp_path):
    folder = write_api(tmp_path / "both", p0=False)
    (folder / "export.json").write_text('{"exported_at": "2026-10-01T00:00:00Z"}')
    write_zip(folder / "Export-0b-Part-1.zip", {1: "# Two"}, picture=b"x")
    summary = load(settings, "notion", folder)
    assert summary.landed == {"pages": 2}
    assert summary.passed_over == {"attachments": 1}
    assert states(settings) == {0: ["api"], 1: ["export"]}


def test_what_is_neither_is_refused(settings, tmp_path):
    nothing = write_zip(tmp_path / "nothing.zip", {}, picture=b"x")
    with pytest.raises(LorelineError, match="holds no page of Notion"):
        load(settings, "notion", nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(LorelineError, match=r"in .*empty"):
        load(settings, "notion", tmp_path / "empty")
