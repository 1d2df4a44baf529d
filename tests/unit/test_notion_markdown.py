"""Canonical Markdown of Notion pages: what each block becomes, and that equal content is equal."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loreline.knowledge.notion_markdown import (
    notion_markdown,
    notion_title,
    notion_unsupported_blocks,
)
from loreline.knowledge.source_text import parse_json
from loreline.settings import PROJECT_ROOT

PAGE_ID = "6aff91ae-c0ba-4906-82e2-27dc02cd6d98"
PAGE_URL = "https://www.notion.so/6aff91aec0ba490682e227dc02cd6d98"
REAL_DATA = Path(os.environ.get("LORELINE_REAL_DATA") or PROJECT_ROOT / "../shared/data")


def run(content: str, href: str | None = None, **annotations: bool) -> dict[str, Any]:
    """A text run as the API returns it."""
    return {
        "type": "text",
        "text": {"content": content, "link": {"url": href} if href else None},
        "annotations": {
            "bold": False,
            "italic": False,
            "strikethrough": False,
            "underline": False,
            "code": False,
            "color": "default",
        }
        | annotations,
        "plain_text": content,
        "href": href,
    }


def mention(plain_text: str, **target: Any) -> dict[str, Any]:
    (kind,) = target
    return run(plain_text) | {"type": "mention", "mention": {"type": kind} | target, "text": None}


def block(kind: str, *text: Any, children: list[Any] | None = None, **content: Any) -> Any:
    """A block as the API returns it, with its child blocks."""
    runs = [run(part) if isinstance(part, str) else part for part in text]
    made = {"object": "block", "id": PAGE_ID, "type": kind, "in_trash": False}
    made["has_children"] = bool(children)
    made[kind] = ({"rich_text": runs, "color": "default"} if text else {}) | content
    return made | ({"children": children} if children else {})


def payload(*blocks: Any, **page: Any) -> str:
    return json.dumps({"page": {"object": "page", "id": PAGE_ID} | page, "blocks": list(blocks)})


def markdown(*blocks: Any, **page: Any) -> str:
    return notion_markdown(payload(*blocks, **page))


def test_a_page_reads_as_one_would_write_it():
    page = [
        block("heading_1", "Checkout"),
        block("paragraph", "Ask ", mention("@Ada", user={"id": "u", "name": "Ada L."}), " first."),
        block("heading_2", "Steps", is_toggleable=True, children=[
            block("numbered_list_item", "Look at the graph", children=[
                block("bulleted_list_item", "calls per checkout"),
                block("paragraph", "It should be one."),
            ]),
            block("numbered_list_item", "Restart ", run("till", code=True)),
            block("code", "kubectl rollout restart deploy/till", language="bash"),
        ]),
        block("heading_3", "Afterwards"),
        block("to_do", "Tell #incidents", checked=True),
        block("to_do", "Write it down", checked=False),
        block("quote", "If a baker is shouting,\nshe has bread in the oven."),
        block("callout", "Never on a Monday.", icon={"type": "emoji", "emoji": "🥖"}, children=[
            block("bulleted_list_item", "nor a Tuesday"),
        ]),
        block("divider"),
        block("toggle", "Why?", children=[block("paragraph", "Because of Bordeaux.")]),
        block("heading_4", "Deeper"),
    ]  # fmt: skip
    assert (
        markdown(*page)
        == """\
# Checkout

Ask @Ada L. first.

## Steps

1. Look at the graph
   - calls per checkout

   It should be one.

2. Restart `till`

```bash
kubectl rollout restart deploy/till
```

### Afterwards

- [x] Tell #incidents
- [ ] Write it down

> If a baker is shouting,
> she has bread in the oven.

> 🥖 Never on a Monday.
>
> - nor a Tuesday

---

- Why?

  Because of Bordeaux.

