"""Cut a document's body into chunks that fit an embedding model, with exact offsets.

The tokens of a body are placed once; boundaries are then chosen among their positions, so the work
grows with the length of the body and not with the number of attempts. What was compared before this
was written, and why it is no library's work, is in `docs/decisions/chunking.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np

from loreline.errors import LorelineError
from loreline.knowledge.contexts import CONTEXTS, NONE, Contexts
from loreline.knowledge.cutter import WORDS, Cutter, Piece, Span
from loreline.knowledge.messages import messages
from loreline.knowledge.sections import Section, sections
from loreline.knowledge.sentences import breakpoints, sentences
from loreline.knowledge.tokens import Tokenizer

# Raise it whenever the same body and configuration would give other chunks.
ALGORITHM_VERSION = 1

# Below this a chunk says nothing; it also leaves room for the special tokens.
LEAST_MAX_TOKENS = 8
# Half of it may be a heading and a speaker.
LEAST_MAX_TOKENS_WITH_CONTEXT = 32

# Neighbouring sections smaller than this part of the limit are merged.
TINY_SECTION = 0.125

# Vectors of texts, shape (texts, dimensions); NaN for one that has none.
Vectors = Callable[[list[str]], np.ndarray]


@dataclass(frozen=True)
class ChunkingConfiguration:
    """A row of the seed `chunking_strategies`.

    Attributes:
        chunking_strategy: the variant's name.
        algorithm: a key of `ALGORITHMS`.
        max_tokens: most tokens of what is embedded, context and special tokens included.
        overlap_tokens: at most so many tokens of a chunk are repeated by the next one.
        window_sentences: of `sentence_windows`: sentences of a chunk; of `semantic`: sentences that
            are compared on each side of a gap.
        breakpoint_percentile: of `semantic`: a gap is cut whose distance is above this percentile.
        sentence_model: of `semantic`: the row of the seed `embedding_models` that embeds sentences.
        context: what is embedded in front of a chunk: `none`, `title` or `title_and_path`.
        tokenizer: the embedding model whose tokens are counted.
        algorithm_version: of the code that cuts; another one makes another variant.
    """

    chunking_strategy: str
    algorithm: str
    max_tokens: int
    overlap_tokens: int = 0
    window_sentences: int | None = None
    breakpoint_percentile: int | None = None
    sentence_model: str | None = None
    context: str = NONE
    tokenizer: str = "sentence-transformers/all-MiniLM-L6-v2"
    algorithm_version: int = ALGORITHM_VERSION

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ChunkingConfiguration:
        """Take the fields that a row of the seed, or of a model made from it, holds."""
        return cls(**{field.name: row[field.name] for field in fields(cls) if field.name in row})

    def __post_init__(self) -> None:
        where = f"chunking strategy {self.chunking_strategy!r}"
        for is_wrong, what, todo in self._faults():
            if is_wrong:
                raise LorelineError(f"{where} {what}", todo)

    def _faults(self) -> Iterator[tuple[bool, str, str]]:
        yield (
            self.algorithm not in ALGORITHMS,
            f"names the algorithm {self.algorithm!r}",
            f"use {' or '.join(ALGORITHMS)}",
        )
        yield (
            self.algorithm_version != ALGORITHM_VERSION,
            f"asks for version {self.algorithm_version} of its algorithm",
            f"this code has version {ALGORITHM_VERSION}",
        )
        yield (
            self.context not in CONTEXTS,
            f"names the context {self.context!r}",
            f"use {' or '.join(CONTEXTS)}",
        )
        for name, users in PARAMETERS.items():
            value, is_used = getattr(self, name), self.algorithm in users
            yield is_used and value is None, f"has no {name}", f"{self.algorithm} needs one"
            yield (
                not is_used and value is not None,
                f"has a {name}",
                f"leave it empty: only {' and '.join(users)} uses it",
            )
        least = LEAST_MAX_TOKENS
        if self.context != NONE or self.algorithm == "chat_messages":
            least = LEAST_MAX_TOKENS_WITH_CONTEXT
        yield self.max_tokens < least, f"allows {self.max_tokens} tokens", f"allow {least} or more"
        yield (
            not 0 <= self.overlap_tokens <= self.max_tokens // 2,
            f"repeats {self.overlap_tokens} of {self.max_tokens} tokens",
            "repeat none to half of them",
        )
        for name, most in (("window_sentences", 100), ("breakpoint_percentile", 99)):
            value = getattr(self, name)
            yield (
                value is not None and not 1 <= value <= most,
                f"has the {name} {value}",
                f"use 1 to {most}",
            )


@dataclass(frozen=True)
class Chunk:
    """A part of a body; in SQL `substr(body, start_char, end_char - start_char + 1) = text`.

    Attributes:
        chunk_index: position among the body's chunks, from 0.
        text: the part; neither blank lines before it nor white space after it.
        start_char: its first character, from 1, in Unicode code points.
        end_char: its last character, inclusive.
        token_count: tokens that the model sees, those of `context` and special ones included.
        heading_path: texts of the enclosing headings, outermost first; empty unless the algorithm
            or the context is about sections.
        context: what is embedded in front of `text`, or empty.
    """

    chunk_index: int
    text: str
    start_char: int
    end_char: int
    token_count: int
    heading_path: tuple[str, ...] = ()
    context: str = ""

    @property
    def embedded_text(self) -> str:
        """What the embedding model reads."""
        return self.context + self.text


class Document(Cutter):
    """A body to be cut, and how."""

    def __init__(
        self,
        body: str,
        configuration: ChunkingConfiguration,
        tokenizer: Tokenizer,
        title: str,
        vectors: Vectors | None,
    ) -> None:
        limit, overlap = configuration.max_tokens, configuration.overlap_tokens
        contexts = Contexts(configuration.context, title, body, tokenizer, limit)
        super().__init__(body, contexts, tokenizer, limit, overlap)
        self.configuration = configuration
        self.vectors = vectors

    def sentences(self) -> list[Span]:
        """The body's sentences; one that is larger than a chunk in parts."""
        spans = []
        for start, end in sentences(self.body):
            if self.fits(start, end):
                spans.append(Span(start, end))
            else:
                starts = [piece.start for piece in self.pieces(Span(start, end))]
                ends = [*starts[1:], end]
                spans += [Span(*places) for places in zip([start, *starts[1:]], ends, strict=True)]
        return spans

    def texts(self, spans: Iterable[Span]) -> list[str]:
        """What spans say, without the white space around it."""
        return [self.body[span.start : span.end].strip() for span in spans]


