"""Google Docs from answers of its APIs, and Notion by two routes at once, from files to answers."""

from __future__ import annotations

import json
import uuid
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end.exports import Page, document_of, page_id, write_notion
from tests.end_to_end.lakehouse import NO_TESTS, Lakehouse

DOCUMENTS = ("build", "--select", "+documents_current", "+document_links", "+people", *NO_TESTS)


def at(hour: int) -> str:
    return f"2026-10-05T{hour:02}:00:00+00:00"


# ---- Google Docs


def document(identity: str, *paragraphs: str, link: str = "") -> dict[str, Any]:
    """An answer of `documents.get`: a tab of paragraphs, and a link."""
    runs = [{"textRun": {"content": f"{text}\n", "textStyle": {}}} for text in paragraphs]
    if link:
        style = {"link": {"url": link}}
        runs.append({"textRun": {"content": "see there\n", "textStyle": style}})
    content = [{"paragraph": {"elements": [run]}} for run in runs]
    tab = {"tabProperties": {"tabId": "t.0"}, "documentTab": {"body": {"content": content}}}
    return {
        "documentId": identity,
        "title": identity,
        "revisionId": uuid.uuid4().hex,
        "tabs": [tab],
    }


def file(identity: str, *readers: dict[str, str], trashed: bool = False) -> dict[str, Any]:
    """Metadata of a document of Ana, read by her and by others."""
    ana = {"emailAddress": "Ana@example.com", "displayName": "Ana Ferreira"}
    return {
        "kind": "drive#file",
        "id": identity,
        "name": identity,
        "mimeType": "application/vnd.google-apps.document",
        "createdTime": at(0),
        "modifiedTime": at(0),
        "trashed": trashed,
        "owners": [ana],
        "permissions": [{"type": "user", "role": "owner", **ana}, *readers],
        "webViewLink": f"https://docs.google.com/document/d/{identity}/edit?usp=drivesdk",
    }


ANYONE = {"type": "anyone", "role": "reader"}
DOMAIN = {"type": "domain", "role": "reader", "domain": "example.com"}
BO = {"type": "user", "role": "reader", "emailAddress": "bo@elsewhere.org", "displayName": "Bo"}
GROUP = {"type": "group", "role": "reader", "emailAddress": "ops@example.com"}


def write_google_docs(folder: Path, hour: int, *objects: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "export.json").write_text(json.dumps({"exported_at": at(hour)}))
    (folder / "objects.jsonl").write_text("\n".join(map(json.dumps, objects)))
    return folder


def versions(lakehouse: Lakehouse, doc_id: str) -> list[tuple[Any, ...]]:
    """Number, text, readers and deletion of each version of a document."""
    return lakehouse.query(
        "select version_number, body, allowed_principals, is_deleted"
        " from {lake}knowledge.documents where doc_id = $1 order by 1",
        doc_id,
    )


