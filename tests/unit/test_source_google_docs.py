"""Documents and files are told apart in whatever they come; what is wrong is set aside."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dlt_sources.google_docs.objects import Objects
from dlt_sources.google_docs.settings import DOCUMENTS, FILES
from dlt_sources.json_files import told_complete
from dlt_sources.quarantine import Reject
from loreline.settings import PROJECT_ROOT

NOW = datetime(2026, 10, 1, tzinfo=UTC)
REAL_DATA = Path(os.environ.get("LORELINE_REAL_DATA") or PROJECT_ROOT / "../shared/data")


def document(identity="d1", text="Plums", **fields):
    run = {"textRun": {"content": f"{text}\n", "textStyle": {}}}
    body = {"content": [{"paragraph": {"elements": [run]}}]}
    made = {"documentId": identity, "title": "Till", "revisionId": "r", "tabs": []}
    return made | {"tabs": [{"tabProperties": {}, "documentTab": {"body": body}}]} | fields


def file(identity="d1", **fields):
    return {
        "kind": "drive#file",
        "id": identity,
        "name": "Till",
        "mimeType": "application/vnd.google-apps.document",
        "modifiedTime": "2026-09-30T12:00:00.000Z",
        "trashed": False,
        **fields,
    }


def read(folder, **contents):
    """Documents, files, rejects, and what was read."""
    paths = []
    for name, value in contents.items():
        lines = isinstance(value, list)
        path = folder / f"{name}.{'jsonl' if lines else 'json'}"
        text = "\n".join(map(json.dumps, value)) if lines else json.dumps(value)
        path.write_text(value if isinstance(value, str) else text)
        paths.append((path, path.name))
    found = Objects(paths, NOW)
    documents, files = list(found.documents()), list(found.metadata())
    rejects = [item for item in (*documents, *files) if isinstance(item, Reject)]
    return (
        [item for item in documents if not isinstance(item, Reject)],
        [item for item in files if not isinstance(item, Reject)],
        rejects,
        found,
    )


def test_objects_are_told_apart_as_objects_lines_and_answers(tmp_path):
    answer = {
        "kind": "drive#fileList",
        "files": [file("f1"), {"id": "f2", "mimeType": "image/png"}],
    }
    documents, files, rejects, found = read(
        tmp_path,
        a=document("d1"),
        b=[document("d2"), file("d1"), answer],
        c=answer | {"files": [file("f3", trashed=True)]},
    )
    assert [d.external_id for d in documents] == ["d1", "d2"]
    assert [(f.external_id, f.is_deleted) for f in files] == [
        *(("d1", False), ("f1", False), ("f2", False), ("f3", True))
    ]
    assert files[0].source_updated_at == datetime(2026, 9, 30, 12, tzinfo=UTC)
    assert {d.observed_at for d in (*documents, *files)} == {NOW}
    assert not rejects
    assert found.is_whole


@pytest.mark.parametrize(
    ("value", "reason", "table", "identity"),
    [
        (7, "wrong_type", "", None),
        ({"object": "page"}, "wrong_type", "", None),
        (document(None), "missing_id", "documents", None),
        (document(7), "wrong_type", "documents", None),
        (document(tabs=None), "wrong_type", "documents", "d1"),
        (document(tabs={}), "wrong_type", "documents", "d1"),
        (document(title=7), "wrong_type", "documents", "d1"),
        (
            document(suggestionsViewMode="PREVIEW_SUGGESTIONS_ACCEPTED"),
            *("wrong_type", "documents", "d1"),
        ),
        (file(""), "missing_id", "files", None),
        (file(7), "wrong_type", "files", None),
    ],
)
def test_what_is_wrong_is_set_aside_and_is_not_absent(tmp_path, value, reason, table, identity):
    documents, files, rejects, found = read(tmp_path, a=[value, document("d9"), file("d9")])
    assert [d.external_id for d in documents] == [f.external_id for f in files] == ["d9"]
    assert [(r.reason, r.resource, r.external_id) for r in rejects] == [(reason, table, identity)]
    assert json.loads(rejects[0].raw) == value
    assert found.unreadable == ({identity} if identity else set())
    assert found.is_whole == bool(identity)


@pytest.mark.parametrize(
    "fields",
    [
        {"modifiedTime": "soon"},
        {"createdTime": 7, "name": ["x"]},
        {"permissions": {}, "owners": "me"},
        {"permissions": ["anyone"], "lastModifyingUser": []},
        {"trashed": "no"},
    ],
)
def test_what_is_wrong_with_a_file_lands_since_it_says_who_may_read(tmp_path, fields):
    _, (landed,), rejects, found = read(tmp_path, a=file(**fields))
    assert (landed.external_id, landed.is_deleted) == ("d1", False)
    assert landed.payload == file(**fields) and FILES.hashes(landed.payload)
    assert not rejects and not found.unreadable


def test_a_broken_element_of_an_answer_is_set_aside_alone(tmp_path):
    text = json.dumps({"kind": "drive#fileList", "files": [file("f1"), file("f2"), 0]})
    _, files, rejects, found = read(tmp_path, a=text.replace("0]", '{"id": \ufffe}]'))
    assert [f.external_id for f in files] == ["f1", "f2"]
    assert [r.reason for r in rejects] == ["broken_json"]
    assert not found.is_whole


def test_answers_that_go_on_are_not_the_whole(tmp_path):
    def is_whole(*answers):
        return read(tmp_path, a=list(answers))[-1].is_whole

    first, last = {"files": [file("f1")], "nextPageToken": "t"}, {"files": [file("f2")]}
    assert is_whole(first, last)
    assert not is_whole(first)
    assert not is_whole(last | {"incompleteSearch": True})


def test_completeness_is_said_not_guessed(tmp_path):
    for told, expected in [(None, False), ("{", False), ("[]", False), ("{}", False)]:
        if told:
            (tmp_path / "export.json").write_text(told)
        assert (told_complete(tmp_path) is True) is expected
    (tmp_path / "export.json").write_text('{"complete": true}')
    assert told_complete(tmp_path)


def test_what_changes_without_meaning_makes_no_version():
    picture = {
        "embeddedObject": {"imageProperties": {"contentUri": "https://t/1", "sourceUri": "s"}}
    }
    before = document(revisionId="1", inlineObjects={"i": {"inlineObjectProperties": picture}})
    after = json.loads(json.dumps(before).replace("https://t/1", "https://t/2"))
    after |= {"revisionId": "2", "suggestionsViewMode": "SUGGESTIONS_INLINE"}
    assert DOCUMENTS.hashes(before) == DOCUMENTS.hashes(after)
    assert DOCUMENTS.hashes(before) != DOCUMENTS.hashes(document(text="Pears"))

    owner = {"emailAddress": "a@e.org", "photoLink": "https://p/1", "me": True}
    before = file(owners=[owner], version="3", permissions=[owner])
    others = [owner | {"photoLink": "https://p/2", "me": False}]
    after = before | {"owners": others, "version": "4", "viewedByMeTime": "2026-10-02T00:00:00Z"}
    assert FILES.hashes(before) == FILES.hashes(after)


def test_permissions_and_places_are_metadata():
    content, metadata = FILES.hashes(file())
    for changed in ({"permissions": []}, {"parents": ["x"]}, {"webViewLink": "https://d"}):
        found = FILES.hashes(file(**changed))
        assert found[0] == content
        assert found[1] != metadata
    renamed = FILES.hashes(file(name="Tills"))
    assert (renamed[0] != content, renamed[1]) == (True, metadata)


def test_every_field_that_is_read_of_a_file_exists_in_the_api():
    discovery = REAL_DATA / "google_docs/discovery/drive.v3.json"
    if not discovery.is_file():
        pytest.skip("no discovery document of the Drive API")
    schemas = json.loads(discovery.read_text())["schemas"]
    lists = schemas["FileList"]["properties"]
    assert {"files", "nextPageToken", "incompleteSearch"} <= set(lists)
    models = PROJECT_ROOT / "models/staging/google_docs"
    read = "\n".join(
        (models / f"stg_google_docs__{n}.sql").read_text() for n in ("files", "accounts")
    )
    paths = re.findall(r'"(?:(source\.payload|\w+\.element)|payload)", "\$\.([\w.\[\]]+)"', read)
    assert len(paths) > 15
    elements = {
        "permission.element": "Permission",
        "owner.element": "User",
        "source.payload": "File",
    }
    for column, path in paths:
        kind = elements[column or "source.payload"]
        for key in re.findall(r"\w+(?=\[0\]|\.|$)", path):
            field = schemas[kind]["properties"].get(key)
            assert field, f"{kind} has no {key}"
            kind = field.get("items", field).get("$ref", kind)
    for path in (*FILES.volatile, *FILES.metadata):
        assert path.partition(".")[0] in schemas["File"]["properties"]


def test_every_volatile_field_of_a_document_exists_in_the_api():
    discovery = REAL_DATA / "google_docs/discovery/docs.v1.json"
    if not discovery.is_file():
        pytest.skip("no discovery document of the Docs API")
    schemas = json.loads(discovery.read_text())["schemas"].values()
    fields = {name for schema in schemas for name in schema.get("properties", {})}
    assert {path.removeprefix("**.") for path in DOCUMENTS.volatile} <= fields