#### Deeper"""
    )


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([run("a "), run("bold", bold=True), run(" b")], "a **bold** b"),
        ([run("a"), run(" bold ", bold=True), run("b")], "a **bold** b"),
        ([run("both", bold=True, italic=True)], "***both***"),
        ([run("bold ", bold=True), run("both", bold=True, italic=True)], "**bold *both***"),
        ([run("a", italic=True), run(" "), run("b", italic=True)], "*a b*"),
        ([run("gone", strikethrough=True)], "~~gone~~"),
        ([run("plain", underline=True, color="red")], "plain"),
        ([run("x", code=True)], "`x`"),
        ([run("a`b", code=True)], "``a`b``"),
        ([run("`", code=True)], "`` ` ``"),
        ([run("site", "https://e.org/a")], "[site](https://e.org/a)"),
        ([run("https://e.org/a", "https://e.org/a")], "<https://e.org/a>"),
        ([run("see "), run("the ", "https://e.org"), run("site", "https://e.org", bold=True)],
         "see [the **site**](https://e.org)"),
        ([run("a (b)", "https://e.org/(a b)")], "[a (b)](https://e.org/%28a%20b%29)"),
        ([run("a] b", "https://e.org")], "[a\\] b](https://e.org)"),
        ([run("[1]", "https://e.org")], "[[1]](https://e.org)"),
        ([run("page", f"/{PAGE_ID.replace('-', '')}?pvs=4")], f"[page]({PAGE_URL})"),
        ([run("page", f"https://app.notion.com/p/Title-{PAGE_ID.replace('-', '')}#x")],
         f"[page]({PAGE_URL})"),
        ([run("row", f"https://www.notion.so/ws/{'0' * 32}?v={'1' * 32}&p={PAGE_ID}&pm=s")],
         f"[row]({PAGE_URL})"),
        ([mention("@Ada", user={"object": "user", "id": "u"})], "@Ada"),
        ([mention("Runbook", page={"id": PAGE_ID})], f"[Runbook]({PAGE_URL})"),
        ([mention("Tasks", database={"id": PAGE_ID})], f"[Tasks]({PAGE_URL})"),
        ([mention("", page={"id": PAGE_ID})], f"[Untitled]({PAGE_URL})"),
        ([mention("Tomorrow", date={"start": "2026-10-05", "end": None})], "2026-10-05"),
        ([mention("x", date={"start": "2026-10-05", "end": "2026-10-09"})],
         "2026-10-05 → 2026-10-09"),
        ([mention("x", link_mention={"href": "https://e.org", "title": "E"})],
         "[E](https://e.org)"),
        ([mention(":party:", custom_emoji={"id": "e", "name": "party"})], ":party:"),
        ([{"type": "equation", "equation": {"expression": "E = mc^2"}}], "$E = mc^2$"),
        (["two\nlines"], "two\nlines"),
    ],
)  # fmt: skip
def test_rich_text(runs, expected):
    assert markdown(block("paragraph", *runs)) == expected


@pytest.mark.parametrize(
    "text",
    ["# no heading", "> no quote", "- no item", "1. no item", "```", "~~~ x", "---", "===", "+ a"],
)
def test_text_that_looks_like_another_block_is_escaped(text):
    escaped = text.replace(".", "\\.") if text[0] == "1" else "\\" + text
    assert markdown(block("paragraph", f"a\n{text}")) == f"a\n{escaped}"
    assert markdown(block("bulleted_list_item", text)) == f"- {escaped}"


@pytest.mark.parametrize("text", ["#tag", "-5 degrees", "1.5 litres", "a - b", "**", "=x", "--"])
def test_text_that_only_begins_so_is_not(text):
    assert markdown(block("paragraph", text)) == text


def test_a_fence_is_longer_than_any_inside():
    inner = "```\ncode\n````"
    assert markdown(block("code", inner, language="markdown")) == f"`````markdown\n{inner}\n`````"
    captioned = block("code", "x = 1", language="plain text", caption=[run("Listing 1")])
    assert markdown(captioned) == "```\nx = 1\n```\n\nListing 1"


def table(*rows: list[Any], header: bool) -> Any:
    cells = [
        block("table_row", cells=[[run(c)] if isinstance(c, str) else c for c in row])
        for row in rows
    ]
    return block("table", table_width=2, has_column_header=header, children=cells)


