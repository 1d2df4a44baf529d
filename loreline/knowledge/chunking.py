"""Cut a document's body into chunks that fit an embedding model, with exact offsets.

A body is tokenized once; boundaries are then chosen among the positions of its tokens, so the work
grows with the length of the body and not with the number of attempts. What was compared before this
was written, and why it is no library's work, is in `docs/decisions/chunking.md`.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from loreline.errors import LorelineError
from loreline.knowledge.tokens import Tokenizer, TokenOffsets

# Raise it whenever the same body and configuration would give other chunks.
ALGORITHM_VERSION = 1

# Below this a chunk says nothing; it also leaves room for the special tokens.
LEAST_MAX_TOKENS = 8

# A word of 100,000 letters is one unknown token and a blank run is none: bound characters too.
CHARACTERS_PER_TOKEN = 16

# A chunk ends at the strongest kind of boundary, unless that leaves it emptier than this.
LEAST_FILL = 0.25

# Neighbouring sections smaller than this part of the limit are merged.
TINY_SECTION = 0.125

# Longer headings are cut in the path: it is repeated with every chunk of a section.
MOST_TITLE_CHARACTERS = 200

# Strongest first. A chunk ends before the white space of the others and after that of a sentence.
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_LINE = re.compile(r"[\n\r\u2028\u2029]")
_SENTENCE = re.compile(r"""(?:[.!?…]["'”’»)\]*_`]*(?=\s+[^\sa-z])|[。！？])()""")
_WORD = re.compile(r"\s")
_BOUNDARIES = (_PARAGRAPH, _LINE, _SENTENCE, _WORD)

_WHITE_SPACE = re.compile(r"\s*")
# White space, control and format characters: nothing that a reader or a model could see.
_BLANK = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]*"
)

# A fence may be indented, as code in a list is. A heading may not: one inside a list item belongs
# to that item and opens no section.
_HEADING_OR_FENCE = re.compile(
    r"^(?P<marks>\#{1,6})(?:[ \t]+(?P<heading>[^\n]*))?\r?$"
    r"|^[ \t]*(?P<fence>`{3,}|~{3,})(?P<info>[^\n]*)$"
    r"|(?<![^\r\n]\n)(?<![^\r\n]\r\n)^(?!\d+[.)]\s)(?P<underlined>[^\s\#>|*+`~-][^\n]*)\n"
    r"(?:(?P<double>=+)|-{3,})[ \t\r]*$",
    re.MULTILINE,
)
_CLOSING_MARKS = re.compile(r"(?:^|[ \t]+)#+$")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)\s]*\)")
_EMPHASIS = re.compile(r"(\*\*|~~|`+|\*)(\S(?:.*?\S)?)\1")
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")


@dataclass(frozen=True)
class ChunkingConfiguration:
    """A row of the seed `chunking_strategies`.

    Attributes:
        chunking_strategy: the variant's name.
        algorithm: `recursive` or `markdown_sections`.
        max_tokens: most tokens of a chunk, special tokens included.
        overlap_tokens: at most so many tokens of a chunk are repeated by the next one.
        tokenizer: the embedding model whose tokens are counted.
        algorithm_version: of the code that cuts; another one makes another variant.
    """

    chunking_strategy: str
    algorithm: str
    max_tokens: int
    overlap_tokens: int = 0
    tokenizer: str = "sentence-transformers/all-MiniLM-L6-v2"
    algorithm_version: int = ALGORITHM_VERSION

    def __post_init__(self) -> None:
        where = f"chunking strategy {self.chunking_strategy!r}"
        if self.algorithm not in ALGORITHMS:
            known = " or ".join(ALGORITHMS)
            raise LorelineError(f"{where} names the algorithm {self.algorithm!r}", f"use {known}")
        if self.algorithm_version != ALGORITHM_VERSION:
            raise LorelineError(
                f"{where} asks for version {self.algorithm_version} of its algorithm",
                f"this code has version {ALGORITHM_VERSION}",
            )
        if self.max_tokens < LEAST_MAX_TOKENS:
            raise LorelineError(
                f"{where} allows {self.max_tokens} tokens", f"allow {LEAST_MAX_TOKENS} or more"
            )
        if not 0 <= self.overlap_tokens <= self.max_tokens // 2:
            raise LorelineError(
                f"{where} repeats {self.overlap_tokens} of {self.max_tokens} tokens",
                "repeat none to half of them",
            )


@dataclass(frozen=True)
class Chunk:
    """A part of a body; in SQL `substr(body, start_char, end_char - start_char + 1) = text`.

    Attributes:
        chunk_index: position among the body's chunks, from 0.
        text: the part; neither blank lines before it nor white space after it.
        start_char: its first character, from 1, in Unicode code points.
        end_char: its last character, inclusive.
        token_count: tokens that the model sees, special tokens included.
        heading_path: texts of the enclosing headings, outermost first; empty for `recursive`.
    """

    chunk_index: int
    text: str
    start_char: int
    end_char: int
    token_count: int
    heading_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """A part of a body from `start` up to `end` (code points from 0), under some headings."""

    start: int
    end: int
    heading_path: tuple[str, ...] = ()


