"""The sample workspace: generated from its story, in the shapes of the real sources."""

from __future__ import annotations

import csv
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
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def test_generating_again_gives_the_same_bytes(tmp_path: Path) -> None:
    script = WORKSPACE / "generate.py"
    subprocess.run([sys.executable, script, "--into", tmp_path], check=True)
    again, committed = generated_files(tmp_path), generated_files(WORKSPACE)
    assert sorted(again) == sorted(committed)
    assert [name for name in again if again[name] != committed[name]] == []


def test_generated_files_stay_small() -> None:
    assert sum(map(len, generated_files(WORKSPACE).values())) < 4_000_000


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


# What changes


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
            if place["source"] == "notion":
                assert not pages(day)[place["external_id"]]["in_trash"]
                text = page_text(day, place["external_id"])
            else:
                channel, root = place["external_id"].split(":")
                text = thread_text(day, channel_names(day)[channel], root)
            assert place["text"] in " ".join(text.split()), (question["question"], place["title"])


def test_questions_about_secrets_name_a_member_or_expect_nothing() -> None:
    for question in read_yaml("questions.yaml"):
        if not SECRET.search(question["question"]):
            continue
        [group] = read_json(f"{question['day']}/slack/groups.json")
        may_read = (
            bool(question["as"]) and question["as"].removeprefix("slack:") in group["members"]
        )
        assert bool(question["expect"]) is may_read
