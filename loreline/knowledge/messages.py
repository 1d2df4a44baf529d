"""The messages of a chat, where they can be told apart by the way they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

# `**Name:** …` after an empty line, as Slack's conversations are written here.
_SPOKEN = r"\*\*(?P<name>[^\n]{1,200}?):\*\*(?=\s|\Z)"
# `[12:34] <name> …`, `12:34:56 <name> …` or `<name> …`, as IRC's clients log them; `=== …` is the
# server's.
_LOGGED = (
    r"(?:\[?\d{1,2}:\d{2}(?::\d{2})?\]?[ \t]+)?<[@+~&%]?(?P<name>[^<>\s]{1,64})>(?=\s|\Z)"
    r"|===[ \t]"
)
# A chat is written in one way, so a log that somebody quotes in Slack does not end a message. The
# line end in front lets the search jump from line to line.
_WAYS = (
    (re.compile(_SPOKEN), re.compile(rf"\n(?:(?<=\n\n)|(?<=\n\r\n)){_SPOKEN}")),
    (re.compile(_LOGGED), re.compile(rf"\n(?:{_LOGGED})")),
)


class Message(NamedTuple):
    """From where up to where it reaches, in code points from 0, and who says it; empty: nobody."""

    start: int
    end: int
    speaker: str


def messages(body: str) -> Iterator[Message]:
    """The messages of a body, in order; together they are the whole body.

    A body that does not begin with a message is one message of nobody.
    """
    found = ((first.match(body), others) for first, others in _WAYS)
    opening, others = next((way for way in found if way[0]), (None, None))
    if not opening:
        yield Message(0, len(body), "")
        return
    start, speaker = 0, opening["name"] or ""
    for match in others.finditer(body, opening.end()):
        yield Message(start, match.start() + 1, speaker)
        start, speaker = match.start() + 1, match["name"] or ""
    yield Message(start, len(body), speaker)
