"""Vectors from Arrow, and the vector of a long text from those of its windows."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def stacked(vectors: pa.Array | pa.ChunkedArray, dimensions: int) -> np.ndarray:
    """A column of vectors of one length as a matrix, float32, of shape (rows, dimensions)."""
    if isinstance(vectors, pa.ChunkedArray):
        vectors = vectors.combine_chunks()
    return np.asarray(vectors.flatten(), np.float32).reshape(len(vectors), dimensions)


def weighted_means(
    owners: np.ndarray, weights: np.ndarray, vectors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of each owner's vectors, scaled to length 1.

    Args:
        owners: whose vector each row is, equal ones side by side; shape (rows,).
        weights: what each row counts, above 0; shape (rows,).
        vectors: shape (rows, dimensions).

    Returns:
        The owners, each once, in their order, and their means: float32, shape (owners, dimensions).
        An owner whose vectors cancel each other out has no direction, and is left out.
    """
    if not len(owners):
        return owners, np.zeros((0, vectors.shape[1]), np.float32)
    starts = np.flatnonzero(np.r_[True, owners[1:] != owners[:-1]])
    sums = np.add.reduceat(vectors * weights[:, None].astype(np.float64), starts, axis=0)
    lengths = np.linalg.norm(sums, axis=1)
    has_direction = lengths > 1e-6 * np.add.reduceat(weights.astype(np.float64), starts)
    means = sums[has_direction] / lengths[has_direction, None]
    return owners[starts][has_direction], means.astype(np.float32)
