"""Markdown of Slack messages: what mrkdwn, blocks, attachments and files become."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loreline.knowledge.messages import messages
from loreline.knowledge.slack_markdown import slack_markdown
from loreline.settings import PROJECT_ROOT

NAMES = {"U1": "Ada", "S1": "on-call", "C9": "general"}
REAL_DATA = Path(os.environ.get("LORELINE_REAL_DATA") or PROJECT_ROOT / "../shared/data")


def said(text: str = "", **message: Any) -> str:
    return slack_markdown(json.dumps({"type": "message", "text": text} | message), NAMES)


@pytest.mark.parametrize(
    ("mrkdwn", "markdown"),
    [
        ("*bold*, _italic_, ~gone~", "**bold**, *italic*, ~~gone~~"),
        ("*_both_* (*a*) *b*.", "***both*** (**a**) **b**."),
        ("2 * 3 * 4, a*b*c, snake_case_name, ~5", "2 * 3 * 4, a*b*c, snake_case_name, ~5"),
        ("* no bold *\n*nor\nthis*", "* no bold *\n*nor\nthis*"),
        ("<@U1> and <@U2> and <@U3|bo>", "@Ada and @U2 and @bo"),
        ("<#C1|deploys> <#C9> <#C9|> <#C2>", "#deploys #general #general #C2"),
        ("<!here> <!channel|@channel> <!subteam^S1> <!subteam^S2|@eng> <!subteam^S3>",
         "@here @channel @on-call @eng @S3"),
        ("<!date^1758067200^{date}|17 September>", "17 September"),
        ("<https://e.org/a_b_c|the _docs_>", "[the _docs_](https://e.org/a_b_c)"),
        ("<https://e.org>", "<https://e.org>"),
        ("*see <https://e.org|this>*", "**see [this](https://e.org)**"),
        ("<mailto:ada@e.org|ada@e.org> <mailto:ada@e.org|Ada>",
         "ada@e.org [Ada](mailto:ada@e.org)"),
        ("&lt;b&gt; &amp;amp; &amp;lt;", "<b> &amp; &lt;"),
        (":white_check_mark: :+1::skin-tone-2:", ":white_check_mark: :+1::skin-tone-2:"),
        ("`*x* <http://e.org> &lt;y&gt;` *z*", "`*x* http://e.org <y>` **z**"),
        ("&gt; quoted\n&gt;too\nanswer", "> quoted\n> too\n\nanswer"),
        ("so:\n&gt;&gt;&gt;all\nof *this*", "so:\n> all\n> of **this**"),
        ("run ```make\n# *all*``` then", "run\n\n```\nmake\n# *all*\n```\n\nthen"),
        ("```never closed", "\\```never closed"),
        ("# no heading\n---\nlist:\n- a\n1. b", "\\# no heading\n\\---\nlist:\n- a\n1. b"),
        ("a  \r\nb\0\u0301", "a\nb\u0301"),
        ("Cafe\u0301", "Caf\u00e9"),
    ],
)  # fmt: skip
def test_mrkdwn(mrkdwn, markdown):
    assert said(mrkdwn) == markdown


RICH_TEXT = {
    "type": "rich_text",
    "elements": [
        {"type": "rich_text_section", "elements": [
            {"type": "text", "text": "bold ", "style": {"bold": True}},
            {"type": "text", "text": "x = 1", "style": {"code": True}},
            {"type": "text", "text": " by "},
            {"type": "user", "user_id": "U1"},
            {"type": "text", "text": " in "},
            {"type": "channel", "channel_id": "C9"},
            {"type": "text", "text": " "},
            {"type": "link", "url": "https://e.org", "text": "here"},
            {"type": "emoji", "name": "tada"},
            {"type": "broadcast", "range": "here"},
        ]},
        {"type": "rich_text_list", "style": "ordered", "indent": 0, "elements": [
            {"type": "rich_text_section", "elements": [{"type": "text", "text": "one"}]},
            {"type": "rich_text_section", "elements": [{"type": "text", "text": "two"}]},
        ]},
        {"type": "rich_text_list", "style": "bullet", "indent": 1, "elements": [
            {"type": "rich_text_section", "elements": [{"type": "text", "text": "inner"}]},
        ]},
        {"type": "rich_text_quote", "elements": [{"type": "text", "text": "said\nso"}]},
        {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": "a ```b\n"}]},
    ],
}  # fmt: skip


def test_blocks_speak_where_the_text_is_empty():
    blocks = [
        {"type": "header", "text": {"type": "plain_text", "text": "Deploy"}},
        {"type": "divider"},
        {
            "type": "section",
            "text": {"type": "mrkdwn", "text": "*till* by <@U1>"},
            "fields": [{"type": "plain_text", "text": "# 42"}],
        },
        {
            "type": "context",
            "elements": [
                {"type": "image", "alt_text": "graph"},
                {"type": "mrkdwn", "text": "_ok_"},
            ],
        },
        {"type": "actions", "elements": [{"type": "button"}]},
        RICH_TEXT,
    ]
    expected = """\
**Deploy**

**till** by @Ada

\\# 42

graph

*ok*

