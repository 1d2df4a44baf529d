"""What is embedded in front of a chunk: the title, the headings above it, who speaks."""

from __future__ import annotations

from typing import NamedTuple

from loreline.knowledge.sections import MOST_TITLE_CHARACTERS, HeadingPaths
from loreline.knowledge.tokens import Tokenizer

NONE, TITLE, TITLE_AND_PATH = CONTEXTS = ("none", "title", "title_and_path")

# A heading, and a speaker, each takes at most this part of a chunk's tokens.
MOST_PART = 4


class Context(NamedTuple):
    """A text, empty or with white space at its end, and how many tokens it has."""

    text: str
    token_count: int


NO_CONTEXT = Context("", 0)


class Contexts:
    """The contexts of one document's chunks.

    Attributes:
        are_empty: but for a speaker.

    Args:
        kind: one of `CONTEXTS`.
        title: the document's.
        body: the document's.
        tokenizer: counts their tokens.
        max_tokens: of a chunk, context included.
    """

    def __init__(
        self, kind: str, title: str, body: str, tokenizer: Tokenizer, max_tokens: int
    ) -> None:
        self.are_empty = kind == NONE
        self._kind = kind
        self._title = _line(title)
        self._heading_paths = HeadingPaths(body)
        self._tokenizer = tokenizer
        self._most_tokens = max_tokens // MOST_PART
        self._last: tuple[tuple[tuple[str, ...], str], Context] | None = None

    def path_at(self, place: int) -> tuple[str, ...]:
        """The headings above a place, where they are part of the context."""
        return self._heading_paths.at(place) if self._kind == TITLE_AND_PATH else ()

    def of(self, heading_path: tuple[str, ...], speaker: str) -> Context:
        """The context of a chunk below some headings.

        Args:
            heading_path: outermost first; a first one that repeats the title is left out.
            speaker: who says what the chunk begins in the midst of; else empty.
        """
        # Neighbouring chunks have the same. `lru_cache` on the method would make each document's
        # contexts a cycle, which only the garbage collector takes apart: half of the rate in two
        # processes.
        if self._last is None or self._last[0] != (heading_path, speaker):
            self._last = (heading_path, speaker), self._made(heading_path, speaker)
        return self._last[1]

    def _made(self, heading_path: tuple[str, ...], speaker: str) -> Context:
        names = [self._title] if self._kind != NONE else []
        if self._kind == TITLE_AND_PATH:
            path = [_line(name) for name in heading_path]
            names += path[1:] if path[:1] == names else path
        heading = self._shortened(" > ".join(filter(None, names)))
        spoken = self._shortened(_line(speaker))
        text = (f"{heading}\n\n" if heading else "") + (f"{spoken}: " if spoken else "")
        return Context(text, self._tokenizer.length(text)) if text else NO_CONTEXT

    def _shortened(self, text: str) -> str:
        """As much of a text as a chunk has room for."""
        if not text:
            return text
        # One token is kept for what separates it from the text.
        most = self._most_tokens - 1
        if self._tokenizer.length(text) <= most:
            return text
        return text[: self._tokenizer.offsets(text).start(most)].rstrip()


def _line(text: str) -> str:
    return " ".join(text[:MOST_TITLE_CHARACTERS].split())
