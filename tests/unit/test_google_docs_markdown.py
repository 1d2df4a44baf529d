"""Canonical Markdown of Google documents: what each element becomes, and that nothing is lost."""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loreline.knowledge.google_docs_markdown import document_markdown, google_docs_markdown
from loreline.settings import PROJECT_ROOT

REAL_DATA = Path(os.environ.get("LORELINE_REAL_DATA") or PROJECT_ROOT / "../shared/data")
REAL_DOCUMENT = REAL_DATA / "google_docs/document_Single-Tab.json"
DISCOVERY = REAL_DATA / "google_docs/discovery/docs.v1.json"
BULLETS, NUMBERS = "kix.bullets", "kix.numbers"
LISTS = {
    BULLETS: {"listProperties": {"nestingLevels": [{"glyphSymbol": "●"}] * 9}},
    NUMBERS: {
        "listProperties": {
            "nestingLevels": [
                {"glyphType": "DECIMAL", "startNumber": 1},
                {"glyphType": "ALPHA", "startNumber": 0},
                {"glyphType": "ROMAN", "startNumber": 4},
            ]
        }
    },
}


def text(content: str, url: str = "", font: str = "", **fields: Any) -> dict[str, Any]:
    """A text run; fields that are no style are the run's own."""
    own = {key: fields.pop(key) for key in list(fields) if key.startswith("suggested")}
    style = dict(fields)
    if url:
        style["link"] = {"url": url}
    if font:
        style["weightedFontFamily"] = {"fontFamily": font, "weight": 400}
    return {"textRun": {"content": content, "textStyle": style} | own}


def paragraph(*parts: Any, style: str = "NORMAL_TEXT", **fields: Any) -> dict[str, Any]:
    elements = [text(part) if isinstance(part, str) else part for part in parts]
    ends = not elements or not str(elements[-1].get("textRun", {}).get("content")).endswith("\n")
    elements += [text("\n")] if ends else []
    return {
        "paragraph": {"elements": elements, "paragraphStyle": {"namedStyleType": style}} | fields
    }


def item(*parts: Any, level: int = 0, list_id: str = BULLETS) -> dict[str, Any]:
    bullet = {"listId": list_id} | ({"nestingLevel": level} if level else {})
    return paragraph(*parts, bullet=bullet)


def code(content: str) -> dict[str, Any]:
    return paragraph(text(content, font="Roboto Mono"), text("\n", font="Roboto Mono"))


def table(*rows: list[Any], header: bool = False, **fields: Any) -> dict[str, Any]:
    made = [
        {
            "tableCells": [
                {"content": cell if isinstance(cell, list) else [paragraph(cell)]} for cell in row
            ],
            "tableRowStyle": {"tableHeader": True} if header and n == 0 else {},
        }
        for n, row in enumerate(rows)
    ]
    return {"table": {"rows": len(rows), "tableRows": made} | fields}


def tab(title: str, *content: Any, below: list[Any] | None = None, **parts: Any) -> dict[str, Any]:
    own = {"body": {"content": list(content)}, "lists": LISTS} | parts
    made = {"tabProperties": {"tabId": "t.0", "title": title}, "documentTab": own}
    return made | ({"childTabs": below} if below else {})


def markdown(*content: Any, **parts: Any) -> str:
    """Markdown of a document of one tab."""
    return google_docs_markdown(json.dumps({"tabs": [tab("Tab 1", *content, **parts)]}))


def test_a_document_reads_as_one_would_write_it() -> None:
    assert markdown(
        paragraph("Handbook", style="TITLE"),
        paragraph("For everybody", style="SUBTITLE"),
        paragraph("Ask ", text("Ada", bold=True), " or ", text("the list", url="https://x.org/l")),
        paragraph("Steps", style="HEADING_2"),
        item("Look at the graph", list_id=NUMBERS),
        item("calls per checkout", level=1),
        item("Restart ", text("till", font="Courier New"), list_id=NUMBERS),
        code("kubectl rollout \\"),
        code("    restart deploy/till"),
        table(
            ["Switch", "Effect"],
            ["till.read_only", [paragraph("a|b"), paragraph("c")]],
            header=True,
        ),
    ) == "\n".join(
        [
            "# Handbook",
            "",
            "For everybody",
            "",
            "Ask **Ada** or [the list](https://x.org/l)",
            "",
            "## Steps",
            "",
            "1. Look at the graph",
            "   - calls per checkout",
            "2. Restart `till`",
            "",
            "```",
            "kubectl rollout \\",
            "    restart deploy/till",
            "```",
            "",
            "| Switch | Effect |",
            "| --- | --- |",
            "| till.read_only | a\\|b<br>c |",
        ]
    )


