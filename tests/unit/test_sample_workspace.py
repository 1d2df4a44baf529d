"""The sample workspace: generated from its story, in the shapes of the real sources."""

from __future__ import annotations

import csv
import gzip
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

WORKSPACE = Path(__file__).resolve().parents[2] / "sample_workspace"
DAYS = ("day_one", "day_two", "day_three")
SECRET = re.compile(r"saltmarsh|veldbox|joost", re.IGNORECASE)
HOLE = re.compile(r"woodworm|halyard", re.IGNORECASE)
Json = dict[str, Any]


@cache
def json_lines(name: str) -> list[Json]:
    return [json.loads(line) for line in (WORKSPACE / name).read_text().splitlines()]


@cache
def read_json(name: str) -> Any:
    return json.loads((WORKSPACE / name).read_text())


@cache
def read_yaml(name: str) -> Any:
    return yaml.safe_load((WORKSPACE / name).read_text())


def generated_files(root: Path) -> dict[str, bytes]:
    names = ["questions.yaml", "expected_changes.yaml"]
    names += ["expected_branches.jsonl", "expected_judgements.yaml"]
    paths = [root / name for name in names]
    paths += [path for day in DAYS for path in (root / day).rglob("*") if path.is_file()]
    return {path.relative_to(root).as_posix(): unpacked(path) for path in paths}


def unpacked(path: Path) -> bytes:
    """What a file holds; how gzip packs it depends on the library, what comes out does not."""
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


def test_generating_again_gives_the_same_bytes(tmp_path: Path) -> None:
    script = WORKSPACE / "generate.py"
    subprocess.run([sys.executable, script, "--into", tmp_path], check=True)
    again, committed = generated_files(tmp_path), generated_files(WORKSPACE)
    assert sorted(again) == sorted(committed)
    assert [name for name in again if again[name] != committed[name]] == []


def test_generated_files_stay_small() -> None:
    sizes: Counter[str] = Counter()
    for name, content in generated_files(WORKSPACE).items():
        sizes["/".join(name.split("/")[:2])] += len(content)
    assert sizes.total() < 8_000_000
    logs = [size for name, size in sizes.items() if name.endswith("/log_files")]
    assert len(logs) == 2 and max(logs) < 1_500_000


# Notion