@dataclass(frozen=True)
class Piece(Span):
    """A part of a body that becomes a chunk."""

    token_count: int = 0


@dataclass(frozen=True)
class Section(Span):
    """A heading and what follows it up to the next one, or what precedes the first heading."""

    is_bare: bool = False


def chunk(body: str, configuration: ChunkingConfiguration, tokenizer: Tokenizer) -> list[Chunk]:
    """Cut a body into chunks, in order.

    Each chunk is a contiguous part of the body, every character that can be seen lies in a chunk,
    and no chunk has more than `max_tokens` tokens. A blank body has no chunk.

    Args:
        body: text, usually Markdown.
        configuration: how to cut.
        tokenizer: that of `configuration.tokenizer`, from `load_tokenizer`.
    """
    cutter = _Cutter(body, configuration, tokenizer)
    return [
        Chunk(
            index,
            text=body[piece.start : piece.end],
            start_char=piece.start + 1,
            end_char=piece.end,
            token_count=piece.token_count,
            heading_path=piece.heading_path,
        )
        for index, piece in enumerate(ALGORITHMS[configuration.algorithm](cutter))
    ]


class _Cutter:
    """Finds where a body may be cut; all positions are code points of the body, from 0."""

    def __init__(
        self, body: str, configuration: ChunkingConfiguration, tokenizer: Tokenizer
    ) -> None:
        self.body = body
        self.tokenizer = tokenizer
        self.tokens: TokenOffsets = tokenizer.offsets(body)
        self.max_tokens = configuration.max_tokens
        self.budget = configuration.max_tokens - tokenizer.special_tokens
        self.overlap = configuration.overlap_tokens
        self.most_characters = configuration.max_tokens * CHARACTERS_PER_TOKEN

    def tokens_between(self, start: int, end: int) -> int:
        """Tokens of the body that start in a part of it."""
        return bisect_left(self.tokens.starts, end) - bisect_left(self.tokens.starts, start)

    def pieces(self, span: Span) -> Iterator[Piece]:
        """Fill one piece after another up to the limits; blank ones are dropped."""
        start = previous_end = span.start
        while (unseen := _WHITE_SPACE.match(self.body, previous_end, span.end).end()) < span.end:
            end, piece = self._largest_piece(start, unseen, span)
            if end <= unseen:
                # Nothing new fits behind what would be repeated, or behind a long blank.
                start = previous_end = unseen
                continue
            if piece:
                yield piece
            start, previous_end = self._next_start(start, end), end

    def _largest_piece(self, start: int, unseen: int, span: Span) -> tuple[int, Piece | None]:
        """Where the piece from `start` ends, and the piece without the blanks around it.

        Tokens of the body tell how far it reaches; where a cut changes them (inside a word, or for
        a tokenizer whose words depend on their neighbours) it is counted, and shortened until it
        fits. The end is not beyond `unseen` if only what was seen before fits.
        """
        limit = self._limit(start, span.end)
        while limit > unseen:
            end = limit
            if limit < span.end:
                least = start + int((limit - start) * LEAST_FILL)
                end = self._boundary(max(least, unseen + 1), limit)
            piece = self._trimmed(start, end, span.heading_path)
            if not piece or piece.token_count <= self.max_tokens or end - start == 1:
                return end, piece
            shorter = start + (end - start) * self.max_tokens // piece.token_count
            limit = max(start + 1, min(end - 1, shorter))
        return limit, None

    def _limit(self, start: int, end: int) -> int:
        starts = self.tokens.starts
        beyond = bisect_left(starts, start) + self.budget
        limit = starts[beyond] if beyond < len(starts) else end
        return max(start + 1, min(limit, start + self.most_characters, end))

    def _boundary(self, least: int, limit: int) -> int:
        """The last place of the strongest kind between two positions, both inclusive."""
        for pattern in _BOUNDARIES:
            place = 0
            for match in pattern.finditer(self.body, least, limit + 1):
                place = match.start(match.lastindex or 0)
            if least <= place <= limit:
                return place
        return self._boundary_without_space(least, limit)

    def _boundary_without_space(self, least: int, limit: int) -> int:
        """The last start of a word as the tokenizer sees it, else of a character with its marks."""
        tokens = self.tokens
        token = bisect_left(tokens.starts, limit + 1) - 1
        while token >= 0 and tokens.starts[token] >= least:
            if tokens.opens_word[token]:
                return tokens.starts[token]
            token -= 1
        place = limit
        while place > least and _joins(self.body[place - 1], self.body[place]):
            place -= 1
        return place

    def _next_start(self, start: int, end: int) -> int:
        """Where the next piece starts: `end`, or before it at a sentence or word to overlap."""
        tokens_seen = bisect_left(self.tokens.starts, end)
        if not self.overlap or not tokens_seen:
            return end
        repeated_from = max(
            self.tokens.starts[max(tokens_seen - self.overlap, 0)],
            _WHITE_SPACE.match(self.body, start).end() + 1,
            end - self.most_characters // 2,
        )
        for pattern in (_SENTENCE, _WORD):
            if match := pattern.search(self.body, repeated_from, end):
                return match.end()
        return end

    def _trimmed(self, start: int, end: int, heading_path: tuple[str, ...]) -> Piece | None:
        """Without blank lines before it and white space after it; None when nothing is left.

        The indentation of a first line stays: it is part of a nested list or of code.
        """
        visible = _WHITE_SPACE.match(self.body, start, end).end()
        line_start = self.body.rfind("\n", max(start - 1, 0), visible) + 1
        end = start + len(self.body[start:end].rstrip())
        if line_start or start:
            start = line_start or visible
        if end <= start or _BLANK.fullmatch(self.body, start, end):
            return None
        return Piece(start, end, heading_path, self._token_count(start, end))

    def _token_count(self, start: int, end: int) -> int:
        """Tokens that the model sees for a part of the body, special tokens included."""
        if self.tokens.additive and self._is_between_words(start) and self._is_between_words(end):
            return self.tokens_between(start, end) + self.tokenizer.special_tokens
        return self.tokenizer.count(self.body[start:end])

    def _is_between_words(self, place: int) -> bool:
        tokens = self.tokens
        token = bisect_left(tokens.starts, place)
        return (token == len(tokens.starts) or bool(tokens.opens_word[token])) and (
            token == 0 or tokens.ends[token - 1] <= place
        )