def test_tabs_are_sections_and_what_is_in_them_lies_below() -> None:
    document = {
        "tabs": [
            tab(
                "Plan",
                paragraph("Aims", style="HEADING_1"),
                paragraph("Sell plums."),
                below=[
                    tab("Old plan", paragraph("Aims", style="HEADING_1"), paragraph("Sell pears.")),
                    tab("", paragraph("Deep", style="HEADING_6")),
                ],
            ),
            tab("2. Notes", paragraph("None.")),
        ]
    }
    assert document_markdown(document) == (
        "# Plan\n\n## Aims\n\nSell plums.\n\n## Old plan\n\n### Aims\n\nSell pears.\n\n###### Deep"
        "\n\n# 2. Notes\n\nNone."
    )


def test_a_single_tab_is_no_section_and_an_answer_without_tabs_says_the_same() -> None:
    content = [paragraph("Aims", style="HEADING_1"), item("plums", list_id=NUMBERS)]
    without = {"body": {"content": content}, "lists": LISTS, "title": "T"}
    assert document_markdown(without) == markdown(*content) == "# Aims\n\n1. plums"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            [item("a"), item("b", level=1), item("c", level=2), item("d")],
            "- a\n  - b\n    - c\n- d",
        ),
        ([item("a", level=4), item("b")], "- a\n- b"),
        (
            [item("a", list_id=NUMBERS), paragraph("x"), item("b", list_id=NUMBERS)],
            "1. a\n\nx\n\n2. b",
        ),
        ([item("a", list_id=NUMBERS), item("b")], "1. a\n\n- b"),
        (
            [
                item("a", list_id=NUMBERS),
                item("b", level=2, list_id=NUMBERS),
                item("c", level=2, list_id=NUMBERS),
                item("d", list_id=NUMBERS),
                item("e", level=2, list_id=NUMBERS),
            ],
            "1. a\n   4. b\n   5. c\n2. d\n   4. e",
        ),
        ([item("a\x0bb")], "- a\n  b"),
        ([item("a"), paragraph(""), item("b", level=1)], "- a\n  - b"),
        ([item("a", list_id="unknown")], "- a"),
    ],
    ids=["nested", "deep first", "goes on", "kinds", "numbers", "line break", "gap", "unknown"],
)
def test_lists(content: list[Any], expected: str) -> None:
    assert markdown(*content) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([text("a", bold=True), text("b", bold=True, italic=True)], "**a*b***"),
        ([text("gone ", strikethrough=True), "here"], "~~gone~~ here"),
        ([text("x", url="https://e.org/a?X-Amz-Signature=1")], "[x](https://e.org/a)"),
        ([{"textRun": {"content": "here", "textStyle": {"link": {"headingId": "h.1"}}}}], "here"),
        ([{"person": {"personProperties": {"name": "Ada", "email": "a@e.org"}}}], "@Ada"),
        ([{"person": {"personProperties": {"email": "a@e.org"}}}], "@a@e.org"),
        (
            [{"richLink": {"richLinkProperties": {"title": "Plan", "uri": "https://d.org/1"}}}],
            "[Plan](https://d.org/1)",
        ),
        ([{"dateElement": {"dateElementProperties": {"displayText": "1 May"}}}], "1 May"),
        (
            [{"dateElement": {"dateElementProperties": {"timestamp": "2026-05-01T12:00:00Z"}}}],
            "2026-05-01",
        ),
        ([{"dropdown": {"dropdownProperties": {"displayValue": "Done"}}}], "Done"),
        (["area ", {"equation": {}}, " is"], "area [equation] is"),
        (["a", {"pageBreak": {}}, "b"], "a\n\n---\n\nb"),
        ([{"horizontalRule": {}}], "---"),
        (["a", {"columnBreak": {}}, "b"], "a\nb"),
        ([{"autoText": {"type": "PAGE_NUMBER"}}, "of many"], "of many"),
        (["\ue907 chip \ue907"], "chip"),
        (["# no heading"], "\\# no heading"),
        (["1. no item"], "1\\. no item"),
    ],
)
def test_within_a_paragraph(parts: list[Any], expected: str) -> None:
    assert markdown(paragraph(*parts)) == expected


def image(**properties: Any) -> dict[str, Any]:
    return {"inlineObjectProperties": {"embeddedObject": properties}}


