"""Sources end to end: files in, raw tables and quarantine out."""

import json
import re
import shutil
import sys
import types
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dlt_sources import load, pipeline
from dlt_sources.json_files import MAX_FIELD_BYTES
from dlt_sources.objects import ObjectStore
from dlt_sources.slices import MAX_PAYLOAD_BYTES
from loreline.errors import LorelineError
from loreline.lake import duck
from loreline.lake.catalog import find_table, load_catalog
from loreline.postgres import connect
from loreline.settings import PROJECT_ROOT

DAY_1, DAY_2, DAY_3 = (datetime(2026, 10, n, tzinfo=UTC) for n in (1, 2, 3))
SAMPLE = PROJECT_ROOT / "sample_workspace"
# 2026-09-30 12:00:00 UTC
NOON = 1790769600


@pytest.fixture
def inputs(tmp_path):
    """A folder to read from; the stack's state lies beside it."""
    return tmp_path / "inputs"


def query(settings, text):
    with duck.connect(settings) as connection:
        return connection.execute(text.format(lake=f"lake.{settings.prefix}raw")).fetchall()


def quarantined(settings):
    with connect(settings) as connection:
        return connection.execute(
            "select source, resource, reason, external_id, payload, payload_uri, origin"
            f" from {settings.prefix}operations.quarantine order by reason, origin"
        ).fetchall()


def snapshots(settings, source):
    catalog = load_catalog(settings)
    tables = catalog.list_tables(f"{settings.prefix}raw_{source}")
    found = {table: find_table(catalog, ".".join(table)).snapshots() for table in tables}
    return {table: [s.snapshot_id for s in snapshots] for table, snapshots in found.items()}


def write(folder: Path, content) -> Path:
    for name, value in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return folder


def event(n, **data):
    return {"type": "llm.chat.completed", "id": f"e{n}", "source": "gw", "data": {"n": n, **data}}


BAD_LINES = {
    "broken_json": b'{"type": "llm.chat.completed", "id":',
    "duplicate_key": b'{"type": "x", "data": {"n": 1, "n": "1"}}',
    "field_too_large": json.dumps(event(1, text="x" * (MAX_FIELD_BYTES + 1))).encode(),
    "invalid_utf8": b'{"type": "x", "data": {"text": "\xff\xfe"}}',
    "nul_byte": b'{"type": "x", "data": {"text": "a\\u0000b"}}',
    "wrong_type": b'{"type": ["x"]}',
}


def test_bad_lines_are_set_aside_once_and_the_rest_lands(settings, inputs):
    lines = [json.dumps(event(n)).encode() for n in range(20)]
    for n, bad in enumerate(BAD_LINES.values()):
        lines.insert(3 * n, bad)
    write(inputs, {"a.jsonl": b"\n".join(lines)})
    summary = load(settings, "gateway", inputs)
    assert summary.landed == {"events": 20}
    assert summary.quarantined == dict.fromkeys(BAD_LINES, 1)
    found = quarantined(settings)
    assert {row[2] for row in found} == set(BAD_LINES)
    assert {row[:2] for row in found} == {("gateway", "events")}
    objects = ObjectStore(settings)
    kept = {
        reason: text.encode() if text is not None else objects.files.cat_file(uri)
        for _, _, reason, _, text, uri, _ in found
    }
    assert kept == BAD_LINES
    write(inputs, {"b.jsonl": b"\n"})
    again = load(settings, "gateway", inputs)
    assert (again.rows, again.unchanged) == (0, 20)
    assert again.quarantined == summary.quarantined
    assert quarantined(settings) == found


def test_gateway_events_land_once_however_often_they_come(settings, inputs):
    twice = [event(n) for n in (1, 2, 2, 1)] + [event(3) | {"id": None}, event(4) | {"id": None}]
    text = "\n".join(map(json.dumps, twice))
    write(inputs, {"a.jsonl": text.encode(), "b/c.jsonl": text.encode()})
    summary = load(settings, "gateway", inputs)
    assert (summary.rows, summary.unchanged) == (4, 8)
    payloads = query(settings, "select payload from {lake}_gateway.events")
    assert {json.loads(p)["data"]["n"] for (p,) in payloads} == {1, 2, 3, 4}


