"""The sentences of a body, and where what they say changes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

LINE_END = r"[\n\r\u2028\u2029]"
# White space and a capital, a digit or the like have to follow; where they do not, as in Chinese,
# the mark is another one. A pattern that begins with a set of characters is searched fast.
SENTENCE_MARK = r"""[.!?…。！？](?:(?<=[.!?…])["'”’»)\]*_`]*(?=\s+[^\sa-z])|(?<=[。！？]))"""
# A line ends a sentence too: an item of a list, a line of code, a heading.
_SENTENCE_END = re.compile(
    r"""[.!?…。！？\n\r\u2028\u2029](?:(?<=[.!?…])["'”’»)\]*_`]*(?=\s+[^\sa-z])|(?<![.!?…]))"""
    rf"(?:\s*{LINE_END})?"
)

# White space, control and format characters: nothing that a reader or a model could see.
BLANK = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]*"
)

# A vector of the same text differs in its last digits with the texts that it was encoded beside.
DECIMALS = 4

GAPS_AT_A_TIME = 4_096


def sentences(body: str) -> Iterator[tuple[int, int]]:
    """Start and end of each sentence, code points from 0; together they are the whole body.

    One that nobody could see belongs to the next.
    """
    start = 0
    for match in _SENTENCE_END.finditer(body):
        if not BLANK.fullmatch(body, start, match.start() + 1):
            yield start, match.end()
            start = match.end()
    if start < len(body):
        yield start, len(body)


def breakpoints(vectors: np.ndarray, group: int, percentile: int) -> list[int]:
    """Numbers of the sentences that begin something else, ascending.

    The `group` sentences before a gap are compared with those after it, as TextTiling does with
    words (Hearst, 1997), by the cosine of the means of their vectors; a gap counts whose distance
    is above a percentile of the document's own (Kamradt, 2023: 5 Levels of Text Splitting).

    Args:
        vectors: of a document's sentences, shape (sentences, dimensions); one with NaN is left out
            of the means.
        group: sentences on each side, fewer at the document's ends.
        percentile: from 0 up to 100.
    """
    distances = np.concatenate(
        [
            _distances(vectors, np.arange(first, min(first + GAPS_AT_A_TIME, len(vectors))), group)
            for first in range(1, len(vectors), GAPS_AT_A_TIME)
        ]
        or [np.zeros(0)]
    )
    known = distances[np.isfinite(distances)]
    if not known.size:
        return []
    return (np.flatnonzero(distances > np.percentile(known, percentile)) + 1).tolist()


def _distances(vectors: np.ndarray, gaps: np.ndarray, group: int) -> np.ndarray:
    """Distance of what lies before and after each gap, a gap being the number of a sentence."""
    first = max(gaps[0] - group, 0)
    near = np.nan_to_num(vectors[first : gaps[-1] + group])
    sums = np.concatenate([np.zeros((1, near.shape[1])), np.cumsum(near, axis=0, dtype=float)])
    middle = gaps - first
    before = sums[middle] - sums[np.maximum(middle - group, 0)]
    after = sums[np.minimum(middle + group, len(near))] - sums[middle]
    lengths = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.round(1 - (before * after).sum(axis=1) / lengths, DECIMALS)