def _joins(before: str, after: str) -> bool:
    """Whether two characters show as one: a mark on its letter, joined emoji, CR LF."""
    return (
        unicodedata.combining(after) > 0
        or "\u200d" in (before, after)
        or "\ufe00" <= after <= "\ufe0f"
        or before + after == "\r\n"
    )


def recursive(cutter: _Cutter) -> Iterator[Piece]:
    """Cut at paragraphs, else lines, else sentences, else words, else characters."""
    return cutter.pieces(Span(0, len(cutter.body)))


def markdown_sections(cutter: _Cutter) -> Iterator[Piece]:
    """One piece a section; tiny neighbours are merged, and what is too large is cut recursively."""
    for section in _merged(sections(cutter.body), cutter):
        yield from cutter.pieces(section)


ALGORITHMS: dict[str, Callable[[_Cutter], Iterator[Piece]]] = {
    "recursive": recursive,
    "markdown_sections": markdown_sections,
}


def sections(body: str) -> Iterator[Section]:
    """The sections of a Markdown body, in order; together they are the whole body.

    Headings are those that start in the first column, `# …` or underlined, outside of fenced code
    (CommonMark 0.31, sections 4.2, 4.3 and 4.5).
    """
    open_headings: list[tuple[int, str]] = []
    start = text_start = 0
    for match in _headings(body):
        yield _section(body, start, text_start, match.start(), open_headings)
        level, title = _level_and_title(match)
        open_headings = [*(h for h in open_headings if h[0] < level), (level, title)]
        start, text_start = match.span()
    yield _section(body, start, text_start, len(body), open_headings)


def _headings(body: str) -> Iterator[re.Match[str]]:
    fence = ""
    for match in _HEADING_OR_FENCE.finditer(body):
        mark = match["fence"]
        if not mark:
            if not fence:
                yield match
        elif not fence:
            # An info string after backticks has none: otherwise it is code within a line.
            if mark[0] == "~" or "`" not in match["info"]:
                fence = mark
        elif mark.startswith(fence) and not match["info"].strip():
            fence = ""


def _section(
    body: str, start: int, text_start: int, end: int, headings: list[tuple[int, str]]
) -> Section:
    return Section(
        start,
        end,
        tuple(title for _, title in headings if title),
        is_bare=bool(headings) and not body[text_start:end].strip(),
    )


def _level_and_title(match: re.Match[str]) -> tuple[int, str]:
    if match["marks"]:
        level, title = len(match["marks"]), match["heading"] or ""
    else:
        level, title = (1 if match["double"] else 2), match["underlined"]
    title = title.strip()[:MOST_TITLE_CHARACTERS].rstrip()
    title = _LINK.sub(r"\1", _CLOSING_MARKS.sub("", title))
    return level, _ESCAPE.sub(r"\1", _EMPHASIS.sub(r"\2", title))


def _merged(parts: Iterable[Section], cutter: _Cutter) -> Iterator[Section]:
    """Join a heading without text to its first sub-section, and tiny neighbours to each other."""
    tiny = cutter.budget * TINY_SECTION
    group: Section | None = None
    for part in parts:
        if group is None or group.start == group.end:
            group = part
        elif group.is_bare and _encloses(group.heading_path, part.heading_path):
            group = Section(group.start, part.end, part.heading_path, part.is_bare)
        elif (group.is_bare or not part.is_bare) and max(
            cutter.tokens_between(s.start, s.end) for s in (group, part)
        ) < tiny:
            path = _common(group.heading_path, part.heading_path)
            group = Section(group.start, part.end, path, group.is_bare and part.is_bare)
        else:
            yield group
            group = part
    if group is not None:
        yield group


def _encloses(outer: tuple[str, ...], inner: tuple[str, ...]) -> bool:
    return len(outer) < len(inner) and inner[: len(outer)] == outer


def _common(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    same = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        same += 1
    return left[:same]