def test_tables():
    rows = [["Who", "What"], ["Ada", "a|b\nc"], ["Bo", [mention("P", page={"id": PAGE_ID})]], [""]]
    assert markdown(table(*rows, header=True)) == (
        f"| Who | What |\n| --- | --- |\n| Ada | a\\|b<br>c |\n| Bo | [P]({PAGE_URL}) |\n|  |  |"
    )
    assert markdown(table(["a", "b"], header=False)) == "|  |  |\n| --- | --- |\n| a | b |"
    assert markdown(block("table", table_width=2)) == ""


SIGNED = "https://s3.amazonaws.com/ws/plan.png?X-Amz-Date=1&X-Amz-Signature=abc&x-id=GetObject"


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (block("image", type="file", file={"url": SIGNED, "expiry_time": "2026"}, caption=[]),
         "![plan.png](https://s3.amazonaws.com/ws/plan.png)"),
        (block("image", type="external", external={"url": "https://e.org/a.png?w=2"},
               caption=[run("A plan")]), "![A plan](https://e.org/a.png?w=2)"),
        (block("file", type="file", file={"url": SIGNED}, name="plan", caption=[]),
         "[plan](https://s3.amazonaws.com/ws/plan.png)"),
        (block("pdf", type="file_upload", file_upload={"id": "x"}, caption=[run("Terms")]),
         "Terms"),
        (block("bookmark", url="https://e.org", caption=[]), "<https://e.org>"),
        (block("embed", url="https://e.org", caption=[run("Map")]), "[Map](https://e.org)"),
        (block("link_preview", url="https://e.org/1"), "<https://e.org/1>"),
        (block("equation", expression="a^2"), "$$\na^2\n$$"),
        (block("child_page", title="Runbooks"), f"[Runbooks]({PAGE_URL})"),
        (block("child_database", title=""), f"[Untitled]({PAGE_URL})"),
        (block("link_to_page", type="page_id", page_id=PAGE_ID), f"<{PAGE_URL}>"),
        (block("synced_block", synced_from={"block_id": PAGE_ID}), f"[Synced block]({PAGE_URL})"),
        (block("synced_block", synced_from={"block_id": PAGE_ID},
               children=[block("paragraph", "Call Ada.")]), "Call Ada."),
        (block("synced_block", synced_from=None, children=[block("paragraph", "Call Ada.")]),
         "Call Ada."),
        (block("column_list", children=[
            block("column", children=[block("paragraph", "left")]),
            block("column", children=[block("paragraph", "right")]),
        ]), "left\n\nright"),
        (block("meeting_notes", title=[run("Weekly")], children=[block("paragraph", "Said.")]),
         "Weekly\n\nSaid."),
        (block("paragraph", "above", children=[block("paragraph", "indented")]),
         "above\n\nindented"),
        (block("table_of_contents"), ""),
        (block("paragraph", ""), ""),
    ],
)  # fmt: skip
def test_other_blocks(made, expected):
    assert markdown(made) == expected
    assert notion_unsupported_blocks(payload(made)) == 0


def test_numbers_start_again_after_another_block_and_where_the_list_says():
    item = [block("numbered_list_item", text) for text in "abc"]
    resumed = block("numbered_list_item", "d", list_start_index=9)
    assert markdown(*item[:2], block("paragraph", "x"), item[2]) == "1. a\n2. b\n\nx\n\n1. c"
    assert markdown(resumed, item[0]) == "9. d\n10. a"


def test_different_lists_are_kept_apart():
    blocks = [block("bulleted_list_item", "a"), block("numbered_list_item", "b")]
    assert markdown(*blocks, block("to_do", "c")) == "- a\n\n1. b\n\n- [ ] c"


def test_what_is_not_supported_is_left_out_and_counted_and_its_children_stay():
    unknown = block("form", children=[block("paragraph", "kept"), block("unsupported")])
    page = payload(unknown, "no block", {"object": "block", "id": PAGE_ID}, None)
    assert notion_markdown(page) == "kept"
    assert notion_unsupported_blocks(page) == 5


def prop(kind: str, value: Any) -> dict[str, Any]:
    return {"id": "x", "type": kind, kind: value}