**bold** `x = 1` by @Ada in #general [here](https://e.org):tada:@here

1. one
2. two

    - inner

> said
> so

````
a ```b
````"""
    assert said(blocks=blocks) == expected
    assert said("The text.", blocks=blocks) == "The text."


def test_attachments_and_files_follow_but_previews_of_links_do_not():
    attachments = [
        {
            "pretext": "*Alarm*",
            "title": "p95 &gt; 2 s",
            "title_link": "https://e.org/1",
            "text": "since <!date^1^{time}|05:00>",
            "fields": [{"title": "Service", "value": "till", "short": True}],
            "fallback": "Alarm: p95",
        },
        {"fallback": "only this"},
        {"from_url": "https://e.org", "title": "A preview", "text": "not said by anybody"},
    ]
    files = [
        {"title": "graph.png", "permalink": "https://files.e.org/F1"},
        {"name": "notes.txt", "mode": "snippet", "preview": "# raw\n"},
        {"mode": "tombstone", "title": "deleted"},
    ]
    expected = """\
Look

**Alarm**

[p95 > 2 s](https://e.org/1)

since 05:00

**Service**: till

only this

[graph.png](https://files.e.org/F1)

notes.txt

```
# raw
```"""
    assert said("Look", attachments=attachments, files=files) == expected


WORDS = [
    *("text", "blocks", "type", "rich_text", "elements", "section", "rich_text_list", "indent"),
    *("style", "bold", "attachments", "title", "fields", "value", "files", "name", "mode"),
    *("rich_text_section", "user", "user_id", "link", "url", "header", "mrkdwn", "snippet"),
]
odd_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(WORDS) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=5)
    ),
    max_leaves=30,
)
mrkdwn = st.text(st.sampled_from("ab*_~`<>@#!|^&;lgt \n:\0-="), max_size=40) | st.lists(
    st.sampled_from(["*a:* ", "**b:**", "\n\n", "```", ":** ", "x"]), max_size=12
).map("".join)


@settings(max_examples=200)
@given(odd_json)
def test_odd_json_never_raises(message):
    text = json.dumps(message)
    assert isinstance(slack_markdown(text, NAMES), str)


@settings(max_examples=300)
@given(mrkdwn)
def test_odd_mrkdwn_loses_no_letter_and_is_clean(text):
    markdown = said(text)
    assert markdown == said(text)
    assert all(line == line.rstrip() for line in markdown.split("\n"))
    assert "\0" not in markdown
    outside = [part.split(">")[-1] for part in text.replace("\0", "").split("<")]
    for letter in "ab":
        assert markdown.count(letter) >= sum(part.count(letter) for part in outside)


def conversation(spoken: list[tuple[str, str]]) -> str:
    """As `slack_conversations` writes them."""
    return "\n\n".join(
        f"**{name}:**" + ("\n\n" if text.startswith(("```", ">")) else " ") + text
        for name, text in spoken
    )


SAID = [
    {"text": "Plan:\n\n*Deploy:* at noon, *Test:* later"},
    {"text": "As I said:\n\n**Ann:** it is down\n\n**Bob:**"},
    {"text": "```**Ann:** said\n\n**Bob:** wrote```"},
    {"attachments": [{"text": "Slow", "fields": [{"title": "*Seen*", "value": "3 times"}] * 2}]},
    {"blocks": [{"type": "header", "text": {"text": "Deploy:"}}] * 2},
    {"blocks": [{"type": "markdown", "text": "Look\n\n**Ann:** it is down"}]},
    {"blocks": [{"type": "rich_text", "elements": [
        {"type": "rich_text_section", "elements": [
            {"type": "text", "text": "Deploy:", "style": {"bold": True}},
            {"type": "text", "text": " at noon"},
        ]},
    ] * 2}]},
]  # fmt: skip


@settings(max_examples=200)
@given(st.lists(st.sampled_from(SAID) | mrkdwn.map(lambda text: {"text": text}), min_size=1))
def test_a_conversation_has_the_messages_that_were_written(said_by_turns):
    texts = [said(**message) for message in said_by_turns]
    spoken = [(f"Name {n}", text) for n, text in enumerate(texts) if text]
    body = conversation(spoken)
    assert [m.speaker for m in messages(body)] == ([name for name, _ in spoken] or [""])


def test_what_is_bold_stays_bold():
    assert said("Plan:\n\n*Deploy:* at noon") == "Plan:\n\n**Deploy**: at noon"
    assert said("*Deploy:* at noon\n*Test:* now") == "**Deploy:** at noon\n**Test:** now"


@pytest.mark.skipif(not (REAL_DATA / "slack").exists(), reason="no recorded Slack answers")
def test_recorded_shapes_are_read():
    answer = json.loads((REAL_DATA / "slack" / "api" / "conversations.replies.json").read_text())
    assert answer["messages"]
    for message in answer["messages"]:
        assert isinstance(slack_markdown(json.dumps(message), NAMES), str)
    for path in sorted((REAL_DATA / "slack" / "events").glob("*.json")):
        event = json.loads(path.read_text())["event"]
        assert isinstance(slack_markdown(json.dumps(event), NAMES), str)
