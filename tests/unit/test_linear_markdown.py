"""Linear's Markdown inside of a document: code stays code, and nothing leaks into what follows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loreline.knowledge.chunking import sections
from loreline.knowledge.linear_markdown import linear_markdown

CODE = "```sql\nselect 1\n# no heading\n\n\n--- \n```"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (CODE, "```sql\nselect 1\n# no heading\n\n\n---\n```"),
        ("~~~~\n~~~\n# no\n~~~~", "~~~~\n~~~\n# no\n~~~~"),
        ("# Steps\n1. try\n## More ##\n#123", "**Steps**\n1. try\n**More**\n#123"),
        ("## **Bold** already", "**Bold** already"),
        ("#", ""),
        ("Title\n===\n\n---\n\ntext\n---", "Title\n\\===\n\n---\n\ntext\n\\---"),
        ("```\nopen", "```\nopen\n```"),
        ("- item\n  ````\n  ```\n  x", "- item\n  ````\n  ```\n  x\n  ````"),
        ("> ```\n> x\n\n# H", "> ```\n> x\n\n**H**"),
        ("- ```\n  # no\n  ```\n# H", "- ```\n  # no\n  ```\n**H**"),
        ("- ```\n  # no\n# H", "- ```\n  # no\n**H**"),
        ("# # # H #", "**H**"),
        ("```inline``` is no fence\n# H", "```inline``` is no fence\n**H**"),
        ("@ana see ENG-12\r\nand\u0000 cafe\u0301  ", "@ana see ENG-12\nand caf\u00e9"),
        (
            "![a](https://uploads.linear.app/a/b.png?signature=e.y&x=1) b",
            "![a](https://uploads.linear.app/a/b.png) b",
        ),
    ],
)
def test_a_comment_keeps_its_code_and_loses_its_headings(text, expected):
    assert linear_markdown(text, False) == expected


def test_a_description_keeps_its_headings():
    text = "# Steps\n\n1. try\n\nMore\n---"
    assert linear_markdown(text, True) == text


MARKS = st.sampled_from(["```", "~~~", "````", " ```", "===", "---", "#", "## a", "a"])
LINES = st.lists(st.text("#`~->= ab\t1.", max_size=8) | MARKS)


@given(LINES.map("\n".join), st.booleans())
def test_what_is_canonical_stays_as_it_is(text, keeps_headings):
    once = linear_markdown(text, keeps_headings)
    assert linear_markdown(once, keeps_headings) == once


@given(st.lists(MARKS).map("\n".join))
def test_a_comment_opens_no_section_and_swallows_none(text):
    body = linear_markdown(text, False) + "\n\n# Next\n\ntext"
    assert {section.heading_path for section in sections(body)} <= {(), ("Next",)}
    assert list(sections(body))[-1].heading_path == ("Next",)