def test_what_was_landed_is_not_read_again_as_long_as_it_is_there(settings, inputs):
    write(inputs, {"a.jsonl": json.dumps(event(1)).encode()})
    assert load(settings, "gateway", inputs).rows == 1
    assert load(settings, "gateway", inputs).rows == 0
    load_catalog(settings).drop_table(f"{settings.prefix}raw_gateway.events")
    assert load(settings, "gateway", inputs).rows == 1


def test_the_payload_of_an_event_is_its_text_as_received(settings, inputs):
    line = b'{"type": "x.y",   "data": {"cost": 1.10, "big": 123456789012345678901234567890}}'
    write(inputs, {"a.jsonl": line})
    load(settings, "gateway", inputs)
    assert query(settings, "select payload from {lake}_gateway.events") == [(line.decode(),)]


def page(identity="p", **fields):
    return {
        "object": "page",
        "id": identity,
        "last_edited_time": "2026-09-30T12:00:00.000Z",
        "properties": {},
        **fields,
    }


def paragraph(identity, parent, text="", **fields):
    return {
        "object": "block",
        "id": identity,
        "type": "paragraph",
        "parent": {"type": "page_id", "page_id": parent},
        "paragraph": {"text": text},
        **fields,
    }


def test_bad_notion_objects_are_set_aside_and_the_rest_lands(settings, inputs):
    write(
        inputs,
        {
            "a.json": [
                page("p1"),
                {"object": "page"},
                page("p2"),
                {"object": "comment", "id": "c"},
            ],
            "b.jsonl": b"\n".join([_bytes(page("p3")), b'{"object": ', _bytes(page(4))]),
            "c.json": b'{"results": [' + _bytes(page("p5")) + b', {"object": "\xff"}]}',
            "d.jsonl": json.dumps(paragraph("b1", "p2", has_children=True)).encode(),
            "e.json": {"object": "list", "results": [{"object": "user", "id": "u"}]},
        },
    )
    summary = load(settings, "notion", inputs, observed_at=DAY_1)
    assert summary.landed == {"pages": 3, "users": 1}
    assert summary.quarantined == {
        "missing_id": 1,
        "wrong_type": 2,
        "broken_json": 1,
        "invalid_utf8": 1,
        "missing_children": 1,
    }
    incomplete = [row for row in quarantined(settings) if row[2] == "missing_children"]
    assert incomplete[0][3] == "p2"
    landed = query(settings, "select external_id from {lake}_notion.pages order by 1")
    assert landed == [("p1",), ("p3",), ("p5",)]
    # Complete the next day, the page lands.
    write(inputs, {"f.json": [paragraph("b2", "b1") | {"parent": _block("b1")}]})
    assert load(settings, "notion", inputs, observed_at=DAY_2).landed == {"pages": 1}


def _bytes(value):
    return json.dumps(value).encode()


def _block(identity):
    return {"type": "block_id", "block_id": identity}


def test_a_page_that_is_absent_is_not_deleted_and_one_in_the_bin_is(settings, inputs):
    write(inputs / "1", {"a.json": [page("p1"), page("p2"), paragraph("b", "p1", "text")]})
    write(inputs / "2", {"a.json": [page("p2", in_trash=True)]})
    load(settings, "notion", inputs / "1", observed_at=DAY_1)
    summary = load(settings, "notion", inputs / "2", observed_at=DAY_2)
    assert (summary.landed, summary.tombstones) == ({"pages": 1}, 1)
    restored = load(settings, "notion", inputs / "1", observed_at=DAY_3)
    assert (restored.rows, restored.unchanged) == (1, 1)
    write(inputs / "2", {"b.json": [{"object": "user", "id": "u"}]})
    old = load(settings, "notion", inputs / "2", observed_at=DAY_2)
    assert (old.landed, old.outdated) == ({"users": 1}, 1)