def chunk(
    body: str,
    configuration: ChunkingConfiguration,
    tokenizer: Tokenizer,
    title: str = "",
    vectors: Vectors | None = None,
) -> list[Chunk]:
    """Cut a body into chunks, in order.

    Each chunk is a contiguous part of the body, every character that can be seen lies in a chunk,
    and nothing that is embedded has more than `max_tokens` tokens. A blank body has no chunk.

    Args:
        body: text, usually Markdown.
        configuration: how to cut.
        tokenizer: that of `configuration.tokenizer`, from `load_tokenizer`.
        title: the document's, for the context.
        vectors: gives those of `sentence_texts` of the same body and title; only `semantic` asks.
    """
    document = Document(body, configuration, tokenizer, title, vectors)
    return [
        Chunk(
            index,
            text=body[piece.start : piece.end],
            start_char=piece.start + 1,
            end_char=piece.end,
            token_count=piece.token_count,
            heading_path=piece.heading_path,
            context=piece.context.text,
        )
        for index, piece in enumerate(ALGORITHMS[configuration.algorithm](document))
    ]


def sentence_texts(
    body: str, configuration: ChunkingConfiguration, tokenizer: Tokenizer, title: str = ""
) -> list[str]:
    """The sentences whose vectors `semantic` asks for, in order; each within `max_tokens`.

    The title counts: what it takes of a chunk's tokens as context decides where a sentence that is
    too large is cut.
    """
    document = Document(body, configuration, tokenizer, title, None)
    return document.texts(document.sentences())


def fixed_tokens(document: Document) -> Iterator[Piece]:
    """As many words as fit, whatever they say."""
    return document.pieces(Span(0, len(document.body)), WORDS)


def recursive(document: Document) -> Iterator[Piece]:
    """Cut at paragraphs, else lines, else sentences, else words, else characters."""
    return document.pieces(Span(0, len(document.body)))


def markdown_sections(document: Document) -> Iterator[Piece]:
    """One piece a section; tiny neighbours are merged, and what is too large is cut recursively."""
    for section in _merged(sections(document.body), document):
        yield from document.pieces(Span(*section[:3]))


def sentence_windows(document: Document) -> Iterator[Piece]:
    """So many sentences a piece, fewer where more do not fit; whole sentences are repeated."""
    spans = [Span(start, end) for start, end in sentences(document.body)]
    return document.packed(spans, document.configuration.window_sentences)


def chat_messages(document: Document) -> Iterator[Piece]:
    """Whole messages, as many as fit; what goes on with one that is too large names its speaker."""
    spans = [Span(start, end, None, speaker) for start, end, speaker in messages(document.body)]
    return document.packed(spans, len(spans))


def semantic(document: Document) -> Iterator[Piece]:
    """Sentences up to where they begin to say something else; what is too large is recursive."""
    parts = document.sentences()
    configuration = document.configuration
    cuts = []
    if len(parts) > 1:
        vectors = document.vectors(document.texts(parts))
        group, percentile = configuration.window_sentences, configuration.breakpoint_percentile
        cuts = breakpoints(vectors, group, percentile)
    places = [0, *(parts[cut].start for cut in cuts), len(document.body)]
    for start, end in pairwise(places):
        yield from document.pieces(Span(start, end))


ALGORITHMS: dict[str, Callable[[Document], Iterator[Piece]]] = {
    "fixed_tokens": fixed_tokens,
    "recursive": recursive,
    "markdown_sections": markdown_sections,
    "sentence_windows": sentence_windows,
    "semantic": semantic,
    "chat_messages": chat_messages,
}

# Which algorithms a parameter is for.
PARAMETERS = {
    "window_sentences": ("sentence_windows", "semantic"),
    "breakpoint_percentile": ("semantic",),
    "sentence_model": ("semantic",),
}


def _merged(parts: Iterable[Section], cutter: Cutter) -> Iterator[Section]:
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
