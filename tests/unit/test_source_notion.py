"""Notion objects in any order become whole pages; what is incomplete is set aside."""

import json
import random
from datetime import UTC, datetime

import pytest

from dlt_sources.notion.settings import PAGES
from dlt_sources.notion.stage import Stage
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation

NOW = datetime(2026, 10, 1, tzinfo=UTC)


def page(identity, **fields):
    return {
        "object": "page",
        "id": identity,
        "last_edited_time": "2026-09-30T12:00:00.000Z",
        "parent": {"type": "workspace", "workspace": True},
        "properties": {},
        "in_trash": False,
        **fields,
    }


def block(identity, parent, *, on_page=False, has_children=False, kind="paragraph", **fields):
    owner = "page_id" if on_page else "block_id"
    return {
        "object": "block",
        "id": identity,
        "parent": {"type": owner, owner: parent},
        "last_edited_time": "2026-09-30T12:00:00.000Z",
        "has_children": has_children,
        "type": kind,
        kind: {},
        **fields,
    }


def answer(*blocks, next_cursor=None):
    return {
        "object": "list",
        "results": list(blocks),
        "has_more": next_cursor is not None,
        "next_cursor": next_cursor,
    }


def read(folder, *files, kind="page"):
    """Observations and rejects of objects given file by file, each a list of JSON values."""
    paths = []
    for n, values in enumerate(files):
        path = folder / f"{n}.jsonl"
        path.write_text("\n".join(json.dumps(value) for value in values))
        paths.append((path, path.name))
    found = list(Stage(paths, folder / "stage.sqlite", NOW).observations(kind))
    return (
        [item for item in found if isinstance(item, Observation)],
        [item for item in found if isinstance(item, Reject)],
    )


def outline(blocks):
    """Ids of a tree of blocks, as nested lists."""
    return [[b["id"], *([outline(b["children"])] if "children" in b else [])] for b in blocks]


def test_blocks_are_nested_in_the_order_of_their_lists(tmp_path):
    pages, rejects = read(
        tmp_path,
        [
            answer(
                block("b", "p", on_page=True),
                block("a", "p", on_page=True, has_children=True),
                block("c", "p", on_page=True),
            ),
            answer(block("a2", "a"), block("a1", "a", has_children=True)),
            answer(block("a1x", "a1")),
            page("p"),
        ],
    )
    assert not rejects
    assert outline(pages[0].payload["blocks"]) == [
        ["b"],
        ["a", [["a2"], ["a1", [["a1x"]]]]],
        ["c"],
    ]
    assert pages[0].observed_at == NOW
    assert pages[0].source_updated_at == datetime(2026, 9, 30, 12, tzinfo=UTC)


def test_any_order_and_any_split_over_files_gives_the_same(tmp_path):
    objects = [page("p"), page("q"), block("q1", "q", on_page=True)]
    objects += [answer(block("c", "b"), block("d", "b"))]
    # One list of five, cut into three answers: each names the block that the next begins with.
    listed = [block(f"p{n}", "p", on_page=True) for n in range(4)]
    listed.append(block("b", "p", on_page=True, has_children=True))
    objects += [answer(*listed[:2], next_cursor="p2"), answer(listed[2], next_cursor="p3")]
    objects += [answer(*listed[3:])]
    expected = None
    for seed in range(12):
        shuffled = [*objects]
        random.Random(seed).shuffle(shuffled)
        cut = seed % len(shuffled)
        folder = tmp_path / str(seed)
        folder.mkdir()
        pages, rejects = read(folder, shuffled[:cut], shuffled[cut:])
        assert not rejects
        found = [(p.external_id, outline(p.payload["blocks"])) for p in pages]
        expected = expected or found
        assert found == expected
    assert expected[0][1] == [["p0"], ["p1"], ["p2"], ["p3"], ["b", [["c"], ["d"]]]]