def test_a_large_page_is_an_object(settings, inputs):
    write(inputs, {"a.json": [page(), paragraph("b", "p", "ü" * MAX_PAYLOAD_BYTES)]})
    load(settings, "notion", inputs, observed_at=DAY_1)
    ((payload, uri),) = query(settings, "select payload, raw_object_uri from {lake}_notion.pages")
    assert payload is None
    stored = json.loads(ObjectStore(settings).files.cat_file(uri))
    assert stored["blocks"][0]["paragraph"]["text"] == "ü" * MAX_PAYLOAD_BYTES


def message(seconds, text="hello", **fields):
    return {
        "type": "message",
        "user": "U1",
        "text": text,
        "ts": f"{NOON + seconds}.000100",
        **fields,
    }


def export(folder, days, **fields):
    """A workspace export with channel C1 `general`; `days` are its day files."""
    shutil.rmtree(folder, ignore_errors=True)
    named = {f"general/2026-09-{day}.json": messages for day, messages in days.items()}
    channel = {"id": "C1", "name": "general", "members": ["U1"], **fields}
    return write(folder, {"channels.json": [channel], "users.json": [{"id": "U1"}], **named})


def deleted(settings):
    rows = query(
        settings,
        "select external_id, payload ->> 'text' from {lake}_slack.messages"
        " where is_deleted order by _batch, landed_at",
    )
    return [(external_id.split(":")[1].split(".")[0], text) for external_id, text in rows]


def test_a_message_that_is_gone_from_an_export_is_deleted(settings, inputs):
    reply = message(2, "a reply", thread_ts=message(0)["ts"])
    load(
        settings,
        "slack",
        export(inputs, {"30": [message(1), reply, message(3)], "29": [message(-86400)]}),
        observed_at=DAY_1,
    )
    # The 29th is not in this export: nothing is said of it.
    summary = load(settings, "slack", export(inputs, {"30": [message(1)]}), observed_at=DAY_2)
    assert summary.tombstones == 2
    # A tombstone keeps what the message said, its thread included.
    assert deleted(settings) == [(str(NOON + 2), "a reply"), (str(NOON + 3), "hello")]
    # An older export resurrects nothing, the same one changes nothing, a newer one restores.
    old = export(inputs, {"30": [message(1), reply, message(3)]})
    assert load(settings, "slack", old, observed_at=DAY_1).rows == 0
    again = load(settings, "slack", export(inputs, {"30": [message(1)]}), observed_at=DAY_2)
    assert (again.rows, again.snapshots) == (0, {})
    whole = export(inputs, {"30": [message(1), reply, message(3)]})
    assert load(settings, "slack", whole, observed_at=DAY_3).rows == 2


def test_what_an_export_could_not_show_is_not_deleted(settings, inputs):
    days = {"29": [message(-86400)], "30": [message(1), message(2)]}
    load(settings, "slack", export(inputs, days), observed_at=DAY_1)
    # A day of which a part is unreadable.
    broken = {"29": [message(-86400)], "30": [message(1), {"text": "which one?"}]}
    summary = load(settings, "slack", export(inputs, broken), observed_at=DAY_2)
    assert (summary.tombstones, summary.quarantined) == (0, {"missing_id": 1})
    # A channel without a day file.
    folder = export(inputs, {})
    channels = [{"id": "C1", "name": "general"}, {"id": "C2", "name": "other"}]
    write(folder, {"channels.json": channels, "other/2026-09-30.json": [message(5)]})
    assert load(settings, "slack", folder, observed_at=DAY_3).tombstones == 0
    # An export that says itself that it is partial.
    folder = export(inputs, {"30": [message(1)]})
    told = (DAY_3 + timedelta(days=1)).isoformat()
    write(folder, {"export.json": {"exported_at": told, "complete": False}})
    assert load(settings, "slack", folder).tombstones == 0
    # One whose days are cut at another midnight than ours: its first and last day are left out.
    shifted = {"29": [message(-86400)], "30": [message(13 * 3600)]}
    late = DAY_3 + timedelta(days=2)
    assert load(settings, "slack", export(inputs, shifted), observed_at=late).tombstones == 0
    assert deleted(settings) == []