def test_a_rows_properties_come_first_in_the_order_of_their_names():
    properties = {
        "Owner": prop("people", [{"object": "user", "name": "Ada"}, {"id": "nameless"}]),
        "Name": prop("title", [run("Pantry")]),
        "Status": prop("status", {"name": "Live", "color": "green"}),
        "Tags": prop("multi_select", [{"name": "b"}, {"name": "a"}]),
        "Empty": prop("rich_text", []),
        "Budget": prop("number", 150),
        "Ratio": prop("number", 0.25),
        "Since": prop("date", {"start": "2021-06-21", "end": None}),
        "Private": prop("checkbox", False),
        "Site": prop("url", "https://e.org"),
        "Runbook": prop("relation", [{"id": PAGE_ID}]),
        "Number": prop("unique_id", {"prefix": "ENG", "number": 12}),
        "Formula": prop("formula", {"type": "string", "string": "x"}),
        "Roll-up": prop("rollup", {"type": "array", "array": [prop("number", 1), prop("title", [
            run("t")
        ])]}),
        "Files": prop("files", [{"name": "f", "type": "file", "file": {"url": SIGNED}}]),
        "Edited": prop("last_edited_time", "2026-01-01"),
        "Note": prop("rich_text", [run("two\nlines")]),
    }  # fmt: skip
    assert (
        markdown(block("paragraph", "Body."), properties=properties)
        == f"""\
- **Budget:** 150
- **Files:** [f](https://s3.amazonaws.com/ws/plan.png)
- **Formula:** x
- **Note:** two lines
- **Number:** ENG-12
- **Owner:** @Ada
- **Private:** no
- **Ratio:** 0.25
- **Roll-up:** 1, t
- **Runbook:** <{PAGE_URL}>
- **Since:** 2021-06-21
- **Site:** <https://e.org>
- **Status:** Live
- **Tags:** b, a

Body."""
    )


def test_titles():
    assert notion_title(payload(properties={"Name": prop("title", [run("A\n b"), run("c")])})) == (
        "A bc"
    )
    assert notion_title(payload(properties={"title": prop("title", [])})) == ""
    assert notion_title(payload(object="data_source", title=[run("Tasks")], properties={})) == (
        "Tasks"
    )
    assert notion_title("{}") == notion_title("no JSON") == ""
    assert markdown(object="database", description=[run("All tasks")]) == "All tasks"


def test_text_is_normalized():
    decomposed = "Cafe\u0301 \0\u0007x \r\nb\u2028c\t \n"
    assert markdown(block("paragraph", decomposed)) == "Caf\u00e9 x\nb\nc"
    halves = [run("\ud83d"), run("\ude00"), run(" \ud83d", bold=True)]
    assert markdown(block("paragraph", *halves)) == "😀 **\ufffd**"


@pytest.mark.parametrize("depth", [100, 1_000, 5_000])
def test_deep_nesting(depth):
    toggle = json.dumps(block("toggle", "t"))[:-1] + ', "children": ['
    page = '{"blocks": [' + toggle * depth + "]}" * depth + "]}"
    found = notion_markdown(page)
    assert found.count("- t") == depth
    assert len(found) < depth * 60, "the indentation is bounded"
    assert notion_unsupported_blocks(page) == 0


def test_deep_roll_ups():
    rolled_up = '{"type": "array", "array": [{"type": "formula", "formula": '
    value = rolled_up * 1_000 + '{"type": "number", "number": 1}' + "}]}" * 1_000
    assert notion_markdown('{"page": {"properties": {"R": ' + value + "}}}") == ""


# Equal content, equal bytes.

styles = st.fixed_dictionaries({n: st.booleans() for n in ("bold", "italic", "code")})
texts = st.text(st.sampled_from("ab \n\r`*#_[]|é\u0301😀\0\t-1.>"), max_size=12)
runs = st.builds(
    lambda text, style, href: run(text, href, **style),
    texts,
    styles,
    st.sampled_from([None, None, "https://e.org", f"/{PAGE_ID}"]),
)
kinds = st.sampled_from(["paragraph", "heading_2", "bulleted_list_item", "quote", "code", "toggle"])
leaves = st.builds(lambda kind, parts: block(kind, *parts), kinds, st.lists(runs, max_size=4))
pages = st.lists(
    st.recursive(
        leaves,
        lambda inner: st.builds(
            lambda made, children: made | {"children": children},
            leaves,
            st.lists(inner, max_size=3),
        ),
        max_leaves=8,
    ),
    max_size=5,
)


