"""Which texts are near-copies of each other, by their MinHashes, and what hangs together by that.

Candidates share a band of their MinHash (locality-sensitive hashing; Leskovec, Rajaraman, Ullman,
Mining of Massive Datasets, chapter 3). With bands of five, two texts whose shingles are alike by
0.8 are candidates with a probability of 0.9999 at 128 permutations. Each is then compared by all
permutations; the standard error of that estimate is 0.035 there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from loreline.datasets.training_text import NO_MINHASH

ROWS_PER_BAND = 5
# Rows that are compared at a time: 128 permutations of so many are some 30 MB.
ROWS_PER_BLOCK = 65_536
# Texts that share a band and are not alike: after so many rounds the rest is left to other bands.
MOST_ROUNDS = 64


def least(minhashes: np.ndarray, rows: np.ndarray, owners: np.ndarray, count: int) -> np.ndarray:
    """The MinHash of what each owner's texts say together.

    Args:
        minhashes: of texts, shape (texts, permutations).
        rows: which text, shape (n,).
        owners: whose text it is, ascending, shape (n,).
        count: of owners.

    Returns:
        Shape (count, permutations); `NO_MINHASH` for an owner without a text.
    """
    found = np.full((count, minhashes.shape[1]), NO_MINHASH, np.uint32)
    for begin in range(0, count, ROWS_PER_BLOCK):
        first, last = np.searchsorted(owners, [begin, begin + ROWS_PER_BLOCK])
        if first == last:
            continue
        block = owners[first:last]
        starts = np.flatnonzero(np.r_[True, block[1:] != block[:-1]])
        found[block[starts]] = np.minimum.reduceat(minhashes[rows[first:last]], starts, axis=0)
    return found


def near_copies(
    minhashes: np.ndarray,
    similarity: float,
    *,
    within: np.ndarray | None = None,
    also: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Pairs of texts that are near-copies: enough of them to hang all near-copies together.

    Args:
        minhashes: shape (texts, permutations); texts that say nothing are in no pair.
        similarity: from which share of equal places on.
        within: pairs have equal numbers here, shape (texts,).
        also: MinHashes of other parts of the same texts, which must be alike, too.

    Returns:
        Indices, shape (pairs, 2).
    """
    speaks = np.flatnonzero((minhashes != NO_MINHASH).any(axis=1))
    partition = np.zeros(len(minhashes), np.uint64) if within is None else within.astype(np.uint64)
    pairs = [np.zeros((0, 2), np.int64)]
    bands = minhashes.shape[1] // ROWS_PER_BAND
    for band in range(bands):
        part = minhashes[speaks, band * ROWS_PER_BAND : (band + 1) * ROWS_PER_BAND]
        keys = _mixed(np.column_stack([partition[speaks], part]))
        order = np.argsort(keys, kind="stable")
        pairs.append(_alike(speaks[order], keys[order], partition, [minhashes, *also], similarity))
    return np.unique(np.concatenate(pairs), axis=0)


def agreement(minhashes: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The share of places in which the texts of two lists of indices are equal, pair by pair."""
    shares = np.zeros(len(one))
    for begin in range(0, len(one), ROWS_PER_BLOCK):
        block = slice(begin, begin + ROWS_PER_BLOCK)
        shares[block] = (minhashes[one[block]] == minhashes[other[block]]).mean(axis=1)
    return shares


def components(count: int, pairs: np.ndarray) -> np.ndarray:
    """For each of `count` things the number of what it hangs together with; shape (count,)."""
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), (count, count))
    return connected_components(graph, directed=False)[1]


def _mixed(columns: np.ndarray) -> np.ndarray:
    """A number for each row of numbers; equal rows have equal ones, others hardly ever."""
    mixed = np.zeros(len(columns), np.uint64)
    with np.errstate(over="ignore"):
        for column in columns.T.astype(np.uint64):
            mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
            mixed ^= mixed >> np.uint64(29)
    return mixed


def _alike(
    texts: np.ndarray,
    keys: np.ndarray,
    partition: np.ndarray,
    compared: Sequence[np.ndarray],
    similarity: float,
) -> np.ndarray:
    """Of texts sorted by key, pairs with the first of their key; then the rest with its first."""
    pairs = []
    for _ in range(MOST_ROUNDS):
        starts = np.r_[True, keys[1:] != keys[:-1]]
        firsts = np.flatnonzero(starts)[np.cumsum(starts) - 1]
        others = np.flatnonzero(~starts)
        if not len(others):
            break
        one, other = texts[firsts[others]], texts[others]
        is_near = partition[one] == partition[other]
        for minhashes in compared:
            is_near[is_near] = agreement(minhashes, one[is_near], other[is_near]) >= similarity
        pairs.append(np.column_stack([one[is_near], other[is_near]]))
        rest = others[~is_near]
        texts, keys = texts[rest], keys[rest]
    return np.concatenate([np.zeros((0, 2), np.int64), *pairs])