@pytest.mark.parametrize(
    "blocks",
    [
        [block("a", "p", on_page=True, has_children=True)],
        [answer(block("a", "p", on_page=True), next_cursor="elsewhere")],
        [answer(block("a", "p", on_page=True), {"object": "block"})],
        [answer(block("a", "p", on_page=True, has_children=True)), block("x", "y")],
        [
            block("a", "p", on_page=True, has_children=True),
            block("b", "a", has_children=True),
        ],
    ],
    ids=["no children", "list goes on", "broken element", "other children", "deep"],
)
def test_a_page_of_which_a_part_is_missing_is_set_aside(tmp_path, blocks):
    pages, rejects = read(tmp_path, [page("p"), page("q"), *blocks])
    assert [p.external_id for p in pages] == ["q"]
    missing = [r for r in rejects if r.reason == "missing_children"]
    assert [(r.external_id, r.resource) for r in missing] == [("p", "pages")]
    assert json.loads(missing[0].raw)["page"]["id"] == "p"


def test_a_page_in_the_bin_is_gone_whatever_is_missing(tmp_path):
    for spelling in ("in_trash", "archived"):
        folder = tmp_path / spelling
        folder.mkdir()
        gone = page("p", **{spelling: True})
        pages, rejects = read(folder, [gone, block("a", "p", on_page=True, has_children=True)])
        assert [(p.external_id, p.is_deleted) for p in pages] == [("p", True)]
        assert not rejects


def test_a_synced_copy_has_the_children_of_its_original(tmp_path):
    copy = block("copy", "q", on_page=True, has_children=True, kind="synced_block")
    copy["synced_block"] = {"synced_from": {"type": "block_id", "block_id": "original"}}
    original = block("original", "p", on_page=True, has_children=True, kind="synced_block")
    original["synced_block"] = {"synced_from": None}
    pages, rejects = read(
        tmp_path, [page("p"), page("q"), copy, original, answer(block("x", "original"))]
    )
    assert not rejects
    assert outline(pages[1].payload["blocks"]) == [["copy", [["x"]]]]


def test_a_synced_block_that_holds_a_copy_of_itself_ends(tmp_path):
    original = block("original", "p", on_page=True, has_children=True, kind="synced_block")
    copy = block("copy", "original", has_children=True, kind="synced_block")
    copy["synced_block"] = {"synced_from": {"type": "block_id", "block_id": "original"}}
    pages, rejects = read(tmp_path, [page("p"), original, copy])
    assert not rejects
    assert outline(pages[0].payload["blocks"]) == [["original", [["copy", []]]]]


def test_blocks_that_hang_on_themselves_or_on_nothing_are_set_aside(tmp_path):
    pages, rejects = read(
        tmp_path,
        [
            page("p"),
            block("a", "p", on_page=True),
            block("loop1", "loop2", has_children=True),
            block("loop2", "loop1", has_children=True),
            block("lost1", "absent", on_page=True, has_children=True),
            block("lost2", "lost1"),
        ],
    )
    assert outline(pages[0].payload["blocks"]) == [["a"]]
    assert {r.reason for r in rejects} == {"missing_page"}
    kept = [b["id"] for r in rejects for b in json.loads(r.raw)]
    assert sorted(kept) == ["loop1", "loop2", "lost1", "lost2"]


def test_children_of_pages_within_pages_are_their_own(tmp_path):
    inner = block("q", "p", on_page=True, has_children=True, kind="child_page")
    pages, rejects = read(tmp_path, [page("p"), page("q"), inner, block("x", "q", on_page=True)])
    assert not rejects
    assert [outline(p.payload["blocks"]) for p in pages] == [[["q"]], [["x"]]]


def test_versions_of_a_page_come_in_the_order_of_their_edits(tmp_path):
    times = ["2026-09-30T12:10:00Z", "2026-09-30T12:00:00Z", "2026-09-30T12:05:00Z"]
    titled = [page("p", last_edited_time=t, properties={"n": {"number": t}}) for t in times]
    pages, _ = read(tmp_path, titled)
    assert [p.payload["page"]["last_edited_time"] for p in pages] == sorted(times)


def test_the_newer_of_two_copies_of_a_block_counts(tmp_path):
    old = block("a", "p", on_page=True, paragraph={"text": "old"})
    new = block("a", "p", on_page=True, paragraph={"text": "new"})
    new["last_edited_time"] = "2026-10-01T00:00:00.000Z"
    for n, order in enumerate(([old, new], [new, old])):
        folder = tmp_path / str(n)
        folder.mkdir()
        pages, _ = read(folder, [page("p"), *order])
        assert [b["paragraph"]["text"] for b in pages[0].payload["blocks"]] == ["new"]


