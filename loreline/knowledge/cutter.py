"""Places where a body may be cut, and pieces between them that keep to a number of tokens."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from loreline.knowledge.contexts import NO_CONTEXT, Context, Contexts
from loreline.knowledge.sentences import BLANK, LINE_END, SENTENCE_MARK
from loreline.knowledge.tokens import Tokenizer

# A word of 100,000 letters is one unknown token and a blank run is none: bound characters too.
CHARACTERS_PER_TOKEN = 16

# A chunk ends at the strongest kind of boundary, unless that leaves it emptier than this.
LEAST_FILL = 0.25

# Strongest first. A chunk ends before the white space of the others and after that of a sentence.
PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
LINE = re.compile(LINE_END)
SENTENCE = re.compile(rf"{SENTENCE_MARK}()")
WORD = re.compile(r"\s")

# The last one is usually near: characters looked at first, then four times as many.
NEAR = 128

_WHITE_SPACE = re.compile(r"\s*")


class Span(NamedTuple):
    """A part of a body from `start` up to `end` (code points from 0).

    Attributes:
        heading_path: the headings that it is under; None: those above where a piece starts.
        speaker: who says it, for pieces that begin in the midst of it.
    """

    start: int
    end: int
    heading_path: tuple[str, ...] | None = None
    speaker: str = ""


class Piece(NamedTuple):
    """A part of a body that becomes a chunk; `token_count` is with context and special tokens."""

    start: int
    end: int
    heading_path: tuple[str, ...]
    context: Context
    token_count: int


class Boundaries(NamedTuple):
    """Where pieces end, and where the next one starts when it repeats; the strongest first.

    Attributes:
        repeats_words: without such a place, it starts at a word as the tokenizer sees words.
    """

    ends: Sequence[re.Pattern[str]]
    repeats: Sequence[re.Pattern[str]]
    repeats_words: bool = False


STRONGEST = Boundaries((PARAGRAPH, LINE, SENTENCE, WORD), (SENTENCE, WORD))
WORDS = Boundaries((WORD,), (WORD,), repeats_words=True)


class Cutter:
    """Cuts one body; all positions are code points of the body, from 0.

    Args:
        body: text, usually Markdown.
        contexts: what is embedded in front of its pieces.
        tokenizer: whose tokens are counted.
        max_tokens: most tokens of a piece with its context, special tokens included.
        overlap_tokens: at most so many of a piece are repeated by the next one.
    """

    def __init__(
        self,
        body: str,
        contexts: Contexts,
        tokenizer: Tokenizer,
        max_tokens: int,
        overlap_tokens: int,
    ) -> None:
        self.body = body
        self.contexts = contexts
        self.tokenizer = tokenizer
        self.tokens = tokenizer.offsets(body)
        self.max_tokens = max_tokens
        self.budget = max_tokens - tokenizer.special_tokens
        self.overlap = overlap_tokens
        self.most_characters = max_tokens * CHARACTERS_PER_TOKEN

    def tokens_between(self, start: int, end: int) -> int:
        """Tokens of the body that start in a part of it."""
        return self.tokens.before(end) - self.tokens.before(start)

    def fits(self, start: int, end: int) -> bool:
        """Whether a part of the body is within the limits, as far as its tokens tell."""
        return end - start <= self.most_characters and (
            self.tokens_between(start, end) <= self.budget
        )

    def pieces(self, span: Span, boundaries: Boundaries = STRONGEST) -> Iterator[Piece]:
        """Fill one piece after another up to the limits; blank ones are dropped."""
        start = previous_end = span.start
        while (unseen := _WHITE_SPACE.match(self.body, previous_end, span.end).end()) < span.end:
            end, piece = self._largest_piece(start, unseen, span, boundaries)
            if end <= unseen:
                # Nothing new fits behind what would be repeated, or behind a long blank.
                start = previous_end = unseen
                continue
            if piece:
                yield piece
            start, previous_end = self._next_start(start, end, boundaries), end

    def packed(self, units: list[Span], most_units: int) -> Iterator[Piece]:
        """Fill pieces with whole units, and repeat whole ones; only one that is too large is cut.

        Args:
            units: neighbours, in order.
            most_units: of a piece.
        """
        totals = [self.tokens.before(unit.start) for unit in units]
        totals += [self.tokens.before(unit.end) for unit in units[-1:]]
        ends = [unit.end for unit in units]
        first = seen = 0
        while seen < len(units):
            unit = units[first]
            path, context = self._context(unit.start, unit)
            most = min(first + most_units, len(units))
            tokens = totals[first] + self.budget - context.token_count
            last = bisect_right(totals, tokens, first, most + 1) - 1
            farthest = unit.start + self.most_characters
            last = bisect_right(ends, farthest, first, last)
            piece = None
            while last > seen:
                piece = self._trimmed(unit.start, units[last - 1].end, path, context)
                if not piece or piece.token_count <= self.max_tokens:
                    break
                last -= 1
            if last > seen:
                if piece:
                    yield piece
                first, seen = self._first_repeated(totals, first, last, most_units), last
            elif first < seen:
                first = seen  # Nothing new fits behind what would be repeated.
            else:
                yield from self.pieces(unit)
                first = seen = first + 1

    def _first_repeated(self, totals: list[int], first: int, last: int, most_units: int) -> int:
        """The unit that the next piece starts with, after one of the units from first to last."""
        repeated = last
        while (
            repeated - 1 > first
            and last - repeated + 1 < most_units
            and totals[last] - totals[repeated - 1] <= self.overlap
        ):
            repeated -= 1
        return repeated

    def _context(self, start: int, span: Span) -> tuple[tuple[str, ...], Context]:
        """The heading path and the context of a piece that starts somewhere in a span."""
        path, speaker = span.heading_path, span.speaker if start > span.start else ""
        if self.contexts.are_empty and not speaker:
            return path or (), NO_CONTEXT
        if path is None:
            visible = _WHITE_SPACE.match(self.body, start, span.end).end()
            path = self.contexts.path_at(visible)
        return path, self.contexts.of(path, speaker)

    def _largest_piece(
        self, start: int, unseen: int, span: Span, boundaries: Boundaries
    ) -> tuple[int, Piece | None]:
        """Where the piece from `start` ends, and the piece without the blanks around it.

        Tokens of the body tell how far it reaches; where a cut changes them (inside a word, or for
        a tokenizer whose words depend on their neighbours) it is counted, and shortened until it
        fits. The end is not beyond `unseen` if only what was seen before fits.
        """
        path, context = self._context(start, span)
        limit = self._limit(start, span.end, self.budget - context.token_count)
        while limit > unseen:
            end = limit
            if limit < span.end:
                least = start + int((limit - start) * LEAST_FILL)
                end = self._boundary(max(least, unseen + 1), limit, boundaries)
            piece = self._trimmed(start, end, path, context)
            if not piece or piece.token_count <= self.max_tokens or end - start == 1:
                return end, piece
            room = self.max_tokens - context.token_count
            shorter = start + (end - start) * room // (piece.token_count - context.token_count)
            limit = max(start + 1, min(end - 1, shorter))
        return limit, None

    def _limit(self, start: int, end: int, budget: int) -> int:
        beyond = self.tokens.before(start) + budget
        limit = self.tokens.start(beyond) if beyond < self.tokens.count else end
        return max(start + 1, min(limit, start + self.most_characters, end))

    def _boundary(self, least: int, limit: int, boundaries: Boundaries) -> int:
        """The last place of the strongest kind between two positions, both inclusive."""
        for pattern in boundaries.ends:
            place = _last_place(pattern, self.body, least, limit + 1)
            if least <= place <= limit:
                return place
        return self._boundary_without_space(least, limit)

    def _boundary_without_space(self, least: int, limit: int) -> int:
        """The last start of a word as the tokenizer sees it, else of a character with its marks."""
        place = self.tokens.last_word_start(least, limit)
        if place is not None:
            return place
        place = limit
        while place > least and _joins(self.body[place - 1], self.body[place]):
            place -= 1
        return place

    def _next_start(self, start: int, end: int, boundaries: Boundaries) -> int:
        """Where the next piece starts: `end`, or before it to overlap."""
        if not self.overlap or not (tokens_seen := self.tokens.before(end)):
            return end
        repeated_from = max(
            self.tokens.start(max(tokens_seen - self.overlap, 0)),
            _WHITE_SPACE.match(self.body, start).end() + 1,
            end - self.most_characters // 2,
        )
        for pattern in boundaries.repeats:
            if match := pattern.search(self.body, repeated_from, end):
                return match.end()
        if boundaries.repeats_words:
            for token in range(self.tokens.before(repeated_from), tokens_seen):
                place = self.tokens.start(token)
                if self.tokens.is_between_words(place):
                    return place
        return end

    def _trimmed(
        self, start: int, end: int, heading_path: tuple[str, ...], context: Context
    ) -> Piece | None:
        """Without blank lines before it and white space after it; None when nothing is left.

        The indentation of a first line stays: it is part of a nested list or of code.
        """
        visible = _WHITE_SPACE.match(self.body, start, end).end()
        line_start = self.body.rfind("\n", max(start - 1, 0), visible) + 1
        end = start + len(self.body[start:end].rstrip())
        if line_start or start:
            start = line_start or visible
        if end <= start or BLANK.fullmatch(self.body, start, end):
            return None
        return Piece(start, end, heading_path, context, self._token_count(start, end, context))

    def _token_count(self, start: int, end: int, context: Context) -> int:
        """Tokens that the model sees for a part of the body, context and special ones included."""
        tokens = self.tokens
        if tokens.additive and tokens.is_between_words(start) and tokens.is_between_words(end):
            special = self.tokenizer.special_tokens
            return context.token_count + self.tokens_between(start, end) + special
        return self.tokenizer.count(context.text + self.body[start:end])


def _last_place(pattern: re.Pattern[str], body: str, start: int, end: int) -> int:
    """Where the last match between two places is, or its last group; 0 when there is none."""
    width = NEAR
    while True:
        # Matches of an empty line may overlap: where they begin depends on the first of them.
        looked_from = start if pattern is PARAGRAPH else max(start, end - width)
        place = 0
        for match in pattern.finditer(body, looked_from, end):
            place = match.start(match.lastindex or 0)
        if place or looked_from == start:
            return place
        width *= 4


def _joins(before: str, after: str) -> bool:
    """Whether two characters show as one: a mark on its letter, joined emoji, CR LF."""
    return (
        unicodedata.combining(after) > 0
        or "\u200d" in (before, after)
        or "\ufe00" <= after <= "\ufe0f"
        or before + after == "\r\n"
    )
