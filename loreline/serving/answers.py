"""From chunks that a search found to passages that a person, or a model, reads.

Chunks of one version that overlap are one passage; neighbours may be added to each; passages may
be gathered by document. The order is that of the search, or of a cross-encoder that reads question
and chunk together (Nogueira and Cho, "Passage Re-ranking with BERT", 2019).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from loreline.errors import LorelineError
from loreline.serving.search import MOST_QUERY_CHARACTERS, PUBLIC, Hit
from loreline.settings import Settings

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

# Of how many chunks an answer is chosen where some may turn out to be parts of others, or worse.
CANDIDATES_PER_ANSWER = 4
FEWEST_CANDIDATES = 30
MOST_CANDIDATES = 200

# `serving.search` gives no more.
MOST_CHUNKS = 1_000

# What begins a line of Markdown and not a sentence: an item, a heading, a quote, a table, a fence,
# an indentation.
_LINE_MARK = re.compile(r"[ \t>|]|[-*+] |#{1,6} |\d{1,9}[.)] |`{3}|~{3}")

RERANK_BATCH = 16

# Around a word of the question, on the way from Postgres.
_FIRST, _LAST = "\x02", "\x03"


@dataclass(frozen=True)
class Part:
    """A chunk as a part of its version's body.

    Attributes:
        document_version_id: of which version.
        chunk_index: its place among the version's chunks, from 0.
        start_char: its first character in the body, from 1.
        end_char: its last one.
        text: the characters.
    """

    document_version_id: str
    chunk_index: int
    start_char: int
    end_char: int
    text: str


@dataclass(frozen=True)
class Passage:
    """A part of a document that answers.

    Attributes:
        hit: the best of the chunks in it.
        start_char: its first character in the version's body, from 1.
        end_char: its last one.
        text: what stands there, character by character, but for the white space between two chunks:
            that is in neither of them, so it is as long as there, and line ends, or the blank
            between two sentences.
        chunk_ids: of all hits in it, best first.
        highlights: where the words of the question are in the text, as (first, end) from 0.
    """

    hit: Hit
    start_char: int
    end_char: int
    text: str
    chunk_ids: tuple[str, ...]
    highlights: tuple[tuple[int, int], ...] = ()


# Gives the hits themselves, and so many chunks of their versions before and after each.
Neighbours = Callable[[Sequence[Hit], int], Iterable[Part]]


def candidates(k: int) -> int:
    """How many chunks to search for, so that `k` answers can be made of them."""
    return max(k, min(max(CANDIDATES_PER_ANSWER * k, FEWEST_CANDIDATES), MOST_CANDIDATES))


def enough(
    search: Callable[[int], list[Hit]], k: int, answers: Callable[[list[Hit]], int]
) -> list[Hit]:
    """Hits of which `k` answers can be made, or all that a search gives.

    One document may fill the first hundreds of places, and hits that overlap are one passage: then
    more are searched for.

    Args:
        search: gives the best so many chunks.
        k: answers wanted.
        answers: how many can be made of some hits.
    """
    wanted = candidates(k)
    hits = search(wanted)
    while len(hits) == wanted < MOST_CHUNKS and answers(hits) < k:
        wanted = min(CANDIDATES_PER_ANSWER * wanted, MOST_CHUNKS)
        hits = search(wanted)
    return hits


def passages(hits: Sequence[Hit], around: int, neighbours: Neighbours) -> list[Passage]:
    """Join hits that overlap, touch or share a neighbour; best first.

    Args:
        hits: best first, all of one collection.
        around: how many chunks before and after each hit belong to its passage.
        neighbours: gives them.
    """
    given = neighbours(hits, around) if around else map(_part, hits)
    parts = sorted(set(given), key=lambda part: (part.document_version_id, part.chunk_index))
    found = {(hit.document_version_id, hit.chunk_index): hit for hit in hits}
    rank = {hit.chunk_id: place for place, hit in enumerate(hits)}
    made = []
    for _, version in groupby(parts, key=lambda part: part.document_version_id):
        for run in _runs(list(version), joins_neighbours=around > 0):
            held = [
                found[key]
                for part in run
                if (key := (part.document_version_id, part.chunk_index)) in found
            ]
            if not held:
                continue
            held.sort(key=lambda hit: rank[hit.chunk_id])
            made.append(
                Passage(
                    held[0],
                    run[0].start_char,
                    max(part.end_char for part in run),
                    _joined(run),
                    tuple(hit.chunk_id for hit in held),
                )
            )
    return sorted(made, key=lambda passage: rank[passage.hit.chunk_id])


def by_document(found: Sequence[Passage], k: int, per_document: int) -> list[Passage]:
    """The passages of the `k` documents with the best ones, `per_document` of each at most.

    Documents are in the order of their best passage, and so are the passages of each.
    """
    documents: dict[str, list[Passage]] = {}
    for passage in found:
        documents.setdefault(passage.hit.doc_id, []).append(passage)
    chosen = list(documents.values())[:k]
    return [passage for document in chosen for passage in document[:per_document]]


def rerank(question: str, hits: Sequence[Hit], settings: Settings) -> list[Hit]:
    """Hits by how well a cross-encoder finds that they answer; it also gives their scores, 0 to 1.

    Args:
        question: as asked.
        hits: best first; equals keep their order.
        settings: name the model.

    Raises:
        LorelineError: there is no such model.
    """
    model = _cross_encoder(settings.reranker_model, settings)
    pairs = [(question, f"{hit.title}\n{hit.text}" if hit.title else hit.text) for hit in hits]
    scores = model.predict(pairs, batch_size=RERANK_BATCH, show_progress_bar=False)
    scored = [(_score(score), hit) for score, hit in zip(scores, hits, strict=True)]
    scored.sort(key=lambda pair: -pair[0])
    return [replace(hit, rerank_score=score) for score, hit in scored]


def neighbours_served(
    connection: psycopg.Connection, settings: Settings, table_number: int, principals: Sequence[str]
) -> Neighbours:
    """Chunks of a served collection that the principals may read."""

    def neighbours(hits: Sequence[Hit], around: int) -> Iterable[Part]:
        query = SQL(
            """
            select held.document_version_id, held.chunk_index, held.start_char, held.end_char,
                held.text
            from {chunks} as held
            inner join unnest(%s::text[], %s::text[], %s::int[]) as found (doc_id, version, place)
                on held.doc_id = found.doc_id
                and held.document_version_id = found.version
                and held.chunk_index between found.place - %s and found.place + %s
            where held.allowed_principals && %s::text[]
            """
        ).format(chunks=Identifier(f"{settings.prefix}serving", f"chunks_{table_number}"))
        found = [
            [hit.doc_id for hit in hits],
            [hit.document_version_id for hit in hits],
            [hit.chunk_index for hit in hits],
        ]
        with connection.cursor(row_factory=class_row(Part)) as cursor:
            readers = [*principals, *PUBLIC]
            return cursor.execute(query, [*found, around, around, readers]).fetchall()

    return neighbours


def highlighted(
    connection: psycopg.Connection,
    settings: Settings,
    question: str,
    found: Sequence[Passage],
    collection: str | None = None,
) -> list[Passage]:
    """Passages that say where the words of a question are, by the rules that words are found by."""
    # A mark that somebody wrote would be taken for ours.
    texts = [re.sub(f"[{_FIRST}{_LAST}]", " ", passage.text) for passage in found]
    query = SQL("select {}.marked(%s, %s, %s, %s, %s)").format(
        Identifier(f"{settings.prefix}serving")
    )
    asked = question[:MOST_QUERY_CHARACTERS].replace("\0", " ")
    row = connection.execute(query, [asked, texts, _FIRST, _LAST, collection]).fetchone()
    if row is None or row[0] is None:
        return list(found)
    return [
        replace(passage, highlights=_highlights(marked))
        for passage, marked in zip(found, row[0], strict=True)
    ]


def _highlights(marked: str) -> tuple[tuple[int, int], ...]:
    """Where the marked words are in the text without its marks."""
    found, first = [], 0
    for marks, match in enumerate(re.finditer(f"[{_FIRST}{_LAST}]", marked)):
        place = match.start() - marks
        if match[0] == _FIRST:
            first = place
        else:
            found.append((first, place))
    return tuple(found)


def _part(hit: Hit) -> Part:
    return Part(hit.document_version_id, hit.chunk_index, hit.start_char, hit.end_char, hit.text)


def _score(value: float) -> float:
    """What is no number is no answer."""
    return float(value) if math.isfinite(value) else -math.inf


@lru_cache(maxsize=2)
def _cross_encoder(name: str, settings: Settings) -> CrossEncoder:
    from sentence_transformers import CrossEncoder

    from loreline.embedding import model_folder

    try:
        return CrossEncoder(str(model_folder(name, settings)))
    except (OSError, ValueError) as error:
        raise LorelineError(
            f"the re-ranking model {name!r} cannot be loaded ({str(error).splitlines()[0]})",
            "name a cross-encoder in LORELINE_RERANKER_MODEL, or leave it empty",
        ) from error


def _runs(parts: Sequence[Part], *, joins_neighbours: bool) -> list[list[Part]]:
    """Parts of one version, in order, cut where the next one neither overlaps nor follows."""
    runs: list[list[Part]] = []
    reached = 0
    for part in parts:
        follows = joins_neighbours and runs and part.chunk_index == runs[-1][-1].chunk_index + 1
        if runs and (part.start_char <= reached or follows):
            runs[-1].append(part)
        else:
            runs.append([part])
            reached = 0
        reached = max(reached, part.end_char)
    return runs


def _joined(run: Sequence[Part]) -> str:
    """The text of parts in order, what several hold once, as long as it is in the body."""
    text, reached = run[0].text, run[0].end_char
    for part in run[1:]:
        if part.end_char <= reached:
            continue
        # Chunks leave out nothing but the white space between them.
        gap = part.start_char - reached - 1
        if gap > 0:
            is_line = gap > 1 or _LINE_MARK.match(part.text)
            text += ("\n" if is_line else " ") * gap + part.text
        else:
            text += part.text[-gap:]
        reached = part.end_char
    return text