def rewritten(value: Any, chance: random.Random) -> Any:
    """The same content as the API might return it another time."""
    if isinstance(value, list):
        out = []
        for item in value:
            out += split_run(item, chance) if is_text_run(item) else [rewritten(item, chance)]
        return out
    if isinstance(value, dict):
        items = [(key, rewritten(inner, chance)) for key, inner in value.items()]
        chance.shuffle(items)
        return dict(items) | {"request_id": str(chance.random()), "last_edited_time": "now"}
    return value


def is_text_run(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") == "text" and "plain_text" in item


def split_run(item: dict[str, Any], chance: random.Random) -> list[dict[str, Any]]:
    text = item["plain_text"]
    cut = chance.randint(0, len(text))
    parts = [text[:cut], text[cut:]] if chance.random() < 0.7 else [text]
    look = item["annotations"] | {"color": chance.choice(["red", "default"]), "underline": True}
    return [
        item | {"plain_text": part, "text": {"content": part}, "annotations": look}
        for part in parts
    ]


@settings(max_examples=120)
@given(pages, st.randoms(use_true_random=False))
def test_equal_content_gives_equal_bytes(page, chance):
    once = payload(*page)
    again = payload(*rewritten(page, chance))
    assert notion_markdown(once) == notion_markdown(again)


@settings(max_examples=100)
@given(pages)
def test_the_markdown_is_clean(page):
    text = notion_markdown(payload(*page))
    assert all(line == line.rstrip() for line in text.split("\n"))
    assert "\r" not in text and "\0" not in text
    assert text == text.strip("\n")


VOCABULARY = [
    *("page", "blocks", "children", "type", "rich_text", "text", "mention", "user", "date"),
    *("annotations", "bold", "href", "plain_text", "properties", "title", "rollup", "array"),
    *("table", "table_row", "cells", "synced_block", "synced_from", "image", "file", "url"),
    *("paragraph", "heading_1", "numbered_list_item", "list_start_index", "formula", "number"),
    *("code", "language", "caption", "equation", "expression", "link_to_page", "page_id", "id"),
]
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(VOCABULARY)
odd_json = st.recursive(
    scalars | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(VOCABULARY), inner, max_size=5)
    ),
    max_leaves=40,
)


@settings(max_examples=200)
@given(odd_json, odd_json)
def test_odd_json_never_raises(page, blocks):
    text = json.dumps({"page": page, "blocks": blocks})
    assert isinstance(notion_markdown(text), str)
    assert isinstance(notion_title(text), str)
    assert notion_unsupported_blocks(text) >= 0


@given(st.text(max_size=40))
def test_odd_text_never_raises(text):
    assert notion_markdown(text) == notion_title(text) == ""


@settings(max_examples=200)
@given(odd_json, st.integers(0, 60))
def test_json_of_any_depth_is_read_as_by_the_standard_library(value, cut):
    text = json.dumps({"a": value, "half": "\ud83d"})
    assert repr(parse_json(text.replace("NaN", "1").replace("Infinity", "2"))) == repr(
        json.loads(text.replace("NaN", "1").replace("Infinity", "2"))
    )
    assert parse_json(text[:cut] if cut < len(text) else text + "]") is None


@pytest.mark.skipif(not (REAL_DATA / "notion").exists(), reason="no recorded Notion exchanges")
def test_recorded_answers():
    with (REAL_DATA / "notion" / "interactions.jsonl").open() as lines:
        answers = [json.loads(line)["response"] for line in lines]
    found: list[Any] = []
    for answer in answers:
        results = answer.get("results", [answer]) if isinstance(answer, dict) else []
        found += [item for item in results if isinstance(item, dict)]
    blocks = [item for item in found if item.get("object") == "block"]
    assert len(blocks) > 50
    assert notion_unsupported_blocks(json.dumps({"blocks": blocks})) == 0
    text = notion_markdown(json.dumps({"blocks": blocks}))
    assert "paragraph 0" in text
    assert "[Test DB](https://www.notion.so/6aff91aec0ba490682e227dc02cd6d98)" in text
    titles = {notion_title(json.dumps({"page": item})) for item in found}
    assert {"Test DB", "Test Data Source"} <= titles