def test_nesting_beyond_what_json_can_hold_is_set_aside(tmp_path):
    chain = [block("b0", "p", on_page=True, has_children=True)]
    chain += [block(f"b{n}", f"b{n - 1}", has_children=True) for n in range(1, 300)]
    pages, rejects = read(tmp_path, [page("p"), page("q"), *chain])
    assert [p.external_id for p in pages] == ["q"]
    assert [r.reason for r in rejects] == ["nested_too_deep"]


WRONG = [
    ([1], "wrong_type"),
    ({"id": "x"}, "wrong_type"),
    ({"object": "error", "status": 400}, "wrong_type"),
    (page(None), "missing_id"),
    (page(""), "missing_id"),
    (page(17), "wrong_type"),
    (page("p", last_edited_time="yesterday"), "wrong_type"),
    (page("p", last_edited_time=5), "wrong_type"),
    (page("p", properties=[]), "wrong_type"),
    ({"object": "user"}, "missing_id"),
    (block("b", "p") | {"parent": None}, "wrong_type"),
    (block("b", "p") | {"parent": {"type": "page_id"}}, "wrong_type"),
    (block("b", "p") | {"type": 3}, "wrong_type"),
]


@pytest.mark.parametrize(("value", "reason"), WRONG)
def test_what_is_no_object_of_the_api_is_set_aside(tmp_path, value, reason):
    pages, rejects = read(tmp_path, [page("good"), answer(value)])
    assert [p.external_id for p in pages] == ["good"]
    assert [r.reason for r in rejects] == [reason]
    assert json.loads(rejects[0].raw) == value


def test_users_databases_and_data_sources_are_tables_of_their_own(tmp_path):
    values = [
        {"object": "user", "id": "u", "name": "Ada"},
        {"object": "database", "id": "d", "in_trash": True},
        {"object": "data_source", "id": "s"},
    ]
    for value in values:
        folder = tmp_path / value["object"]
        folder.mkdir()
        ((found,), _) = read(folder, values, kind=value["object"])
        assert (found.external_id, found.payload) == (value["id"], value)
        assert found.is_deleted == (value["object"] == "database")


def test_what_notion_makes_anew_at_each_answer_is_no_version():
    payload = {"page": page("p", url="u"), "blocks": [block("a", "p", children=[block("b", "a")])]}
    again = json.loads(json.dumps(payload))
    again["page"] |= {"request_id": "r", "last_edited_time": "2027-01-01T00:00:00Z"}
    again["blocks"][0]["children"][0] |= {"request_id": "r", "last_edited_time": "2027"}
    assert PAGES.hashes(again) == PAGES.hashes(payload)
    moved = {**payload, "page": {**payload["page"], "parent": {"type": "page_id", "page_id": "x"}}}
    content, metadata = PAGES.hashes(moved)
    assert content == PAGES.hashes(payload)[0]
    assert metadata != PAGES.hashes(payload)[1]
    # A property of the same name is somebody's data.
    mine = {**payload, "page": {**payload["page"], "properties": {"request_id": {"number": 1}}}}
    theirs = {**payload, "page": {**payload["page"], "properties": {"request_id": {"number": 2}}}}
    assert PAGES.hashes(mine) != PAGES.hashes(theirs)


def test_recorded_answers_of_the_api_are_read(tmp_path, real_data):
    lines = (real_data / "notion" / "interactions.jsonl").read_text().splitlines()
    answers = [json.loads(line)["response"] for line in lines]
    objects = [a for a in answers if isinstance(a, dict)]
    pages, rejects = read(tmp_path, objects)
    assert pages
    assert {r.reason for r in rejects} <= {"wrong_type", "missing_page", "missing_children"}
    users, _ = read_again(tmp_path, objects, "user")
    assert users


def read_again(folder, objects, kind):
    other = folder / kind
    other.mkdir()
    return read(other, objects, kind=kind)