def test_a_sweep_that_would_delete_too_much_stops(settings, inputs, monkeypatch):
    messages = [message(n) for n in range(100)]
    load(settings, "slack", export(inputs, {"30": messages}), observed_at=DAY_1)
    few = load(settings, "slack", export(inputs, {"30": messages[:70]}), observed_at=DAY_2)
    assert few.tombstones == 30
    # 22 of the 70 that are left are more than 30 %; what is new lands all the same.
    broken = export(inputs, {"30": [*messages[:48], message(500, "new")]})
    with pytest.raises(LorelineError, match="22 of 70 slack messages are absent"):
        load(settings, "slack", broken, observed_at=DAY_3)
    assert len(deleted(settings)) == 30
    assert query(settings, "select count(*) from {lake}_slack.messages") == [(131,)]
    monkeypatch.setenv("SOURCES__SLACK__MAX_DELETED_SHARE", "1")
    assert load(settings, "slack", broken, observed_at=DAY_3).tombstones == 22


def test_a_small_sweep_never_stops(settings, inputs):
    messages = [message(n) for n in range(20)]
    load(settings, "slack", export(inputs, {"30": messages}), observed_at=DAY_1)
    rest = export(inputs, {"30": messages[:1]})
    assert load(settings, "slack", rest, observed_at=DAY_2).tombstones == 19


def test_a_revoked_membership_is_a_row_with_the_same_content(settings, inputs):
    load(
        settings,
        "slack",
        export(inputs, {}, is_private=True, members=["U1", "U2"]),
        observed_at=DAY_1,
    )
    summary = load(
        settings, "slack", export(inputs, {}, is_private=True, members=["U1"]), observed_at=DAY_2
    )
    assert summary.landed == {"channels": 1}
    hashes = query(settings, "select content_hash, metadata_hash from {lake}_slack.channels")
    assert len({content for content, _ in hashes}) == 1
    assert len({metadata for _, metadata in hashes}) == 2


def test_a_zip_and_the_same_tree_unpacked_are_one_export(settings, inputs):
    folder = export(inputs / "export", {"30": [message(1), message(2)]})
    with zipfile.ZipFile(inputs / "export.zip", "w") as archive:
        for path in folder.rglob("*.json"):
            archive.write(path, path.relative_to(folder))
    assert load(settings, "slack", folder, observed_at=DAY_1).rows == 4
    zipped = load(settings, "slack", inputs / "export.zip", observed_at=DAY_2)
    assert (zipped.rows, zipped.unchanged) == (0, 4)


def issue(identity="i1", **fields):
    return {
        "id": identity,
        "title": "Till is slow",
        "description": None,
        "updatedAt": "2026-09-30T12:00:00.000Z",
        **fields,
    }


def workspace(folder, issues, told=None, **tables):
    """An export of Linear: lines of nodes, and what `export.json` says."""
    shutil.rmtree(folder, ignore_errors=True)
    tables = {"issues": issues, **tables}
    files = {
        f"{table}.jsonl": "\n".join(map(json.dumps, nodes)).encode()
        for table, nodes in tables.items()
    }
    return write(folder, files | ({"export.json": told} if told else {}))


def whole(moment):
    return {"exported_at": moment.isoformat(), "complete": True}


def states(settings, table="issues"):
    rows = query(
        settings,
        f"select external_id, is_deleted from {{lake}}_linear.{table} order by _batch, landed_at",
    )
    return [f"{external_id} {'gone' if gone else 'there'}" for external_id, gone in rows]


def test_linear_objects_land_once_from_whatever_shape(settings, inputs):
    said = {"id": "c1", "body": "Looking"}
    lines = workspace(inputs, [issue()], comments=[said | {"issue": {"id": "i1"}}])
    assert load(settings, "linear", lines, observed_at=DAY_1).landed == {"issues": 1, "comments": 1}
    again = load(settings, "linear", lines, observed_at=DAY_1)
    assert (again.rows, again.snapshots) == (0, {})
    nested = issue(comments={"nodes": [said]}, __typename="Issue")
    answers = {"a.json": {"data": {"issues": {"nodes": [nested]}}}, "b.jsonl": json.dumps(nested)}
    answers["b.jsonl"] = answers["b.jsonl"].encode()
    shutil.rmtree(inputs)
    other = load(settings, "linear", write(inputs, answers), observed_at=DAY_2)
    assert (other.rows, other.unchanged, other.quarantined) == (0, 2, {})


