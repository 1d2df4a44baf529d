"""Pages through Notion's API: whole, or not at all."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from dlt_sources.api import ApiError, NotFoundError, Patience
from dlt_sources.notion.blocks import PageRead, PageReader
from dlt_sources.notion.client import MalformedAnswerError, NotionApi, ServiceClock
from dlt_sources.notion.objects import problem_of
from dlt_sources.notion.settings import PAGES
from dlt_sources.notion.stage import Stage
from dlt_sources.quarantine import Reject
from dlt_sources.slices import Observation
from loreline.settings import Settings
from tests.simulators.api import FAULTS, Answer, Asked, Server, serving
from tests.simulators.notion import START, TOKEN, Workspace, rich_text

QUICK = Patience(timeout=1, total=10, first_wait=0.01, longest_wait=0.05)


@pytest.fixture
def workspace() -> Workspace:
    return Workspace()


@pytest.fixture
def server(workspace: Workspace) -> Iterator[Server]:
    with serving(workspace, hang=0.05, retry_after=0.01) as running:
        yield running


@pytest.fixture
def api(server: Server) -> Iterator[NotionApi]:
    with client(server) as api:
        yield api


def client(server: Server) -> NotionApi:
    settings = replace(Settings(), notion_url=server.url, notion_token=TOKEN, notion_rate="0")
    return NotionApi(settings, lambda line: None, QUICK)


def read(api: NotionApi, page: str, *commented: str) -> PageRead:
    return PageReader(api, ServiceClock(api, None)).read(page, commented)


def big_page(workspace: Workspace) -> str:
    """1,100 blocks, nested 8 deep, and one of each kind that is special."""
    page = workspace.add_page("Everything")
    below = None
    for depth in range(8):
        below = workspace.add_block(page.id, f"level {depth}", "toggle", below=below)
        for n in range(105 if depth % 2 else 3):
            workspace.add_block(page.id, f"{depth}.{n}", below=below)
    for n in range(700):
        workspace.add_block(page.id, f"line {n}")
    table = workspace.add_block(page.id, kind="table")
    workspace.add_block(page.id, kind="table_row", below=table)
    original = workspace.add_block(page.id, kind="synced_block")
    workspace.add_block(page.id, "said twice", below=original)
    workspace.add_block(page.id, kind="synced_block", synced_from=original.id)
    workspace.add_block(page.id, kind="unsupported")
    child = workspace.add_page("Below", page.id)
    workspace.add_block(child.id, "not on the page above")
    return page.id


def test_a_page_comes_with_all_its_blocks(workspace: Workspace, api: NotionApi) -> None:
    page = big_page(workspace)
    found = read(api, page)
    assert isinstance(found.seen, Observation)
    assert PAGES.hashes(found.seen.payload) == PAGES.hashes(workspace.payload(page))
    assert (found.tree.unsupported, len(found.tree.pages), len(found.tree.originals)) == (1, 1, 1)
    assert found.seen.source_updated_at == START.replace(second=0)
    assert found.observed_at == START


def test_files_and_the_api_give_the_same(
    workspace: Workspace, server: Server, api: NotionApi, tmp_path: Path
) -> None:
    page = big_page(workspace)
    found = read(api, page)
    answers = [{**workspace.payload(page)["page"], "request_id": "r"}]
    for asked in server.asked:
        if asked.path.endswith("/children"):
            answers.append(workspace.answer(asked).body)
    file = tmp_path / "answers.jsonl"
    file.write_text("\n".join(json.dumps(answer) for answer in answers))
    stage = Stage([(file, file.name)], tmp_path / "stage.sqlite", START)
    [told] = [e for e in stage.observations("page") if isinstance(e, Observation)]
    assert isinstance(found.seen, Observation)
    assert PAGES.hashes(told.payload) == PAGES.hashes(found.seen.payload)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_request_changes_nothing(workspace: Workspace, fault: str) -> None:
    page = workspace.add_page("Till")
    toggle = workspace.add_block(page.id, "more", "toggle")
    workspace.add_block(page.id, "below", below=toggle)
    workspace.comment(page.id, "Why?")
    with serving(workspace, hang=0.05, retry_after=0.01) as server, client(server) as api:
        for number in range(4):
            server.clear()
            server.faults = {number: fault}
            found = read(api, page.id)
            assert isinstance(found.seen, Observation)
            assert PAGES.hashes(found.seen.payload) == PAGES.hashes(workspace.payload(page.id))
            assert [each["id"] for each in found.comments[page.id]] == list(workspace.comments)


def test_a_page_that_goes_while_it_is_read_is_gone(workspace: Workspace, api: NotionApi) -> None:
    page = workspace.add_page("Till")
    toggle = workspace.add_block(page.id, "more", "toggle")
    workspace.add_block(page.id, "below", below=toggle)
    workspace.before(2, lambda: workspace.destroy(page.id))
    assert read(api, page.id).seen is None


def test_a_block_that_goes_while_its_page_is_read_begins_it_again(
    workspace: Workspace, api: NotionApi
) -> None:
    page = workspace.add_page("Till")
    toggle = workspace.add_block(page.id, "more", "toggle")
    workspace.add_block(page.id, "below", below=toggle)
    workspace.before(3, lambda: workspace.pages[page.id].blocks.remove(toggle))
    found = read(api, page.id)
    assert isinstance(found.seen, Observation)
    assert found.seen.payload["blocks"] == []


def test_a_page_that_changes_all_the_time_is_set_aside(
    workspace: Workspace, api: NotionApi
) -> None:
    page = workspace.add_page("Till")
    toggle = workspace.add_block(page.id, "more", "toggle")
    workspace.add_block(page.id, "below", below=toggle)
    # Its block is listed, and never there.
    find = workspace._find
    workspace._find = lambda identity: None if identity == toggle.id else find(identity)  # type: ignore[method-assign]
    found = read(api, page.id)
    assert isinstance(found.seen, Reject)
    assert (found.seen.reason, found.seen.external_id) == ("missing_children", page.id)


def test_a_copy_shows_its_original_where_it_is_shared(workspace: Workspace, api: NotionApi) -> None:
    there, here = workspace.add_page("Original"), workspace.add_page("Copy")
    original = workspace.add_block(there.id, kind="synced_block")
    workspace.add_block(there.id, "said once", below=original)
    workspace.add_block(here.id, kind="synced_block", synced_from=original.id)
    found = read(api, here.id)
    assert isinstance(found.seen, Observation)
    assert len(found.seen.payload["blocks"][0]["children"]) == 1
    there.is_shared = False
    found = read(api, here.id)
    assert isinstance(found.seen, Observation)
    assert found.seen.payload["blocks"][0]["children"] == []
    assert found.tree.unshared == 1


def test_blocks_that_hold_each_other_end(workspace: Workspace, api: NotionApi) -> None:
    page = workspace.add_page("Ring")
    toggle = workspace.add_block(page.id, kind="toggle")
    workspace.add_block(page.id, below=toggle)
    original = workspace.add_block(page.id, kind="synced_block")
    workspace.add_block(page.id, kind="synced_block", below=original, synced_from=original.id)
    find = workspace._find
    workspace._find = lambda i: (page.id, [toggle]) if i == toggle.id else find(i)  # type: ignore[method-assign]
    found = read(api, page.id)
    assert isinstance(found.seen, Observation)


def test_blocks_too_deep_are_set_aside(workspace: Workspace, api: NotionApi) -> None:
    page = workspace.add_page("Deep")
    below = None
    for _ in range(123):
        below = workspace.add_block(page.id, kind="toggle", below=below)
    found = read(api, page.id)
    assert isinstance(found.seen, Reject)
    assert found.seen.reason == "nested_too_deep"


def test_properties_are_completed(workspace: Workspace, api: NotionApi) -> None:
    page = workspace.add_page("Related")
    page.related = [f"{n:032x}" for n in range(230)]
    found = read(api, page.id)
    assert isinstance(found.seen, Observation)
    assert found.seen.payload["page"]["properties"] == workspace._properties(page, is_whole=True)


def test_comments_of_a_page_and_of_blocks_that_had_some(
    workspace: Workspace, api: NotionApi
) -> None:
    page = workspace.add_page("Till")
    block = workspace.add_block(page.id, "text")
    on_page, on_block = workspace.comment(page.id, "?"), workspace.comment(page.id, "!", block.id)
    found = read(api, page.id, block.id, "gone")
    ids = {place: [each["id"] for each in listed] for place, listed in found.comments.items()}
    assert ids == {page.id: [on_page], block.id: [on_block], "gone": []}
    workspace.refused = {"comments"}
    assert read(api, page.id).comments == {}


HOSTILE = [
    ({"properties": "none"}, "wrong_type"),
    ({"last_edited_time": "yesterday"}, "wrong_type"),
    ({"last_edited_time": 17}, "wrong_type"),
    ({"id": None}, "missing_id"),
    ({"id": ["x"]}, "wrong_type"),
    ({"object": "user"}, "wrong_type"),
    ({"object": None}, "wrong_type"),
    ({"properties": {"Name": {"type": "title", "title": rich_text("a\0b")}}}, "nul_byte"),
]


@pytest.mark.parametrize(("overlay", "reason"), HOSTILE)
def test_a_page_that_is_none_is_set_aside(
    workspace: Workspace, api: NotionApi, overlay: dict, reason: str
) -> None:
    page = workspace.add_page("Till")
    page.overlay = overlay
    found = read(api, page.id)
    assert isinstance(found.seen, Reject)
    assert found.seen.reason == reason


@pytest.mark.parametrize(
    "overlay",
    [
        {"properties": {}},
        {"properties": None},
        {"properties": {"Name": None, "x": {"type": "rollup", "id": "r", "rollup": 3}}},
        {"properties": {"Name": {"id": "title", "type": "title", "title": []}}},
        {"last_edited_time": None},
        {"parent": None, "url": 7, "created_by": "me"},
    ],
)
def test_a_page_that_says_little_is_landed(
    workspace: Workspace, api: NotionApi, overlay: dict
) -> None:
    page = workspace.add_page("")
    page.overlay = overlay
    assert isinstance(read(api, page.id).seen, Observation)


class Says:
    """Answers with what it was given, then with an empty list."""

    def __init__(self, *bodies: object) -> None:
        self.bodies = list(bodies)

    def answer(self, asked: Asked) -> Answer:
        if asked.path.startswith("/v1/pages/"):
            return Answer({"object": "page", "id": "p", "properties": {}})
        body = self.bodies.pop(0) if self.bodies else {"results": []}
        return body if isinstance(body, Answer) else Answer(body)


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        "text",
        {"results": {}},
        {"results": [], "has_more": True},
        {"results": ["block"]},
        {"results": [None]},
        {"results": [{"object": "block", "id": "b"}]},
        {"results": [{"object": "block", "id": "b", "parent": {}, "type": "x"}]},
        {"results": [{"object": "page", "id": "b", "properties": {}}]},
        Answer({"object": "error", "code": "validation_error"}, 403),
    ],
)
def test_blocks_that_are_none_set_their_page_aside(body: object) -> None:
    with serving(Says(body)) as server, client(server) as api:
        found = read(api, "p")
    assert isinstance(found.seen, Reject)
    assert found.seen.reason in ("wrong_type", "missing_children")


def test_a_list_that_never_ends_is_noticed() -> None:
    answer = {"results": [], "has_more": True, "next_cursor": "again"}
    with (
        serving(Says(answer, answer, answer)) as server,
        client(server) as api,
        pytest.raises(MalformedAnswerError, match="how the list POST /v1/search goes on"),
    ):
        list(api.search())


def test_refused_credentials_end_the_run() -> None:
    refused = Answer({"object": "error", "code": "unauthorized"}, 401)
    with (
        serving(Says(refused)) as server,
        client(server) as api,
        pytest.raises(ApiError, match="check LORELINE_NOTION_TOKEN"),
    ):
        read(api, "p")


def test_ids_do_not_lead_elsewhere(server: Server, api: NotionApi) -> None:
    for hostile in ("../users", "a/b?c=d", "a b"):
        with pytest.raises((NotFoundError, ApiError)):
            api.object("page", hostile)
    assert not any(asked.path == "/v1/users" for asked in server.asked)


def test_no_two_moments_are_alike(workspace: Workspace, server: Server, api: NotionApi) -> None:
    api.object("user", next(iter(workspace.users)))
    clock = ServiceClock(api, None)
    given: list = []
    threads = [
        threading.Thread(target=lambda: given.extend(clock.now() for _ in range(200)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == 800
    assert ServiceClock(api, max(given)).now() > max(given)


class Recorded:
    """Answers requests as they were answered once, wherever a list is gone on with."""

    def __init__(self, exchanges: list[dict]) -> None:
        self.answers: dict[tuple[str, str, str], dict] = {}
        for each in exchanges:
            parts = urlsplit(each["uri"])
            asked = dict(parse_qsl(parts.query))
            if each["method"] == "POST" and each["request_body"].startswith("{"):
                asked |= json.loads(each["request_body"])
            # Searches for words are not made.
            if "query" not in asked:
                key = (each["method"], parts.path, asked.get("start_cursor", ""))
                self.answers.setdefault(key, each)

    def answer(self, asked: Asked) -> Answer:
        start = asked.query.get("start_cursor") or (asked.body or {}).get("start_cursor", "")
        recorded = self.answers[asked.method, asked.path, start]
        return Answer(recorded["response"], recorded["status"])


def test_recorded_exchanges_are_read(real_data: Path) -> None:
    lines = (real_data / "notion" / "interactions.jsonl").read_text().splitlines()
    exchanges = [json.loads(line) for line in lines]
    notion = [e for e in exchanges if e["uri"].startswith("https://api.notion.com/v1/")]
    # The refused ones are tried by themselves.
    recorded = Recorded([each for each in notion if each["status"] != 401])
    refused = Recorded([each for each in notion if each["status"] == 401])
    read = Counter()
    with serving(recorded) as server, client(server) as api:
        for method, path, start in list(recorded.answers):
            match method, *path.split("/")[2:]:
                case "GET", ("pages" | "data_sources" | "databases" | "users") as kinds, identity:
                    status = recorded.answers[method, path, start]["status"]
                    with nullcontext() if status == 200 else pytest.raises(NotFoundError):
                        value = api.object(kinds.removesuffix("s"), identity)
                        assert problem_of(value) is None
                    read[kinds] += 1
                case "GET", "blocks", identity, "children" if not start:
                    blocks = [block for answer in api.children(identity) for block in answer]
                    assert all(problem_of(block) is None for block in blocks)
                    read["blocks"] += len(blocks)
                case "POST", "search":
                    assert all(problem_of(e) is None for answer in api.search() for e in answer)
                    read["search"] += 1
                case "POST", "data_sources", identity, "query":
                    read["rows"] += 1 + len(list(api.rows(identity)))
                case "GET", "users":
                    assert all(problem_of(e) is None for answer in api.users() for e in answer)
                    read["lists of users"] += 1
                case "GET", "comments":
                    [comment] = api.comments("any")
                    assert problem_of(comment) is None
                    read["comments"] += 1
    assert min(read[kind] for kind in ("pages", "blocks", "search", "rows", "comments")) > 0
    with (
        serving(refused) as server,
        client(server) as api,
        pytest.raises(ApiError, match=r"unauthorized API token is invalid.*LORELINE_NOTION_TOKEN"),
    ):
        list(api.users())
