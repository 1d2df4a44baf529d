"""Google Docs end to end: answers of the APIs in, raw tables out, deletions included."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dlt_sources import load
from loreline.errors import LorelineError
from loreline.lake import duck

DAY_1, DAY_2, DAY_3, DAY_4 = (datetime(2026, 10, n, tzinfo=UTC) for n in (1, 2, 3, 4))


def document(identity, text="Plums"):
    run = {"textRun": {"content": f"{text}\n", "textStyle": {}}}
    tab = {"documentTab": {"body": {"content": [{"paragraph": {"elements": [run]}}]}}}
    return {"documentId": identity, "title": identity, "revisionId": "r", "tabs": [tab]}


def file(identity, **fields):
    made = {"kind": "drive#file", "id": identity, "name": identity, "trashed": False}
    return made | {"modifiedTime": "2026-09-30T12:00:00.000Z"} | fields


def write(folder: Path, at: datetime, *objects, complete: bool | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    said = {"exported_at": at.isoformat()} | ({} if complete is None else {"complete": complete})
    (folder / "export.json").write_text(json.dumps(said))
    (folder / "objects.jsonl").write_text("\n".join(map(json.dumps, objects)))
    return folder


def states(settings, table):
    """The versions of each object in the order in which they landed, as deleted or not."""
    with duck.connect(settings) as lake:
        return dict(
            lake.execute(
                "select external_id, array_agg(is_deleted order by landed_at)"
                f" from lake.{settings.prefix}raw_google_docs.{table} group by 1"
            ).fetchall()
        )


def test_versions_land_once_and_old_exports_change_nothing(settings, tmp_path):
    first = write(tmp_path / "1", DAY_1, document("d1"), file("d1"), file("f1"))
    summary = load(settings, "google_docs", first)
    assert summary.landed == {"documents": 1, "files": 2}
    again = load(settings, "google_docs", first, again=True)
    assert (again.rows, again.unchanged, again.snapshots) == (0, 3, {})
    shared = [{"type": "anyone", "role": "reader"}]
    second = write(
        tmp_path / "2",
        DAY_3,
        document("d1", "Pears") | {"revisionId": "s"},
        file("d1", permissions=shared),
        file("f1", trashed=True, viewedByMeTime="2026-10-03T00:00:00Z"),
    )
    summary = load(settings, "google_docs", second)
    assert (summary.landed, summary.tombstones) == ({"documents": 1, "files": 2}, 1)
    between = write(tmp_path / "between", DAY_2, document("d1", "Apples"), file("f1"))
    summary = load(settings, "google_docs", between)
    assert (summary.rows, summary.outdated) == (0, 2)
    back = write(tmp_path / "3", DAY_4, document("d1"), file("f1"))
    assert load(settings, "google_docs", back).landed == {"documents": 1, "files": 1}
    assert states(settings, "documents") == {"d1": [False] * 3}
    assert states(settings, "files") == {"d1": [False] * 2, "f1": [False, True, False]}


def test_only_a_complete_export_deletes_and_what_is_unreadable_is_not_absent(settings, tmp_path):
    everything = [each for n in range(4) for each in (document(f"d{n}"), file(f"d{n}"))]
    load(settings, "google_docs", write(tmp_path / "1", DAY_1, *everything))
    part = [document("d0"), file("d0")]
    assert load(settings, "google_docs", write(tmp_path / "2", DAY_2, *part)).tombstones == 0
    # d1 is there and cannot be read; nobody can say whose the last line is.
    broken = [*part, {"documentId": "d1", "tabs": 7}, file("d1")]
    unknown = write(tmp_path / "3", DAY_2, *broken, {"documentId": None}, complete=True)
    assert load(settings, "google_docs", unknown).tombstones == 0
    complete = write(tmp_path / "4", DAY_3, *broken, complete=True)
    assert load(settings, "google_docs", complete).tombstones == 4
    gone = {"d0": [False], "d1": [False], "d2": [False, True], "d3": [False, True]}
    assert states(settings, "documents") == states(settings, "files") == gone
    back = write(tmp_path / "5", DAY_4, *everything, complete=True)
    assert load(settings, "google_docs", back).landed == {"documents": 2, "files": 2}


def test_a_table_of_which_an_export_says_nothing_is_not_swept(settings, tmp_path):
    everything = [each for n in range(3) for each in (document(f"d{n}"), file(f"d{n}"))]
    load(settings, "google_docs", write(tmp_path / "1", DAY_1, *everything))
    # The files were forgotten, then the documents: each export tells of the other table alone.
    texts = write(tmp_path / "2", DAY_2, document("d0"), document("d1"), complete=True)
    assert load(settings, "google_docs", texts).tombstones == 1
    told = write(tmp_path / "3", DAY_3, {"files": [file("d0")]}, complete=True)
    assert load(settings, "google_docs", told).tombstones == 2
    assert states(settings, "documents") == {"d0": [False], "d1": [False], "d2": [False, True]}
    assert states(settings, "files") == {"d0": [False], "d1": [False, True], "d2": [False, True]}
    # An empty list is one.
    nothing = write(tmp_path / "4", DAY_4, {"files": []}, complete=True)
    assert load(settings, "google_docs", nothing).tombstones == 1


def test_a_sweep_of_too_much_deletes_nothing(settings, tmp_path, monkeypatch):
    everything = [document(f"d{n}") for n in range(30)]
    load(settings, "google_docs", write(tmp_path / "1", DAY_1, *everything))
    little = write(tmp_path / "2", DAY_2, document("d0", "Pears"), complete=True)
    with pytest.raises(
        LorelineError, match=r"29 of 29 .* are absent|29 of 30 .* are absent"
    ) as refused:
        load(settings, "google_docs", little)
    assert "SOURCES__GOOGLE_DOCS__MAX_DELETED_SHARE=1" in refused.value.next_step
    assert states(settings, "documents")["d0"] == [False] * 2
    monkeypatch.setenv("SOURCES__GOOGLE_DOCS__MAX_DELETED_SHARE", "1")
    assert load(settings, "google_docs", little).tombstones == 29


def test_a_real_answer_lands(settings, real_data):
    real = real_data / "google_docs/document_Single-Tab.json"
    assert load(settings, "google_docs", real, observed_at=DAY_1).landed == {"documents": 1}
    assert load(settings, "google_docs", real, observed_at=DAY_2).unchanged == 1