def test_images_are_what_is_said_of_them() -> None:
    shown = {
        "i1": image(
            title="Sales", description="by month", imageProperties={"contentUri": "https://t/1"}
        ),
        "i2": image(imageProperties={"sourceUri": "https://e.org/plum.png?sig=1"}),
        "i3": image(imageProperties={"contentUri": "https://t/2"}),
    }
    refer = [{"inlineObjectElement": {"inlineObjectId": name}} for name in (*shown, "i4")]
    tethered = {"p1": {"positionedObjectProperties": {"embeddedObject": {"title": "Map"}}}}
    assert (
        markdown(
            *(paragraph(one) for one in refer),
            paragraph("Here:", positionedObjectIds=["p1", "p2"]),
            inlineObjects=shown,
            positionedObjects=tethered,
        )
        == "![Sales: by month]()\n\n![plum.png](https://e.org/plum.png)\n\nHere:\n![Map]()"
    )


def test_footnotes_follow_their_tab_and_count_through_the_document() -> None:
    def note(identity: str) -> dict[str, Any]:
        return {"footnoteReference": {"footnoteId": identity, "footnoteNumber": "1"}}

    first = {"f1": {"content": [paragraph("See x."), paragraph("And y.")]}, "f0": {"content": []}}
    second = {"f1": {"content": [paragraph("Elsewhere.")]}}
    document = {
        "tabs": [
            tab("A", paragraph("a", note("f1"), note("f1"), note("nowhere")), footnotes=first),
            tab("B", paragraph("b", note("f1")), footnotes=second),
        ]
    }
    assert document_markdown(document) == (
        "# A\n\na[^1][^1]\n\n[^1]: See x.\n\n    And y.\n\n# B\n\nb[^2]\n\n[^2]: Elsewhere."
    )


def test_tables_hold_paragraphs_lists_and_tables() -> None:
    inner = table(["x", "y"], ["z", ""])
    assert (
        markdown(
            table([[paragraph("a"), item("b"), item("c", list_id=NUMBERS)], [inner]], ["d"]),
            table(["", ""]),
        )
        == "|  |  |\n| --- | --- |\n| a<br>- b<br>1. c | x / y<br>z |\n| d |  |"
    )


def test_a_table_of_contents_is_a_list_of_its_entries() -> None:
    entry = {"textRun": {"content": "Aims\n", "textStyle": {"link": {"headingId": "h.1"}}}}
    contents = {"tableOfContents": {"content": [paragraph(entry), paragraph("Means")]}}
    assert markdown(contents, paragraph("Aims", style="HEADING_1")) == "- Aims\n- Means\n\n# Aims"


def test_suggestions_are_not_accepted() -> None:
    added = {"suggestedInsertionIds": ["s.1"]}
    removed = {"suggestedDeletionIds": ["s.2"]}
    restyled = {"suggestedTextStyleChanges": {"s.3": {"textStyle": {"bold": True}}}}
    assert (
        markdown(
            paragraph(
                "kept ", text("new ", **added), text("old", **removed), text(" same", **restyled)
            ),
            paragraph(text("A new heading\n", **added), style="HEADING_1"),
            paragraph({"person": {"personProperties": {"name": "Ada"}} | added}, "!"),
            # A suggestion that would cut a paragraph in two.
            paragraph("one ", text("cut\n", **added)),
            paragraph(text("here ", **added), "paragraph"),
            table(["a"], **added),
            {"tableOfContents": {"content": [paragraph("x")]} | added},
            paragraph("half ", text("\n", **added)),
            table(["b"]),
        )
        == "kept old same\n\n!\n\none paragraph\n\nhalf\n\n|  |\n| --- |\n| b |"
    )


@pytest.mark.parametrize("answer", ["", "[]", "null", "{", '"x"', '{"tabs": 1, "body": []}'])
def test_what_is_no_document_gives_no_text(answer: str) -> None:
    assert google_docs_markdown(answer) == ""


def test_no_depth_is_too_deep() -> None:
    tables = paragraph("x")
    for _ in range(30):
        tables = table([[tables]])
    assert "x" in markdown(tables)
    hostile = '{"table": {"tableRows": [{"tableCells": [{"content": [' * 5_000
    assert (
        google_docs_markdown('{"body": {"content": [' + hostile + "]}]}]}}" * 5_000 + "]}}") == ""
    )
    tabs = '{"tabs": [' + '{"childTabs": [' * 5_000 + "]}" * 5_000 + "]}"
    assert google_docs_markdown(tabs) == ""