def plain_text(value: Any) -> Iterator[str]:
    """Every piece of text that a reader of an API object sees."""
    if isinstance(value, dict):
        if "plain_text" in value:
            yield value["plain_text"]
        else:
            for inner in value.values():
                yield from plain_text(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from plain_text(inner)


@cache
def pages(day: str) -> dict[str, Json]:
    return {page["id"]: page for page in json_lines(f"{day}/notion/pages.jsonl")}


@cache
def children(day: str) -> dict[str, list[Json]]:
    """Blocks by their parent, in order, the answers of one parent put together."""
    found: dict[str, list[Json]] = defaultdict(list)
    for answer in json_lines(f"{day}/notion/blocks.jsonl"):
        for block in answer["results"]:
            found[block["parent"][block["parent"]["type"]]].append(block)
    return found


def blocks_below(day: str, parent: str) -> Iterator[Json]:
    for block in children(day).get(parent, []):
        yield block
        if block["type"] != "child_page":
            yield from blocks_below(day, block["id"])


def title(page: Json) -> str:
    properties = page["properties"].values()
    return "".join(plain_text([p["title"] for p in properties if p["type"] == "title"]))


def page_text(day: str, page_id: str) -> str:
    """Texts of a page's properties and blocks, one block a line, and what an image is signed by."""
    page = pages(day)[page_id]
    lines = [title(page), *plain_text(page["properties"])]
    for block in blocks_below(day, page_id):
        content = block[block["type"]]
        lines.append("".join(plain_text(content)) + str(content.get("title", "")))
        lines.append(str(content.get("checked", "")))
    return "\n".join(lines)


def test_pages_form_a_tree_with_one_database() -> None:
    known = pages("day_one")
    live = [page for page in known.values() if not page["in_trash"]]
    assert len(live) >= 40
    rows = [page for page in live if page["parent"]["type"] == "data_source_id"]
    assert len(rows) >= 9
    [source] = json_lines("day_one/notion/data_sources.jsonl")
    assert {row["parent"]["data_source_id"] for row in rows} == {source["id"]}
    kinds = {p["type"] for row in rows for p in row["properties"].values()}
    assert kinds == {
        "title", "select", "people", "date", "rich_text", "number", "checkbox", "url"
    }  # fmt: skip
    for page in live:
        if page["parent"]["type"] == "page_id":
            assert page["parent"]["page_id"] in known
            listed = [b["id"] for b in children("day_one")[page["parent"]["page_id"]]]
            assert page["id"] in listed


def test_pages_have_the_shape_of_the_recorded_api() -> None:
    for page in pages("day_one").values():
        assert set(page) == {
            "object", "id", "created_time", "last_edited_time", "created_by", "last_edited_by",
            "cover", "icon", "parent", "in_trash", "is_archived", "is_locked", "properties", "url",
            "public_url", "archived",
        }  # fmt: skip
        assert page["url"] == "https://app.notion.com/p/" + page["id"].replace("-", "")
        assert page["created_time"] <= page["last_edited_time"] <= "2026-10-16T18:00:00.000Z"


def test_there_are_long_pages_and_short_ones() -> None:
    words = [len(page_text("day_one", page_id).split()) for page_id in pages("day_one")]
    assert sum(600 <= count <= 1500 for count in words) >= 10
    assert sum(count < 300 for count in words) >= 10


def test_every_kind_of_block_is_there() -> None:
    blocks = [block for group in children("day_one").values() for block in group]
    kinds = Counter(block["type"] for block in blocks)
    assert set(kinds) == {
        "paragraph", "heading_1", "heading_2", "heading_3", "bulleted_list_item",
        "numbered_list_item", "to_do", "toggle", "callout", "quote", "code", "table", "table_row",
        "divider", "column_list", "column", "synced_block", "image", "file", "bookmark",
        "equation", "table_of_contents", "child_page", "child_database", "unsupported",
    }  # fmt: skip
    assert {b["to_do"]["checked"] for b in blocks if b["type"] == "to_do"} == {True, False}
    languages = {b["code"]["language"] for b in blocks if b["type"] == "code"}
    assert {"go", "sql", "python", "rust", "yaml", "json", "bash", "typescript"} <= languages
    assert any(b["table"]["has_column_header"] for b in blocks if b["type"] == "table")
    mentions = Counter(
        text["mention"]["type"]
        for block in blocks
        for text in block[block["type"]].get("rich_text", [])
        if text["type"] == "mention"
    )
    assert set(mentions) == {"user", "page", "date"}


def test_every_block_with_children_has_an_answer() -> None:
    for day in ("day_one", "day_two"):
        for group in children(day).values():
            for block in group:
                is_copy = block["type"] == "synced_block" and block["synced_block"]["synced_from"]
                if block["has_children"] and not is_copy and block["type"] != "child_page":
                    assert children(day)[block["id"]], block
        live = [page["id"] for page in pages(day).values() if not page["in_trash"]]
        assert all(children(day)[page_id] for page_id in live)


def test_block_ids_are_unique_and_synced_copies_name_an_original() -> None:
    blocks = [block for group in children("day_one").values() for block in group]
    ids = [block["id"] for block in blocks]
    assert len(ids) == len(set(ids))
    synced = [block["synced_block"]["synced_from"] for block in blocks if "synced_block" in block]
    copies = [source["block_id"] for source in synced if source]
    assert copies and len(copies) < len(synced)
    assert set(copies) <= set(ids)


def test_more_than_a_hundred_blocks_take_two_answers() -> None:
    answers = json_lines("day_one/notion/blocks.jsonl")
    [first] = [answer for answer in answers if answer["has_more"]]
    second = answers[answers.index(first) + 1]
    assert len(first["results"]) == 100
    assert first["next_cursor"] == second["results"][0]["id"]
    assert first["results"][0]["parent"] == second["results"][0]["parent"]


def test_links_and_mentions_lead_to_pages_of_the_workspace() -> None:
    known = {page["url"]: title(page) for page in pages("day_one").values()}
    targets = re.findall(
        r'"href":"(https://app\.notion\.com/[^"]+)"',
        (WORKSPACE / "day_one/notion/blocks.jsonl").read_text(),
    )
    assert len(targets) > 30
    assert set(targets) <= set(known)


def test_two_pages_share_a_section_and_one_has_no_title() -> None:
    paragraphs = Counter(
        text
        for page_id in pages("day_one")
        for text in {
            "".join(plain_text(block["paragraph"]))
            for block in blocks_below("day_one", page_id)
            if block["type"] == "paragraph"
        }
    )
    assert any(count == 2 and len(text) > 150 for text, count in paragraphs.items())
    assert [title(page) for page in pages("day_one").values()].count("") == 1


def test_several_scripts_are_in_use() -> None:
    text = (WORKSPACE / "day_one/notion/blocks.jsonl").read_text()
    for pattern in ("[α-ω]", "[぀-ヿ]", "[一-鿿]", "[àâéèê]", "[\U0001f300-\U0001faff]"):
        assert re.search(pattern, text)


def test_a_signed_url_changes_between_days_and_nothing_else_does() -> None:
    def signed(day: str) -> dict[str, Json]:
        every = [block for group in children(day).values() for block in group]
        return {block["id"]: block for block in every if block["type"] in ("image", "file")}

    before, after = signed("day_one"), signed("day_two")
    assert {block["type"] for block in before.values()} == {"image", "file"}
    for identity, block in before.items():
        file = block[block["type"]]["file"]
        later = after[identity][block["type"]]["file"]
        assert file["url"] != later["url"] and "X-Amz-Signature=" in file["url"]
        assert file["url"].split("?")[0] == later["url"].split("?")[0]
        file_less = {**block, block["type"]: None}
        assert file_less == {**after[identity], block["type"]: None}


# Slack


@cache
def messages(day: str) -> dict[str, list[Json]]:
    """Messages by channel name, or by id for direct conversations, in order of time."""
    found = {}
    for folder in sorted((WORKSPACE / day / "slack").iterdir()):
        if folder.is_dir():
            listed = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
            found[folder.name] = [message for day_file in listed for message in day_file]
    return found


def thread_text(day: str, channel: str, root: str) -> str:
    found = [m for m in messages(day)[channel] if m.get("thread_ts", m["ts"]) == root]
    return "\n".join(m["text"] for m in found if m.get("subtype") != "tombstone")


def channel_names(day: str) -> dict[str, str]:
    listed = [*read_json(f"{day}/slack/channels.json"), *read_json(f"{day}/slack/groups.json")]
    direct = {c["id"]: c["id"] for c in read_json(f"{day}/slack/dms.json")}
    return {channel["id"]: channel["name"] for channel in listed} | direct


def test_slack_has_the_promised_amount_and_kinds_of_messages() -> None:
    everything = [m for group in messages("day_one").values() for m in group]
    assert len(everything) >= 500
    assert len(read_json("day_one/slack/channels.json")) >= 6
    [private] = read_json("day_one/slack/groups.json")
    assert private["name"] == "leadership-private" and len(private["members"]) == 4
    subtypes = Counter(message.get("subtype") for message in everything)
    assert {None, "bot_message", "channel_join", "thread_broadcast", "tombstone"} <= set(subtypes)
    assert sum("edited" in m for m in everything) >= 5
    assert sum("files" in m for m in everything) >= 3
    assert sum("attachments" in m for m in everything) >= 6
    assert sum("reactions" in m for m in everything) >= 50
    assert sum("```" in m["text"] for m in everything) >= 3
    assert sum("https://app.notion.com/p/" in m["text"] for m in everything) >= 20


def test_slack_users_are_twelve_people_and_two_bots_known_to_notion_by_email() -> None:
    users = read_json("day_one/slack/users.json")
    people = [user for user in users if not user["is_bot"]]
    assert (len(people), len(users)) == (12, 14)
    accounts = json_lines("day_one/notion/users.jsonl")
    emails = {a["person"]["email"] for a in accounts if a["type"] == "person"}
    assert {user["profile"]["email"] for user in people} == emails


@pytest.mark.parametrize("day", ["day_one", "day_two"])
def test_threads_agree_with_their_replies(day: str) -> None:
    for group in messages(day).values():
        by_ts = {message["ts"]: message for message in group}
        assert len(by_ts) == len(group)
        assert [m["ts"] for m in group] == sorted(by_ts)
        replies: dict[str, list[str]] = defaultdict(list)
        for message in group:
            if message.get("thread_ts", message["ts"]) != message["ts"]:
                replies[message["thread_ts"]].append(message["ts"])
        for root, times in replies.items():
            assert by_ts[root]["reply_count"] == len(times)
            assert by_ts[root]["latest_reply"] == times[-1]
        assert all(m["ts"] in replies for m in group if "reply_count" in m)


def test_slack_mentions_name_known_accounts_and_channels() -> None:
    known_users = {user["id"] for user in read_json("day_one/slack/users.json")}
    known_channels = channel_names("day_one")
    texts = "\n".join(m["text"] for group in messages("day_one").values() for m in group)
    assert set(re.findall(r"<@(\w+)>", texts)) <= known_users
    named = re.findall(r"<#(\w+)\|([\w-]+)>", texts)
    assert named and all(known_channels[identity] == name for identity, name in named)


def test_the_secret_of_the_private_channel_is_nowhere_else() -> None:
    leaks = [
        name
        for name, content in generated_files(WORKSPACE).items()
        if SECRET.search(content.decode()) and "/slack/leadership-private/" not in name
    ]
    assert leaks == ["questions.yaml", "expected_changes.yaml"]
    told = "\n".join(m["text"] for m in messages("day_one")["leadership-private"])
    assert len(SECRET.findall(told)) >= 5


def test_what_a_few_people_know_is_nowhere_else() -> None:
    def holding(pattern: re.Pattern[str]) -> set[str]:
        found = generated_files(WORKSPACE).items()
        return {name for name, content in found if pattern.search(content.decode())}

    told = {"questions.yaml", "expected_changes.yaml"}
    assert {Path(name).parent.name for name in holding(HOLE) - told} == {"linear"}
    for day in ("day_one", "day_two"):
        private = {node["id"] for node in issues(day).values() if node["team"]["key"] == "SEC"}
        assert len(private) == 4
        for kind, owner in (("issues", None), ("comments", "issue"), ("history", "issue")):
            nodes = [n for n in linear(day, kind) if HOLE.search(json.dumps(n))]
            assert {n[owner]["id"] if owner else n["id"] for n in nodes} <= private
            assert nodes or kind == "history"
    candidate = holding(re.compile("Kerouanton|Maëlle"))
    [document] = [f for f in drive_files("day_one").values() if len(f["permissions"]) == 3]
    assert candidate - told == {
        f"{day}/google_docs/{document['id']}.json" for day in ("day_one", "day_two")
    }


# Gateway


@cache
def events(day: str) -> list[Json]:
    return json_lines(f"{day}/gateway/events.jsonl")


def chats(found: list[Json]) -> list[Json]:
    return [event["data"] for event in found if event["type"].startswith("llm.chat.")]


def canonical(message: Json) -> Json:
    """What a message says, however its client writes it; ids of tool calls left out."""
    content = message.get("content") or ""
    if isinstance(content, list):
        content = "".join(part["text"] for part in content)
    calls = [call["function"] for call in message.get("tool_calls", [])]
    return {"role": message["role"], "content": content, "calls": calls}


def conversation(messages: list[Json]) -> list[Json]:
    """Canonical messages without system texts; results of parallel calls in one order."""
    found: list[Json] = []
    results: list[tuple[str, Json]] = []
    for message in [m for m in messages if m["role"] != "system"] + [{"role": "end"}]:
        if message["role"] == "tool":
            results.append((message["tool_call_id"], canonical(message)))
            continue
        found += [result for _, result in sorted(results, key=lambda pair: pair[0])]
        results = []
        found.append(canonical(message))
    return found[:-1]


def test_the_gateway_recorded_every_kind_of_event() -> None:
    kinds = Counter(event["type"] for event in events("day_one"))
    assert sum(kinds.values()) >= 300
    assert set(kinds) == {
        "llm.chat.completed", "llm.chat.failed", "llm.chat.interrupted", "llm.tool.completed",
        "llm.tool.failed", "taskification.completed", "flow.node.started",
        "flow.node.completed", "flow.node.failed", "feedback.ranked", "feedback.scored",
    }  # fmt: skip
    sessions = {link["session"] for link in json_lines("expected_branches.jsonl")}
    assert len(sessions) >= 25
    found = chats(events("day_one"))
    assert {data["tenant"] for data in found} == {"engineering", "support-desk"}
    assert any("session_id" not in data for data in found)
    with_parent = [data for data in found if "parent_turn_id" in data]
    assert 0 < len(with_parent) < len(found) / 10
    assert any(len((data["response"] or {"choices": []})["choices"]) > 1 for data in found)
    assert sum(data["is_replay"] for data in found) >= 20
    assert any(call["role"] == "assistant" for d in found for call in d["request"]["messages"][-1:])


def test_the_themes_of_requests_are_those_of_the_seed() -> None:
    named = {data.get("theme_id") for day in ("day_one", "day_two") for data in chats(events(day))}
    with (WORKSPACE.parent / "seeds" / "seed_themes.csv").open() as file:
        themes = list(csv.DictReader(file))
    assert named - {None} == {theme["theme_id"] for theme in themes}
    assert all(all(theme.values()) for theme in themes)


def test_events_are_cloudevents_with_plausible_usage() -> None:
    for event in events("day_one") + events("day_two"):
        assert event["specversion"] == "1.0"
        assert event["id"] and event["source"] and event["time"]
        assert event.get("subject", "-") == event["data"].get("session_id", "-")
    for data in chats(events("day_one")):
        if data["status"] == "completed":
            usage = data["response"]["usage"]
            assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
            assert 0 < data["duration_ms"] < 60_000


def test_histories_lead_back_to_the_turns_that_the_story_means() -> None:
    found = chats(events("day_one") + events("day_two"))
    by_turn = {data["turn_id"]: data for data in found if data["status"] == "completed"}
    by_turn = {data["turn_id"]: data for data in found} | by_turn
    links = json_lines("expected_branches.jsonl")
    assert {link["turn_id"] for link in links} == set(by_turn)
    cut = 0
    for link in links:
        sent = conversation(by_turn[link["turn_id"]]["request"]["messages"])
        if sent[-1]["role"] == "assistant":
            sent.pop()
        answers = [i for i, message in enumerate(sent) if message["role"] == "assistant"]
        if link["parent_turn_id"] is None:
            assert not answers
            continue
        parent = by_turn[link["parent_turn_id"]]
        choice = parent["response"]["choices"][link["parent_choice_index"]]["message"]
        said = conversation(parent["request"]["messages"])
        answer = canonical(choice)
        if said[-1]["role"] == "assistant":
            answer["content"] = said.pop()["content"] + answer["content"]
        known = sent[: answers[-1] + 1]
        if known != [*said, answer]:
            cut += 1
            assert known[-2:] == [said[-1], answer], link
    assert cut == 3


def test_the_second_day_repeats_reorders_and_continues() -> None:
    first, second = events("day_one"), events("day_two")
    assert [e["time"] for e in first] == sorted(e["time"] for e in first)
    assert [e["time"] for e in second] != sorted(e["time"] for e in second)
    repeated = [event for event in second if event in first]
    assert 5 <= len(repeated) < len(second)
    ids = Counter((event["id"], event["time"]) for event in first)
    assert max(ids.values()) == 1
    assert max(Counter(event["id"] for event in first).values()) == 2
    known = {data["turn_id"] for data in chats(first)}
    parents = {
        link["parent_turn_id"]
        for link in json_lines("expected_branches.jsonl")
        if link["turn_id"] in known and link["parent_turn_id"]
    }
    assert parents - known, "a parent of day one arrives on day two only"


def answers() -> dict[str, tuple[Json, str]]:
    """The completed request and the answer's text of each turn and choice, of both days."""
    return {
        f"{data['turn_id']}/{choice['index']}": (data, choice["message"]["content"])
        for data in chats(events("day_one") + events("day_two"))
        if data["status"] == "completed"
        for choice in data["response"]["choices"]
    }


def feedback(day: str) -> list[Json]:
    """What was said of answers on a day, without what is repeated from the day before."""
    known = [] if day == "day_one" else events("day_one")
    return [e for e in events(day) if e["type"].startswith("feedback.") and e not in known]


def test_feedback_is_of_answers_that_were_given_before() -> None:
    known = answers()
    for day in ("day_one", "day_two"):
        for event in feedback(day):
            data = event["data"]
            request, _ = known[f"{data['turn_id']}/{data['choice_index']}"]
            assert data["tenant"] == request["tenant"]
            assert event["time"] > request["started_at"]
            assert ("rank" in data) is (event["type"] == "feedback.ranked")
            assert ("score" in data) is (event["type"] == "feedback.scored")
    counts = Counter(event["type"] for event in feedback("day_one"))
    assert counts == {"feedback.ranked": 43, "feedback.scored": 10}
    assert Counter(event["data"]["labeller"] for event in feedback("day_two")) == {
        "rosa": 2,
        "priya": 2,
    }


def test_answers_that_are_compared_were_asked_for_alike() -> None:
    known, expected = answers(), read_yaml("expected_judgements.yaml")
    judged = {f"{e['data']['turn_id']}/{e['data']['choice_index']}" for e in feedback("day_one")}
    pairs = expected["day_one"]["preferences"]
    for pair in pairs:
        assert set(pair["answers"]) <= judged
        (one, said), (other, said_otherwise) = (known[answer] for answer in pair["answers"])
        assert one["request"]["messages"] == other["request"]["messages"]
        assert one["request"].get("tools") == other["request"].get("tools")
        assert said != said_otherwise
        assert pair["preferred"] in (*pair["answers"], None)
    assert Counter(bool(pair["preferred"]) for pair in pairs) == {True: 32, False: 3}
    assert sum(pair["is_disputed"] for pair in pairs) == 5
    compared = [known[answer][0] for pair in pairs for answer in pair["answers"]]
    assert {data["request"]["model"] for data in compared} >= {
        "llama-3.3-70b-instruct",
        "mistral-small-24b-instruct",
        "qwen2.5-32b-instruct",
    }
    assert len({data.get("theme_id") for data in compared} - {None}) == 4


def test_every_category_of_the_rules_has_two_examples() -> None:
    with (WORKSPACE.parent / "seeds" / "label_rules.csv").open() as file:
        categories = {rule["category"] for rule in csv.DictReader(file)}
    examples = read_yaml("expected_judgements.yaml")["day_one"]["categories"]
    assert set(examples) == categories
    assert all(len(ends) >= 2 and set(ends) <= set(answers()) for ends in examples.values())


def test_people_paste_what_should_not_be_kept() -> None:
    asked = {
        message["content"]
        for data in chats(events("day_one"))
        for message in data["request"]["messages"]
        if message["role"] == "user"
    }
    told = "\n".join(asked)
    assert set(re.findall(r"[\w.]+@[\w.-]+\w", told)) == {
        "alan.dovey@hedgerow-mail.example",
        "orders@penhallow-bakery.example",
        "priya@brambleworks.example",
        "t.penhallow@cornish-mail.example",
    }
    assert len(re.findall(r"\bsk-[\w-]{20,}", told)) == 1


def test_one_question_is_asked_in_two_sessions_in_nearly_the_same_words() -> None:
    wordings = {
        (data["session_id"], message["content"])
        for data in chats(events("day_one"))
        for message in data["request"]["messages"]
        if message["role"] == "user" and "may I refund" in message["content"]
    }
    sessions, texts = ({each[n] for each in wordings} for n in (0, 1))
    assert len(sessions) == len(texts) == len(wordings) == 2


# Linear


def linear(day: str, kind: str) -> list[Json]:
    return json_lines(f"{day}/linear/{kind}.jsonl")


@cache
def issues(day: str) -> dict[str, Json]:
    return {issue["identifier"]: issue for issue in linear(day, "issues")}


def issue_text(day: str, issue_id: str) -> str:
    """An issue's title, description and comments."""
    [issue] = [issue for issue in linear(day, "issues") if issue["id"] == issue_id]
    comments = [c["body"] for c in linear(day, "comments") if c["issue"]["id"] == issue_id]
    return "\n".join([issue["title"], issue["description"] or "", *comments])


KINDS = {
    "issues": "Issue",
    "comments": "Comment",
    "relations": "IssueRelation",
    "history": "IssueHistory",
    "projects": "Project",
    "cycles": "Cycle",
    "users": "User",
    "teams": "Team",
    "labels": "IssueLabel",
}
SCALARS = {"String": str, "ID": str, "DateTime": str, "TimelessDate": str, "JSONObject": dict}
SCALARS |= {"Float": (int, float), "Int": int, "Boolean": bool}


def graphql_types(schema: str) -> dict[str, dict[str, str]]:
    """The fields of every object type of a GraphQL schema, with their types."""
    schema = re.sub(r'""".*?"""', "", schema, flags=re.DOTALL)
    schema = re.sub(r"\(\n.*?\n  \)", "", schema, flags=re.DOTALL)
    return {
        found[1]: dict(re.findall(r"^  (\w+): ([\w\[\]!]+)", found[2], re.MULTILINE))
        for found in re.finditer(r"^type (\w+)[^{]*\{\n(.*?)^\}", schema, re.DOTALL | re.MULTILINE)
    }


def disagreements(
    types: dict[str, dict[str, str]], value: Any, kind: str, place: str
) -> Iterator[str]:
    """Where a value is not of a GraphQL type: an enumeration is any text."""
    if kind.endswith("!"):
        kind = kind[:-1]
        if value is None:
            yield f"{place} is null"
    if value is None:
        return
    if kind.startswith("["):
        for i, each in enumerate(value):
            yield from disagreements(types, each, kind[1:-1], f"{place}[{i}]")
    elif kind in types:
        for name, inner in value.items():
            if name in types[kind]:
                yield from disagreements(types, inner, types[kind][name], f"{place}.{name}")
            else:
                yield f"{place} has no field {name}"
    elif not isinstance(value, SCALARS.get(kind, str)):
        yield f"{place} is no {kind}"


def test_linear_nodes_are_of_the_types_of_its_schema(real_data: Path) -> None:
    types = graphql_types((real_data / "linear" / "schema.graphql").read_text())
    assert len(types) > 500
    for day in ("day_one", "day_two"):
        for name, kind in KINDS.items():
            nodes = linear(day, name)
            assert nodes and len({tuple(node) for node in nodes}) == 1
            for node in nodes:
                assert not list(disagreements(types, node, kind, f"{name} {node['id']}"))


def test_linear_holds_what_a_company_of_twelve_has() -> None:
    found = issues("day_one")
    assert len(found) >= 80
    assert Counter(issue["team"]["key"] for issue in found.values()).keys() == {"ENG", "SUP", "SEC"}
    assert {issue["state"]["type"] for issue in found.values()} == {
        "triage", "backlog", "unstarted", "started", "completed", "canceled", "duplicate"
    }  # fmt: skip
    assert {issue["priority"] for issue in found.values()} == {0, 1, 2, 3, 4}
    assert sum(issue["parent"] is not None for issue in found.values()) >= 15
    assert sum(issue["trashed"] is True for issue in found.values()) == 1
    assert sum(issue["archivedAt"] is not None for issue in found.values()) == 1
    assert [i["botActor"]["name"] for i in found.values() if not i["creator"]] == ["Lookout"]
    comments = linear("day_one", "comments")
    assert len(comments) >= 100
    assert sum(comment["parent"] is not None for comment in comments) >= 5
    assert all(any(comment[name] for comment in comments) for name in ("editedAt", "resolvedAt"))
    assert {relation["type"] for relation in linear("day_one", "relations")} == {
        "blocks", "duplicate", "related"
    }  # fmt: skip
    text = "\n".join(issue_text("day_one", issue["id"]) for issue in found.values())
    for pattern in ("[α-ω]", "[぀-ヿ]", "[一-鿿]", "[àâéèê]"):
        assert re.search(pattern, text)


@pytest.mark.parametrize("day", ["day_one", "day_two"])
def test_linear_nodes_name_nodes_that_are_there(day: str) -> None:
    known = {kind: [node["id"] for node in linear(day, kind)] for kind in KINDS}
    for kind, ids in known.items():
        assert len(ids) == len(set(ids)), kind
    fields = {"issue": "issues", "relatedIssue": "issues", "user": "users", "actor": "users"}
    fields |= {"creator": "users", "assignee": "users", "lead": "users", "team": "teams"}
    fields |= {"project": "projects", "cycle": "cycles"}
    for kind in KINDS:
        for node in linear(day, kind):
            for field, named in fields.items():
                if node.get(field):
                    assert node[field]["id"] in known[named], (kind, field)
            if node.get("parent"):
                assert node["parent"]["id"] in known[kind]
            for label in (node.get("labels") or {"nodes": []})["nodes"]:
                assert label["id"] in known["labels"]
    seen = read_json(f"{day}/linear/export.json")["exported_at"]
    for issue in linear(day, "issues"):
        assert issue["createdAt"] <= issue["updatedAt"] <= seen
        assert issue["url"].startswith("https://linear.app/brambleworks/issue/")
        assert issue["url"].split("/")[5] == issue["identifier"]
        is_done = issue["state"]["type"] == "completed"
        assert is_done == bool(issue["completedAt"])


def test_linear_people_are_known_elsewhere_by_email() -> None:
    users = {user["email"]: user["active"] for user in linear("day_one", "users")}
    slack = [user for user in read_json("day_one/slack/users.json") if not user["is_bot"]]
    active = {email for email, is_active in users.items() if is_active}
    assert active == {user["profile"]["email"] for user in slack}
    assert set(users) - active == {"dmitri@brambleworks.example"}


# Google Docs


@cache
def drive_files(day: str) -> dict[str, Json]:
    return {file["id"]: file for file in json_lines(f"{day}/google_docs/files.jsonl")}


def google_document(day: str, document_id: str) -> Json:
    return read_json(f"{day}/google_docs/{document_id}.json")


def google_tabs(tabs: list[Json]) -> Iterator[Json]:
    for tab in tabs:
        yield tab
        yield from google_tabs(tab.get("childTabs", []))


def segments(document: Json) -> Iterator[list[Json]]:
    """The contents that are indexed anew: of each tab and of each footnote."""
    for tab in google_tabs(document["tabs"]):
        yield tab["documentTab"]["body"]["content"]
        for footnote in tab["documentTab"].get("footnotes", {}).values():
            yield footnote["content"]


def paragraphs(content: list[Json]) -> Iterator[Json]:
    for element in content:
        if "paragraph" in element:
            yield element["paragraph"]
        elif "tableOfContents" in element:
            yield from paragraphs(element["tableOfContents"]["content"])
        elif "table" in element:
            for row in element["table"]["tableRows"]:
                for cell in row["tableCells"]:
                    yield from paragraphs(cell["content"])


def google_text(day: str, document_id: str) -> str:
    runs = [
        element.get("textRun", {}).get("content", "")
        for content in segments(google_document(day, document_id))
        for paragraph in paragraphs(content)
        for element in paragraph["elements"]
    ]
    return "".join(runs)


def ends_where_the_next_begins(elements: list[Json], start: int, end: int) -> bool:
    """Whether elements fill their place without a gap."""
    edges = [start, *(element["endIndex"] for element in elements)]
    begun = [element.get("startIndex", 0) for element in elements]
    return begun == edges[:-1] and edges[-1] == end


def check_indexes(content: list[Json], start: int, end: int) -> None:
    """Elements follow each other, and a run of text is as long as its UTF-16 code units."""
    assert ends_where_the_next_begins(content, start, end)
    for element in content:
        first, last = element.get("startIndex", 0), element["endIndex"]
        if "paragraph" in element:
            inner = element["paragraph"]["elements"]
            assert ends_where_the_next_begins(inner, first, last)
            for part in inner:
                text = part.get("textRun", {}).get("content", "?")
                units = len(text.encode("utf-16-le")) // 2
                assert part["endIndex"] - part.get("startIndex", 0) == units
        elif "tableOfContents" in element:
            check_indexes(element["tableOfContents"]["content"], first + 1, last - 1)
        elif "table" in element:
            rows = element["table"]["tableRows"]
            assert ends_where_the_next_begins(rows, first + 1, last - 1)
            for row in rows:
                cells = row["tableCells"]
                assert ends_where_the_next_begins(cells, row["startIndex"] + 1, row["endIndex"])
                for cell in cells:
                    check_indexes(cell["content"], cell["startIndex"] + 1, cell["endIndex"])


@pytest.mark.parametrize("day", ["day_one", "day_two"])
def test_google_documents_are_indexed_without_gaps(day: str) -> None:
    files = drive_files(day)
    documents = {path.stem for path in (WORKSPACE / day / "google_docs").glob("1*.json")}
    assert len(documents) >= 6
    assert documents == {identity for identity, file in files.items() if not file["trashed"]}
    for identity in documents:
        document = google_document(day, identity)
        assert document["documentId"] == identity and len(identity) == 44
        assert document["title"] == files[identity]["name"]
        for content in segments(document):
            check_indexes(content, 0, content[-1]["endIndex"])


def test_google_documents_have_everything_that_documents_have() -> None:
    kinds: Counter[str] = Counter()
    for identity in drive_files("day_one"):
        document = google_document("day_one", identity)
        for tab in google_tabs(document["tabs"]):
            kinds["child tab"] += "parentTabId" in tab["tabProperties"]
            for listed in tab["documentTab"].get("lists", {}).values():
                levels = listed["listProperties"]["nestingLevels"]
                kinds["nested list"] += len(levels) > 1
                for level in levels:
                    kinds[level.get("glyphType") or "bullet"] += 1
        for content in segments(document):
            kinds.update(kind for element in content for kind in element)
            for paragraph in paragraphs(content):
                kinds[paragraph["paragraphStyle"]["namedStyleType"]] += 1
                for element in paragraph["elements"]:
                    kinds.update(list(element))
                    run = element.get("textRun", {})
                    kinds.update(list(run))
                    kinds["link"] += "link" in run.get("textStyle", {})
    for kind in (
        "child tab", "nested list", "bullet", "DECIMAL", "ALPHA", "GLYPH_TYPE_UNSPECIFIED",
        "table", "tableOfContents", "TITLE", "HEADING_1", "HEADING_2", "person", "dateElement",
        "richLink", "footnoteReference", "inlineObjectElement", "link", "suggestedInsertionIds",
        "suggestedDeletionIds",
    ):  # fmt: skip
        assert kinds[kind], kind


def strangers(schemas: Json, value: Any, schema: Json, place: str) -> Iterator[str]:
    """Where a value differs from a schema of Google's discovery documents."""
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    named = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
    if not isinstance(value, named.get(schema["type"], dict)):
        yield f"{place} is no {schema['type']}"
    elif isinstance(value, list):
        for i, each in enumerate(value):
            yield from strangers(schemas, each, schema["items"], f"{place}[{i}]")
    elif isinstance(value, dict):
        others = schema.get("additionalProperties")
        for name, each in value.items():
            known = schema.get("properties", {}).get(name, others)
            if known is None:
                yield f"{place} has no {name}"
            else:
                yield from strangers(schemas, each, known, f"{place}.{name}")


def test_google_answers_are_those_of_its_discovery_documents(real_data: Path) -> None:
    folder = real_data / "google_docs" / "discovery"
    docs, drive = (
        json.loads((folder / name).read_text())["schemas"]
        for name in ("docs.v1.json", "drive.v3.json")
    )
    for day in ("day_one", "day_two"):
        for identity, file in drive_files(day).items():
            assert not list(strangers(drive, file, drive["File"], identity))
            if not file["trashed"]:
                document = google_document(day, identity)
                assert not list(strangers(docs, document, docs["Document"], identity))


def test_only_addresses_of_pictures_differ_in_documents_that_nobody_edited() -> None:
    def without_addresses(day: str, identity: str) -> str:
        text = (WORKSPACE / day / "google_docs" / f"{identity}.json").read_text()
        return re.sub(r'"contentUri":"[^"]+"', "", text)

    expected = read_yaml("expected_changes.yaml")["day_two"]["google_docs"]
    edited = {document["external_id"] for document in expected["content"]}
    pictures = 0
    for identity, file in drive_files("day_two").items():
        if identity in drive_files("day_one") and not file["trashed"]:
            texts = [google_document(day, identity) for day in ("day_one", "day_two")]
            before, after = (without_addresses(day, identity) for day in ("day_one", "day_two"))
            assert (before != after) == (identity in edited)
            pictures += texts[0] != texts[1] and before == after
    assert pictures


# Log files


def log_lines(day: str) -> dict[str, list[str]]:
    """The lines of each service, of its rotated file first."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(
        (WORKSPACE / day / "log_files").iterdir(), key=lambda path: path.suffix != ".gz"
    ):
        if path.name != "export.json":
            found[path.name.split(".")[0]] += unpacked(path).decode().splitlines()
    return found


TEXT_LINE = re.compile(
    r"(?P<ts>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) "
    r"(?P<level>DEBUG|INFO |WARN |ERROR) (?P<service>\w+) \[req-[0-9a-f]{6}\] (?P<msg>.+)"
)


@pytest.mark.parametrize("day", ["day_one", "day_two"])
def test_log_lines_are_in_order_and_of_two_formats(day: str) -> None:
    found = log_lines(day)
    assert sum(map(len, found.values())) >= 5_000 and len(found) >= 3
    seen = read_json(f"{day}/log_files/export.json")["exported_at"]
    forms: Counter[str] = Counter()
    for service, lines in found.items():
        times = []
        for line in lines:
            if line.startswith("    "):
                forms["continuation"] += 1
                continue
            text = TEXT_LINE.fullmatch(line)
            forms["text" if text else "json"] += 1
            entry = text.groupdict() if text else json.loads(line)
            assert entry["service"] == service and entry["msg"]
            assert text or {"level", "request_id", "duration_ms"} <= set(entry)
            times.append(entry["ts"])
        assert times == sorted(times) and times[-1] <= seen
    assert min(forms["text"], forms["json"]) > 1_000 and forms["continuation"] > 100


def test_logs_grow_and_one_is_rotated() -> None:
    before, after = log_lines("day_one"), log_lines("day_two")
    for service, lines in before.items():
        assert after[service][: len(lines)] == lines and len(after[service]) > len(lines)
    rotated = WORKSPACE / "day_two/log_files/till.log.1.gz"
    assert unpacked(rotated) == unpacked(WORKSPACE / "day_one/log_files/till.log")
    assert rotated.read_bytes()[4:8] == bytes(4), "the time in its head would differ each time"


def log_hours(day: str) -> dict[str, str]:
    """What each service logged within each hour, by the id of the document of that."""
    found: dict[str, str] = defaultdict(str)
    for service, lines in log_lines(day).items():
        hour = ""
        for line in lines:
            if time := re.match(r'(?:{"ts": ")?(\d{4}-\d\d-\d\dT\d\d):', line):
                hour = time[1]
            found[f"{service}:{hour}:00"] += f"{line}\n"
    return found


def test_day_two_logs_just_the_expected_hours() -> None:
    before, after = log_hours("day_one"), log_hours("day_two")
    expected = read_yaml("expected_changes.yaml")["day_two"]["log_files"]
    assert after.keys() - before.keys() == {hour["external_id"] for hour in expected["new"]}
    assert {hour: after[hour] for hour in before} == before


def test_logs_tell_of_the_incidents() -> None:
    found = {service: "\n".join(lines) for service, lines in log_lines("day_two").items()}
    storm = re.findall(r"^2026-09-17T1[12]:.* payment attempt 3 of 3", found["till"], re.MULTILINE)
    assert len(storm) > 100
    assert not re.search(r"^2026-(09-[23]|1).* payment attempt", found["till"], re.MULTILINE)
    assert found["till"].count("two captures for one subscription") == 63
    assert "tls: expired certificate" in found["pigeon"]
    assert "sum 19641.18" in found["ledger"] and "sum 19641,18" in found["ledger"]
    nothing = [line for line in found["pantry"].splitlines() if "φετα" in line]
    assert {json.loads(line)["results"] > 0 for line in nothing if "10-06" in line} == {False}
    assert {json.loads(line)["results"] > 0 for line in nothing if "10-08" in line} == {True}


# Incident reports


@cache
def reports(day: str) -> dict[str, tuple[Json, str]]:
    """The front matter and the text of every report, by the name of its file."""
    found = {}
    for path in sorted((WORKSPACE / day / "incident_reports").glob("*.md")):
        _, front, body = path.read_text().split("---\n", 2)
        found[path.stem] = (yaml.safe_load(front), body)
    return found


@pytest.mark.parametrize(("day", "count"), [("day_one", 6), ("day_two", 7)])
def test_incident_reports_have_their_fields_and_sections(day: str, count: int) -> None:
    assert len(reports(day)) == count
    emails = {user["email"] for user in linear(day, "users")}
    for name, (front, body) in reports(day).items():
        assert list(front) == [
            "id", "title", "severity", "status", "started_at", "detected_at", "resolved_at",
            "services", "commander", "authors", "tags",
        ]  # fmt: skip
        assert front["id"] == name and front["severity"] in (1, 2, 3)
        assert front["started_at"] < front["detected_at"] < front["resolved_at"]
        assert {front["commander"], *front["authors"]} <= emails
        sections = ["Summary", "Impact", "Timeline", "Root cause", "Follow-ups"]
        assert re.findall(r"^## (.+)$", body, re.MULTILINE) == sections
        timeline = body.split("## Timeline")[1].split("## ")[0].strip().splitlines()
        assert all(re.match(r"- (\d{4}-\d\d-\d\d )?\d\d:\d\d UTC – .", line) for line in timeline)
        assert re.search(r"\[ENG-\d+\]\(", body)


# What the sources say of each other


@pytest.mark.parametrize("day", ["day_one", "day_two"])
def test_links_from_source_to_source_lead_somewhere(day: str) -> None:
    threads = {
        f"{channel}/p{message['ts'].replace('.', '')}"
        for channel, name in channel_names(day).items()
        for message in messages(day)[name]
    }
    known = {
        "notion": {
            page["url"]
            for page in [*pages(day).values(), *json_lines(f"{day}/notion/databases.jsonl")]
        },
        "linear": set(issues(day)),
        "google_docs": set(drive_files(day)),
        "incident_reports": set(reports(day)),
        "slack": threads,
    }
    patterns = {
        "notion": r"https://app\.notion\.com/p/[0-9a-f]{32}",
        "linear": r"https://linear\.app/brambleworks/issue/([A-Z]+-\d+)",
        "google_docs": r"https://docs\.google\.com/document/d/([\w-]+)",
        "incident_reports": r"/bramble/incidents/src/main/([A-Z]+-\d+)\.md",
        "slack": r"https://brambleworks\.slack\.com/archives/(\w+/p\d+)",
    }
    links = set()
    for name, content in generated_files(WORKSPACE).items():
        if not name.startswith(f"{day}/"):
            continue
        source = name.split("/")[1]
        for target, pattern in patterns.items():
            found = set(re.findall(pattern, content.decode()))
            assert found <= known[target], (name, target, found - known[target])
            if found:
                links.add((source, target))
        if source in ("slack", "notion", "linear", "incident_reports"):
            named = set(re.findall(r"\b(?:ENG|SUP|SEC)-\d+\b", content.decode()))
            assert named <= known["linear"], name
    for source, target in (
        ("slack", "linear"), ("slack", "google_docs"), ("notion", "linear"),
        ("notion", "google_docs"), ("linear", "notion"), ("linear", "google_docs"),
        ("linear", "slack"), ("linear", "incident_reports"), ("google_docs", "linear"),
        ("google_docs", "notion"), ("incident_reports", "linear"), ("incident_reports", "notion"),
        ("incident_reports", "slack"), ("incident_reports", "google_docs"),
    ):  # fmt: skip
        assert (source, target) in links


# What changes


def test_day_two_changes_just_the_expected_issues() -> None:
    before, after = issues("day_one"), issues("day_two")
    members = {
        day: {team["id"]: team["members"] for team in linear(day, "teams")}
        for day in ("day_one", "day_two")
    }
    found = defaultdict(set)
    for name, issue in before.items():
        later, team = after[name], issue["team"]["id"]
        texts = [issue_text(day, issue["id"]) for day in ("day_one", "day_two")]
        if later["trashed"] and not issue["trashed"]:
            found["deleted"].add(issue["id"])
        elif issue != later or texts[0] != texts[1]:
            found["content"].add(issue["id"])
        elif members["day_one"][team] != members["day_two"][team]:
            found["permissions"].add(issue["id"])
    expected = read_yaml("expected_changes.yaml")["day_two"]["linear"]
    assert found == {name: {d["external_id"] for d in docs} for name, docs in expected.items()}
    assert len(after) - len(before) == 3
    changed = {issue["id"] for issue in after.values() if issue["id"] in found["content"]}
    new = {issue["id"] for name, issue in after.items() if name not in before}
    known = {relation["id"] for relation in linear("day_one", "relations")}
    for relation in linear("day_two", "relations"):
        ends = {relation["issue"]["id"], relation["relatedIssue"]["id"]}
        assert relation["id"] in known or ends <= changed | new, "a relation shows at both ends"


def test_day_two_changes_just_the_expected_google_documents() -> None:
    before, after = drive_files("day_one"), drive_files("day_two")
    found = defaultdict(set)
    for identity, file in before.items():
        later = after[identity]
        if later["trashed"]:
            found["deleted"].add(identity)
        elif google_text("day_one", identity) != google_text("day_two", identity):
            found["content"].add(identity)
            assert file["modifiedTime"] < later["modifiedTime"]
        elif file != later:
            assert {n for n in file if file[n] != later[n]} == {"permissions"}
            found["permissions"].add(identity)
    expected = read_yaml("expected_changes.yaml")["day_two"]["google_docs"]
    assert found == {name: {d["external_id"] for d in docs} for name, docs in expected.items()}


def test_day_two_changes_just_the_expected_reports() -> None:
    before, after = reports("day_one"), reports("day_two")
    changed = {name for name, report in before.items() if after[name] != report}
    [expected] = read_yaml("expected_changes.yaml")["day_two"]["incident_reports"]["content"]
    assert changed == {expected["external_id"]}
    assert set(after) - set(before) == {"INC-45"}


def test_day_two_changes_just_the_expected_pages() -> None:
    before, after = pages("day_one"), pages("day_two")
    assert set(before) == set(after)
    found = defaultdict(set)
    for page_id, page in before.items():
        trashed = (page["in_trash"], after[page_id]["in_trash"])
        if trashed == (False, True):
            found["deleted"].add(page_id)
        elif trashed == (True, False):
            found["restored"].add(page_id)
        elif page_text("day_one", page_id) != page_text("day_two", page_id):
            found["content"].add(page_id)
    expected = read_yaml("expected_changes.yaml")["day_two"]["notion"]
    assert found == {name: {d["external_id"] for d in docs} for name, docs in expected.items()}


def test_day_three_returns_one_page_to_its_first_words() -> None:
    [page_id] = pages("day_three")
    texts = [page_text(day, page_id) for day in DAYS]
    assert texts[0] == texts[2] != texts[1]
    edited = [pages(day)[page_id]["last_edited_time"] for day in DAYS]
    assert edited == sorted(set(edited))
    assert [read_json(f"{day}/notion/export.json")["complete"] for day in DAYS] == [
        True,
        True,
        False,
    ]


def test_day_two_changes_just_the_expected_threads() -> None:
    expected = read_yaml("expected_changes.yaml")["day_two"]["slack"]
    names = {name: identity for identity, name in channel_names("day_one").items()}
    changed, counts = set(), Counter()
    for channel, group in messages("day_one").items():
        before = {m["ts"]: m for m in group}
        after = {m["ts"]: m for m in messages("day_two")[channel]}
        edited = {
            ts for ts in before.keys() & after.keys() if before[ts]["text"] != after[ts]["text"]
        }
        counts += Counter(
            new=len(after.keys() - before.keys()),
            edited=len(edited),
            deleted=len(before.keys() - after.keys()),
        )
        for ts in edited | (before.keys() ^ after.keys()):
            message = after.get(ts) or before[ts]
            root = message.get("thread_ts", ts)
            if root in before:
                changed.add(f"{names[channel]}:{root}")
    assert changed == {document["external_id"] for document in expected["content"]}
    assert counts == expected["messages"]


def test_day_two_revokes_one_membership() -> None:
    [before], [after] = (read_json(f"{day}/slack/groups.json") for day in DAYS[:2])
    users = {user["id"]: user["name"] for user in read_json("day_one/slack/users.json")}
    gone = set(before["members"]) - set(after["members"])
    assert [users[identity] for identity in gone] == ["samuel"]
    roots = {m.get("thread_ts", m["ts"]) for m in messages("day_one")["leadership-private"]}
    expected = read_yaml("expected_changes.yaml")["day_two"]["slack"]["permissions"]
    assert {d["external_id"] for d in expected} == {f"{before['id']}:{root}" for root in roots}


# Questions


def test_questions_are_answered_where_they_say() -> None:
    questions = read_yaml("questions.yaml")
    assert len(questions) >= 10
    assert any(question["as"] for question in questions)
    for question in questions:
        day = question["day"]
        for place in question["expect"]:
            text = document_text(day, place["source"], place["external_id"])
            assert place["text"] in " ".join(text.split()), (question["question"], place["title"])


def document_text(day: str, source: str, external_id: str) -> str:
    """What a document says on a day, which must not be in the bin then."""
    if source == "notion":
        assert not pages(day)[external_id]["in_trash"]
        return page_text(day, external_id)
    if source == "linear":
        return issue_text(day, external_id)
    if source == "google_docs":
        assert not drive_files(day)[external_id]["trashed"]
        return google_text(day, external_id)
    if source == "incident_reports":
        return reports(day)[external_id][1]
    if source == "log_files":
        return log_hours(day)[external_id]
    channel, root = external_id.split(":")
    return thread_text(day, channel_names(day)[channel], root)


def test_many_questions_need_more_than_one_source() -> None:
    new = {"linear", "google_docs", "incident_reports", "log_files"}
    sources = [
        {p["source"] for p in question["expect"]} for question in read_yaml("questions.yaml")
    ]
    assert sum(bool(found & new) for found in sources) >= 12
    assert sum(bool(found & new) and len(found) > 1 for found in sources) >= 5
    assert new <= set().union(*sources)


def test_private_issues_and_documents_are_expected_by_their_readers_alone() -> None:
    for question in read_yaml("questions.yaml"):
        day, asker = question["day"], question["as_email"]
        users = {user["id"]: user["email"] for user in linear(day, "users")}
        members = {
            team["id"]: {users[member["id"]] for member in team["members"]["nodes"]}
            for team in linear(day, "teams")
            if team["private"]
        }
        teams = {issue["id"]: issue["team"]["id"] for issue in linear(day, "issues")}
        for place in question["expect"]:
            if place["source"] == "linear" and (team := teams[place["external_id"]]) in members:
                assert asker in members[team]
            if place["source"] == "google_docs":
                shared = drive_files(day)[place["external_id"]]["permissions"]
                kinds = {permission["type"] for permission in shared}
                named = {permission.get("emailAddress") for permission in shared}
                assert "anyone" in kinds or (asker and "domain" in kinds) or asker in named


def test_questions_about_secrets_name_a_member_or_expect_nothing() -> None:
    for question in read_yaml("questions.yaml"):
        if not SECRET.search(question["question"]):
            continue
        [group] = read_json(f"{question['day']}/slack/groups.json")
        may_read = (
            bool(question["as"]) and question["as"].removeprefix("slack:") in group["members"]
        )
        assert bool(question["expect"]) is may_read