def test_an_issue_that_changes_and_changes_back_has_three_versions(settings, inputs):
    for moment, title in ((DAY_1, "A"), (DAY_2, "B"), (DAY_3, "A")):
        summary = load(
            settings, "linear", workspace(inputs, [issue(title=title)]), observed_at=moment
        )
        assert summary.landed == {"issues": 1}
    old = load(settings, "linear", workspace(inputs, [issue(title="C")]), observed_at=DAY_2)
    assert (old.rows, old.outdated) == (0, 1)


def test_an_issue_in_the_bin_comes_back_and_an_old_export_does_not_bring_it(settings, inputs):
    there, gone = issue(trashed=None, archivedAt=None), issue(trashed=True, archivedAt=str(DAY_2))
    load(settings, "linear", workspace(inputs, [there]), observed_at=DAY_1)
    binned = load(settings, "linear", workspace(inputs, [gone]), observed_at=DAY_2)
    assert binned.tombstones == 1
    assert load(settings, "linear", workspace(inputs, [there]), observed_at=DAY_1).rows == 0
    assert load(settings, "linear", workspace(inputs, [there]), observed_at=DAY_3).rows == 1
    assert states(settings) == ["i1 there", "i1 gone", "i1 there"]
    hashes = query(settings, "select distinct content_hash from {lake}_linear.issues")
    assert len(hashes) == 1


def test_only_a_complete_export_of_linear_tells_what_was_deleted(settings, inputs):
    comments = [{"id": f"c{n}", "body": "x", "issue": {"id": f"i{n}"}} for n in (1, 2)]
    both = [issue("i1"), issue("i2")]
    load(settings, "linear", workspace(inputs, both, comments=comments), observed_at=DAY_1)
    partial = load(settings, "linear", workspace(inputs, both[:1]), observed_at=DAY_1)
    assert partial.tombstones == 0
    # There is no list of comments, and i2 is there, though it cannot be read.
    bad = workspace(inputs, [both[0], issue("i2", title=7)], whole(DAY_2))
    assert load(settings, "linear", bad).tombstones == 0
    # The list of i1's comments goes on; that of i2 is whole.
    page = {"nodes": [], "pageInfo": {"hasNextPage": True}}
    nested = [both[0] | {"comments": page}, both[1] | {"comments": {"nodes": []}}]
    assert load(settings, "linear", workspace(inputs, nested, whole(DAY_3))).tombstones == 1
    assert states(settings, "comments") == ["c1 there", "c2 there", "c2 gone"]
    later = DAY_3 + timedelta(days=1)
    gone = load(settings, "linear", workspace(inputs, both[:1], whole(later), comments=comments))
    assert (gone.landed, gone.tombstones) == ({"issues": 1, "comments": 1}, 1)
    assert states(settings) == ["i1 there", "i2 there", "i2 gone"]
    assert states(settings, "comments")[-1] == "c2 there"


def test_a_complete_export_of_linear_without_much_of_it_stops(settings, inputs, monkeypatch):
    every = [issue(f"i{n}") for n in range(60)]
    load(settings, "linear", workspace(inputs, every), observed_at=DAY_1)
    broken = workspace(inputs, every[:30], whole(DAY_2))
    with pytest.raises(LorelineError, match="30 of 60 linear issues are absent"):
        load(settings, "linear", broken)
    assert len(states(settings)) == 60
    monkeypatch.setenv("SOURCES__LINEAR__MAX_DELETED_SHARE", "1")
    assert load(settings, "linear", broken).tombstones == 30