@pytest.mark.soak
def test_google_documents_are_found_by_who_may_read_them(
    lakehouse: Lakehouse, tmp_path: Path
) -> None:
    texts = {
        "open-doc": (
            document("open-doc", "Quinces are ripe in October."),
            file("open-doc", ANYONE),
        ),
        "home-doc": (document("home-doc", "Quinces cost two euros."), file("home-doc", DOMAIN)),
        "own-doc": (
            document(
                "own-doc",
                "Quinces bore me.",
                link="https://docs.google.com/document/d/open-doc/edit",
            ),
            file("own-doc", BO, GROUP),
        ),
        "unknown-doc": (document("unknown-doc", "Quinces of which nobody knows."),),
    }
    objects = [each for pair in texts.values() for each in pair]
    lakehouse.land("google_docs", write_google_docs(tmp_path / "1", 1, *objects))
    lakehouse.build()

    def found(*principals: str) -> set[str]:
        return {i.removeprefix("google_docs:") for i in lakehouse.found("quinces", *principals)}

    assert found() == {"open-doc"}
    assert found("google_docs:ana@example.com", "domain:example.com") == {
        *("open-doc", "home-doc", "own-doc")
    }
    assert found("google_docs:ops@example.com") == {"open-doc", "own-doc"}
    # An address, a name and a principal are one person, who has what the domain has.
    for asked in ("ana@example.com", "Ana Ferreira", "google_docs:ana@example.com"):
        shown = lakehouse.command("search", "quinces", "--as", asked, "-k", "9", "--json")
        assert shown.exit_code == 0, shown.errors
        hits = json.loads(shown.output)
        assert {hit["doc_id"].removeprefix("google_docs:") for hit in hits["hits"]} == {
            *("open-doc", "home-doc", "own-doc")
        }
    linked = lakehouse.query(
        "select links.to_doc_id from {lake}knowledge.document_links as links"
        " inner join {lake}knowledge.documents_current as documents"
        " on links.from_document_version_id = documents.document_version_id"
        " where documents.external_id = 'own-doc' and links.kind = 'mention'"
    )
    assert linked == [("google_docs:open-doc",)]

    # A permission is taken away, and a file is in the bin: they are computed again, and no other;
    # nothing is embedded.
    before = lakehouse.snapshots()
    changed = [
        document("home-doc", "Quinces cost two euros."),
        file("home-doc"),
        file("open-doc", ANYONE, trashed=True),
        file("own-doc", BO, GROUP),
    ]
    lakehouse.land("google_docs", write_google_docs(tmp_path / "2", 2, *changed))
    assert not lakehouse.build().encoded
    assert found("google_docs:bo@elsewhere.org", "domain:example.com") == {"own-doc"}
    readers = [row[2] for row in versions(lakehouse, "google_docs:home-doc")]
    assert readers == [
        ["domain:example.com", "google_docs:ana@example.com"],
        ["google_docs:ana@example.com"],
    ]
    computed = lakehouse.query(
        "select external_id from {lake}knowledge.google_docs_documents"
        " where _batch = (select max(_batch) from {lake}knowledge.google_docs_documents) order by 1"
    )
    assert computed == [("home-doc",), ("open-doc",)]
    assert lakehouse.snapshots()["embedding.text_embeddings"] == before["embedding.text_embeddings"]

    # Back as it was.
    back = write_google_docs(tmp_path / "3", 3, file("open-doc", ANYONE))
    lakehouse.land("google_docs", back)
    assert not lakehouse.build().encoded
    assert found() == {"open-doc"}
    assert [row[3] for row in versions(lakehouse, "google_docs:open-doc")] == [False, True, False]


# ---- What says who may read


def test_what_breaks_where_it_is_said_who_may_read_closes_and_opens_nothing(
    lakehouse: Lakehouse, tmp_path: Path
) -> None:
    """Rows of these tables land whatever they break: set aside, they would leave all open."""

    def land(
        hour: int, permissions: Any, team: dict[str, Any], channel: dict[str, Any]
    ) -> list[tuple[str, list[str]]]:
        shared = {**file("shared-doc"), "permissions": permissions}
        issue = {"id": "shared-issue", "identifier": "OPEN-1", "title": "Sloes", "description": ""}
        objects = {
            "google_docs": {"all.jsonl": [document("shared-doc", "Sloes are bitter."), shared]},
            "linear": {
                "issues.jsonl": [{**issue, "team": {"id": "t-open"}}],
                "teams.jsonl": [{"id": "t-open", "key": "OPEN", "name": "Open", **team}],
            },
            "slack": {
                "channels.json": [{"id": "C0SLOES", "name": "sloes", **channel}],
                "users.json": [],
                "sloes/2026-10-05.json": [
                    {"type": "message", "ts": "1791187200.000100", "user": "U1", "text": "Sloes?"}
                ],
            },
        }
        for source, files in objects.items():
            for name, records in {**files, "export.json": {"exported_at": at(hour)}}.items():
                path = tmp_path / str(hour) / source / name
                path.parent.mkdir(parents=True, exist_ok=True)
                lines = name.endswith(".jsonl")
                path.write_text(
                    "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
                )
            done = lakehouse.land(source, tmp_path / str(hour) / source)
            assert {broken["done"] for broken in done.broken} == ({"warn"} if hour == 2 else set())
            assert not done.quarantined
        lakehouse.build(*DOCUMENTS)
        return lakehouse.query(
            "select source, allowed_principals from {lake}knowledge.documents_current"
            " where external_id in ('shared-doc', 'shared-issue', 'C0SLOES:1791187200.000100')"
            " order by 1"
        )

    public = (
        [{"type": "anyone", "role": "reader"}],
        {"visibility": "public", "members": {"nodes": [{"id": "u1"}]}},
        {"is_private": False, "members": ["U1"]},
    )
    everybody = [(source, ["public"]) for source in ("google_docs", "linear", "slack")]
    assert land(1, *public) == everybody
    broken = (
        {"type": "anyone"},
        {"visibility": "secret", "members": {"nodes": [{"id": "u1"}]}},
        {"is_private": True, "members": "all"},
    )
    closed = [("google_docs", ["google_docs:ana@example.com"]), ("linear", ["linear:u1"])]
    assert land(2, *broken) == [*closed, ("slack", [])]
    assert land(3, *public) == everybody


