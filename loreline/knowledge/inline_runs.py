"""Text within a line, as the runs that rich text is made of, and the Markdown of them.

How a source cuts a text into runs is no content: neighbours that look alike are one run here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from loreline.knowledge.markdown_syntax import code_span, edges, link
from loreline.knowledge.source_text import clean_text

# Outermost first; underline and colours have no Markdown and are left out.
MARKS = {"strikethrough": "~~", "bold": "**", "italic": "*"}

_SIGNATURES = {"x-amz-signature", "x-goog-signature", "signature", "sig"}


class Run(NamedTuple):
    """A part of a rich text that looks the same throughout.

    Attributes:
        text: what is seen.
        url: canonical target, empty without one.
        marks: those of Markdown that are open around it.
        is_code: shown as code.
        is_whole: an object of its own (a mention, an equation): never joined to its neighbours.
    """

    text: str
    url: str = ""
    marks: tuple[str, ...] = ()
    is_code: bool = False
    is_whole: bool = False


def joined(runs: Iterable[Run]) -> list[Run]:
    """Runs with alike neighbours as one and clean text, without those that show nothing."""
    found: list[Run] = []
    for run in runs:
        if not run.text:
            continue
        last = found[-1] if found else None
        if last and not last.is_whole and last[1:] == run[1:]:
            found[-1] = Run(last.text + run.text, *run[1:])
        else:
            found.append(run)
    # Only now: a cut between two runs may go through a line end or a surrogate pair.
    return [Run(clean_text(run.text), *run[1:]) for run in found]


def markdown_of(runs: Sequence[Run]) -> str:
    """Markdown of joined runs; line breaks stay."""
    parts = []
    for url, linked in groupby(runs, key=lambda run: run.url):
        label = _marked(list(linked))
        parts.append(link(label, url) if url and label.strip() else label)
    return "".join(parts)


def unsigned_url(url: str) -> str:
    """The URL without its query where that holds a signature, which expires."""
    base, _, query = url.partition("?")
    names = {parameter.partition("=")[0].lower() for parameter in query.split("&")}
    return base if names & _SIGNATURES else url


def _marked(linked: list[Run]) -> str:
    """Runs with their marks opened and closed as a stack, white space outside of them."""
    out: list[str] = []
    open_marks: list[str] = []
    gap = ""
    for run in linked:
        lead, text, trail = edges(run.text)
        if not text:
            gap += run.text
            continue
        while not set(open_marks) <= set(run.marks):
            out.append(open_marks.pop())
        out.append(gap + lead)
        opened = [mark for mark in run.marks if mark not in open_marks]
        out += [*opened, code_span(text) if run.is_code else text]
        open_marks += opened
        gap = trail
    return "".join([*out, *reversed(open_marks), gap])