def test_bad_linear_objects_are_set_aside_and_the_rest_lands(settings, inputs):
    labels = {"nodes": [{"id": "l1"}], "pageInfo": {"hasNextPage": True}}
    found = [issue("i1"), issue("i2", labels=labels), issue("i3", updatedAt="soon"), {"id": "i4"}]
    folder = workspace(inputs, [*found, issue(None)])
    write(folder, {"a.json": {"errors": [{"message": "RATELIMITED"}], "data": None}})
    write(folder, {"comments.jsonl": b'{"id": "c1", "body": "x"}\n{"id": "c2", "body'})
    summary = load(settings, "linear", folder, observed_at=DAY_1)
    assert summary.landed == {"issues": 1, "comments": 1}
    assert summary.quarantined == {
        "missing_nodes": 1,
        "wrong_type": 1,
        "missing_field": 1,
        "missing_id": 1,
        "api_error": 1,
        "broken_json": 1,
    }
    assert {row[0] for row in quarantined(settings)} == {"linear"}


@pytest.mark.parametrize("source", ["notion", "slack", "gateway"])
def test_the_sample_lands_once_and_day_two_only_what_changed(settings, inputs, source):
    first = load(settings, source, SAMPLE / "day_one" / source)
    assert first.rows > 60 and not first.quarantined
    before = snapshots(settings, source)
    again = load(settings, source, SAMPLE / "day_one" / source)
    assert (again.rows, again.outdated, again.quarantined) == (0, 0, {})
    # The same objects in another input.
    copied = shutil.copytree(SAMPLE / "day_one" / source, inputs)
    write(inputs, {"export.json": (inputs / "export.json").read_bytes() + b"\n"})
    compared = load(settings, source, copied)
    assert (compared.rows, compared.unchanged) == (0, first.rows)
    assert snapshots(settings, source) == before
    second = load(settings, source, SAMPLE / "day_two" / source)
    assert 0 < second.rows < first.rows / 3
    write(inputs, {"export.json": (inputs / "export.json").read_bytes() + b"\n"})
    assert load(settings, source, copied).rows == 0
    assert load(settings, source, SAMPLE / "day_two" / source).rows == 0


def test_a_source_run_by_plain_dlt_lands_like_any_other(settings, inputs):
    import dlt

    from dlt_sources.destination import Lake
    from dlt_sources.notion import notion
    from loreline.lake.commits import Writer

    namespace = f"{settings.prefix}raw_notion"
    plain = dlt.pipeline(
        "plain",
        destination=Lake(settings, namespace, Writer("by hand", "notion", "1")),
        dataset_name=namespace,
        pipelines_dir=str(inputs / "pipelines"),
    )
    write(inputs / "export", {"a.json": [page("p1"), {"object": "user", "id": "u"}]})
    plain.run(notion(inputs / "export", DAY_1))
    assert query(settings, "select external_id from {lake}_notion.pages") == [("p1",)]
    assert query(settings, "select external_id from {lake}_notion.users") == [("u",)]


def test_the_source_of_the_documentation_works(settings, inputs, monkeypatch):
    text = (PROJECT_ROOT / "docs" / "adding-a-source.md").read_text()
    blocks = re.findall(r"```python\n# dlt_sources/crm/(\S+)\.py\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in blocks] == ["settings", "__init__"]
    for name, code in blocks:
        full_name = "dlt_sources.crm" + (".settings" if name == "settings" else "")
        module = types.ModuleType(full_name)
        module.__path__ = []
        monkeypatch.setitem(sys.modules, full_name, module)
        exec(compile(code, name, "exec"), module.__dict__)
    monkeypatch.setitem(pipeline.SOURCES, "crm", sys.modules["dlt_sources.crm"].crm)
    account = {"id": "a1", "updated": "2026-09-30T12:00:00Z", "request_id": "1"}
    lines = [account, {"updated": "2026-09-30"}, account | {"id": "a2", "deleted": True}]
    write(inputs, {"a.jsonl": "\n".join(map(json.dumps, lines)).encode()})
    summary = load(settings, "crm", inputs, observed_at=DAY_1)
    assert (summary.landed, summary.tombstones) == ({"accounts": 2}, 1)
    assert summary.quarantined == {"missing_id": 1}
    write(inputs, {"a.jsonl": json.dumps(account | {"request_id": "2"}).encode()})
    assert load(settings, "crm", inputs, observed_at=DAY_2).unchanged == 1