# ---- Notion by two routes


def write_export(folder: Path, hour: int, pages: Mapping[str, Page]) -> Path:
    """Write pages as Notion's own export does; gives the folder, which says when it was made."""
    folder.mkdir(parents=True)
    (folder / "export.json").write_text(json.dumps({"exported_at": at(hour)}))
    with zipfile.ZipFile(folder / "Export-0b-Part-1.zip", "w") as archive:
        for name, page in pages.items():
            place = f"{page.parent}/" if page.parent else ""
            text = "\n\n".join([f"# {page.title}", *page.paragraphs])
            archive.writestr(f"{place}{name} {page_id(name).replace('-', '')}.md", text + "\n")
    return folder


@pytest.mark.soak
def test_both_routes_of_notion_mix_in_any_order(lakehouse: Lakehouse, tmp_path: Path) -> None:
    text, other = (
        Page(["- Hops are **dried**."], title="Hops"),
        Page(["Hops are fresh."], title="Hops"),
    )
    gone = Page(is_trashed=True, title="Hops")
    observed = {
        "api 1": {"same": text, "edited": text, "binned": text, "absent": text, "late": text},
        "export 2": {"same": text, "edited": other, "binned": text, "first": text},
        "api 3": {"same": text, "binned": gone, "late": gone, "first": text},
        "export 4": {"same": text, "binned": text, "first": text},
    }
    orders = {
        "as it was": ["api 1", "export 2", "api 3", "export 4"],
        # What was observed before something that is known is outdated and lands nothing.
        "late": ["api 1", "api 3", "export 2", "export 4"],
    }
    for number in range(4):
        for order, steps in orders.items():
            route, hour = steps[number].split()
            pages = {f"{order} {name}": page for name, page in observed[steps[number]].items()}
            place = tmp_path / order / steps[number]
            write = write_export if route == "export" else _write_api
            lakehouse.land("notion", write(place, int(hour), pages))
        # The first two steps are built at once, each of the others by itself.
        if number:
            lakehouse.build(*DOCUMENTS)

    def seen(order: str, name: str) -> list[tuple[str, bool]]:
        found = versions(lakehouse, document_of(f"{order} {name}"))
        return [(row[1], row[3]) for row in found]

    api, export = "\\- Hops are **dried**.", "- Hops are **dried**."
    for order in orders:
        # No version for the route alone, whichever comes last; nothing is deleted by absence.
        assert seen(order, "same") == [(api, False)], order
        assert seen(order, "absent") == [(api, False)], order
        assert seen(order, "edited") == [(api, False), ("Hops are fresh.", False)], order
        # In the bin it stays for an older export, and a newer one brings it back.
        assert seen(order, "binned") == [(api, False), ("", True), (api, False)], order
        assert seen(order, "late") == [(api, False), ("", True)], order
    assert seen("as it was", "first") == [(export, False), (api, False)]
    assert seen("late", "first") == [(api, False)]
    told = lakehouse.query(
        "select count(*), count(author_id), count(created_at), count(url)"
        " from {lake}knowledge.documents_current"
        " where source = 'notion' and not is_deleted and title = 'Hops'"
    )
    assert told == [(10, 10, 10, 10)]


def _write_api(folder: Path, hour: int, pages: Mapping[str, Page]) -> Path:
    return write_notion(folder, at(hour), pages)