# ---- properties


@st.composite
def documents(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    """A document, and its words in the order in which they are read."""
    words: list[str] = []
    styles = st.fixed_dictionaries(
        {},
        optional={
            "bold": st.booleans(),
            "italic": st.booleans(),
            "strikethrough": st.booleans(),
            "url": st.just("https://e.org"),
            "font": st.sampled_from(["Roboto Mono", "Arial"]),
        },
    )

    def word(*, counts: bool = True) -> str:
        made = f"w{draw(st.integers(0, 99))}x{len(words)}" if counts else "unseen"
        words.extend([made] if counts else [])
        return made

    def part(footnotes: dict[str, Any]) -> dict[str, Any]:
        kind = draw(
            st.sampled_from(["text"] * 5 + ["person", "date", "dropdown", "link", "new", "note"])
        )
        if kind == "new":
            return text(word(counts=False), suggestedInsertionIds=["s"])
        if kind == "person":
            return {"person": {"personProperties": {"name": word()}}}
        if kind == "date":
            return {"dateElement": {"dateElementProperties": {"displayText": word()}}}
        if kind == "dropdown":
            return {"dropdown": {"dropdownProperties": {"displayValue": word()}}}
        if kind == "link":
            return {"richLink": {"richLinkProperties": {"title": word(), "uri": "https://e.org"}}}
        if kind == "note":
            identity = f"f{len(footnotes)}"
            footnotes[identity] = None
            return {"footnoteReference": {"footnoteId": identity}}
        mark = draw(
            st.sampled_from(["", " ", "# ", "- ", "1. ", "> ", "```", "|", "\x0b", "=", "]"])
        )
        return text(f" {mark}{word()} ", **draw(styles))

    def one(footnotes: dict[str, Any], depth: int = 0) -> dict[str, Any]:
        kind = draw(st.sampled_from(["paragraph"] * 3 + ["item", "heading", "table", "contents"]))
        if kind == "table" and depth < 2:
            size = draw(st.integers(1, 2))
            return table(
                *[
                    [[one(footnotes, depth + 1)] for _ in range(size)]
                    for _ in range(draw(st.integers(1, 2)))
                ]
            )
        if kind == "contents" and not depth:
            return {"tableOfContents": {"content": [paragraph(part(footnotes))]}}
        parts = [part(footnotes) for _ in range(draw(st.integers(0, 3)))]
        if kind == "item":
            list_id = draw(st.sampled_from([BULLETS, NUMBERS, "?"]))
            return item(*parts, level=draw(st.integers(0, 9)), list_id=list_id)
        style = f"HEADING_{draw(st.integers(1, 6))}" if kind == "heading" else "NORMAL_TEXT"
        return paragraph(*parts, style=style)

    def made_tab(depth: int = 0) -> dict[str, Any]:
        title, footnotes = word(), {}
        content = [one(footnotes) for _ in range(draw(st.integers(0, 4)))]
        for identity in footnotes:
            footnotes[identity] = {"content": [paragraph(word())]}
        below = [made_tab(depth + 1) for _ in range(draw(st.integers(0, 2)) if depth < 2 else 0)]
        return tab(title, *content, below=below, footnotes=footnotes)

    tabs = [made_tab() for _ in range(draw(st.integers(2, 3)))]
    return {"tabs": tabs}, words


@settings(max_examples=150, deadline=None)
@given(documents())
def test_every_word_is_there_in_order_and_again_the_same(
    made: tuple[dict[str, Any], list[str]],
) -> None:
    document, words = made
    found = document_markdown(document)
    assert re.findall(r"w\d+x\d+", found) == words
    assert "unseen" not in found
    assert google_docs_markdown(json.dumps(document, indent=1, sort_keys=True)) == found


JUNK = st.sampled_from(
    [None, True, -1, 2**40, 1.5, "", "x", [], [[]], [None, 3], {}, {"content": 7}]
)


@settings(max_examples=200, deadline=None)
@given(documents(), st.data())
def test_nothing_raises_whatever_is_wrong(
    made: tuple[dict[str, Any], list[str]], data: Any
) -> None:
    document = copy.deepcopy(made[0])
    for _ in range(data.draw(st.integers(1, 6))):
        places = list(_places(document))
        holder, key = places[data.draw(st.integers(0, len(places) - 1))]
        holder[key] = data.draw(JUNK)
    assert isinstance(document_markdown(document), str)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from _places(value[key])


# ---- real input


def _paragraphs(content: list[Any]) -> Iterator[dict[str, Any]]:
    """All paragraphs, those of cells and of tables of contents included, in order."""
    for element in content:
        if "paragraph" in element:
            yield element["paragraph"]
        for row in element.get("table", {}).get("tableRows", []):
            for cell in row["tableCells"]:
                yield from _paragraphs(cell["content"])
        yield from _paragraphs(element.get("tableOfContents", {}).get("content", []))


def _visible(shown: dict[str, Any]) -> str:
    """A paragraph's text as it is read, without suggestions and what the API does not tell."""
    texts = []
    for element in shown["elements"]:
        run, date = element.get("textRun", {}), element.get("dateElement", {})
        if not run.get("suggestedInsertionIds"):
            texts.append(run.get("content", "").replace("\ue907", ""))
        texts.append(element.get("person", {}).get("personProperties", {}).get("name", ""))
        texts.append(date.get("dateElementProperties", {}).get("displayText", ""))
    return "".join(texts)


def test_a_real_document_keeps_each_of_its_paragraphs_in_order() -> None:
    if not REAL_DOCUMENT.is_file():
        pytest.skip("no real answer of documents.get")
    raw = REAL_DOCUMENT.read_text()
    document = json.loads(raw)
    paragraphs = list(_paragraphs(document["tabs"][0]["documentTab"]["body"]["content"]))
    assert len(paragraphs) == 81
    found = re.sub(r"[\s*`@|<>\\-]+", "", google_docs_markdown(raw))
    position = 0
    for shown in paragraphs:
        wanted = re.sub(r"[\s*`@|<>\\-]+", "", _visible(shown))
        assert wanted in found[position:], f"missing or out of order: {wanted}"
        position = found.index(wanted, position) + len(wanted)
    assert "inline suggestion" not in google_docs_markdown(raw)


class _Typed(dict):
    """An object of the API that notes which of its fields are asked for."""

    def __init__(self, value: dict[str, Any], kind: str, asked: set[tuple[str, str]]) -> None:
        super().__init__(value)
        self.kind = kind
        self.asked = asked

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add((self.kind, key))
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.add((self.kind, key))
        return super().__getitem__(key)


def _instance(schemas: dict[str, Any], kind: str, asked: set[Any], above: tuple[str, ...]) -> Any:
    """An object with every field that the discovery document names, nested as deep as it goes."""
    fields = {
        name: _value(schemas, field, asked, (*above, kind))
        for name, field in schemas[kind]["properties"].items()
        if above.count(kind) < 1
    }
    return _Typed(fields, kind, asked)


def _value(schemas: dict[str, Any], field: dict[str, Any], asked: set[Any], above: Any) -> Any:
    if "$ref" in field:
        return _instance(schemas, field["$ref"], asked, above)
    kind = field["type"]
    if kind == "array":
        return [_value(schemas, field["items"], asked, above)]
    if kind == "object":
        return {"x": _value(schemas, field["additionalProperties"], asked, above)}
    return {"string": "x", "boolean": True}.get(kind, 0)


def test_every_field_that_is_read_exists_in_the_api() -> None:
    if not DISCOVERY.is_file():
        pytest.skip("no discovery document of the Docs API")
    schemas = json.loads(DISCOVERY.read_text())["schemas"]
    asked: set[tuple[str, str]] = set()
    document = _instance(schemas, "Document", asked, ())
    for part in [document, document["tabs"][0]["documentTab"]]:
        for element in part["body"]["content"]:
            for each in element["paragraph"]["elements"]:
                _not_suggested(each)
            for kind in ("table", "tableOfContents"):
                _not_suggested(element[kind])
    document_markdown(document)
    document.pop("tabs")
    document_markdown(document)
    unknown = {(kind, key) for kind, key in asked if key not in schemas[kind]["properties"]}
    assert unknown == set()
    assert {kind for kind, _ in asked} >= {
        *(
            "Tab",
            "DocumentTab",
            "Paragraph",
            "TextRun",
            "Person",
            "RichLink",
            "DateElement",
            "Table",
        ),
        *("Dropdown", "FootnoteReference", "Footnote", "NestingLevel", "EmbeddedObject", "Link"),
    }


def _not_suggested(value: Any) -> None:
    if isinstance(value, dict):
        value.pop("suggestedInsertionIds", None)
        for below in value.values():
            _not_suggested(below)
    elif isinstance(value, list):
        for below in value:
            _not_suggested(below)
