"""Clusters of vectors: found, measured, matched with those of before, and added to.

Vectors of length 1 are reduced by PCA and clustered by HDBSCAN (Campello, Moulavi and Sander 2013),
both of scikit-learn. Rows are put in the order of their ids first, and whatever is drawn is drawn
with a seed: the same vectors give the same clusters, in whatever order they come.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import combinations
from typing import Any

import numpy as np

OUTLIER = -1

# Of this share of the vectors each resample is drawn, without putting back (Ben-Hur, Elisseeff and
# Guyon 2002).
RESAMPLED_SHARE = 0.8

# Members that two clusters must share, as a share of the smaller one, to be the same; and of a
# cluster, to be part of what another one came from or went to.
LEAST_SHARE = 1 / 3

# Vectors closer than this are the same one.
SAME_POINT = 1e-5


@dataclass(frozen=True)
class ClusteringConfiguration:
    """A row of the seed `clustering_configurations`.

    Attributes:
        pca_dimensions: to which vectors are reduced; not more than they have.
        min_cluster_size: fewest vectors of a cluster, 2 or more.
        min_samples: neighbours that a vector must have near by to be in the middle of a cluster.
        reach_quantile: how far a cluster reaches: this quantile of the distances of its members to
            their `min_samples`-th nearest one, the first being the member itself.
        random_seed: of the resamples.
        resamples: how many clusterings the stability is measured with; below 2 it is not.
    """

    pca_dimensions: int = 10
    min_cluster_size: int = 4
    min_samples: int = 2
    reach_quantile: float = 0.95
    random_seed: int = 1
    resamples: int = 5

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> ClusteringConfiguration:
        """Take the fields that a row of the seed, or of a model made from it, holds."""
        return cls(**{field.name: row[field.name] for field in fields(cls) if field.name in row})


@dataclass(frozen=True)
class Reduction:
    """A projection onto main axes.

    Attributes:
        mean: of the vectors that it was made from; shape (dimensions,).
        axes: orthonormal rows; shape (reduced dimensions, dimensions).
    """

    mean: np.ndarray
    axes: np.ndarray

    def points(self, vectors: np.ndarray) -> np.ndarray:
        """Reduced vectors: float32, shape (vectors, reduced dimensions)."""
        return ((vectors - self.mean) @ self.axes.T).astype(np.float32)


@dataclass(frozen=True)
class Clustering:
    """What was found.

    Attributes:
        ids: of the vectors, sorted.
        labels: the cluster of each, from 0, OUTLIER for none; shape (vectors,).
        points: the vectors, reduced; shape (vectors, reduced dimensions).
        reduction: by which they were.
        centroids: shape (clusters, reduced dimensions).
        reaches: how far from a member a vector may be to belong to its cluster; shape (clusters,).
        stability: mean adjusted Rand index of the clusterings of resamples, where at least one has
            clusters; None where there was nothing to compare.
    """

    ids: list[str]
    labels: np.ndarray
    points: np.ndarray
    reduction: Reduction
    centroids: np.ndarray
    reaches: np.ndarray
    stability: float | None

    @property
    def outlier_share(self) -> float:
        """Share of the vectors that are in no cluster; 0 where there are no vectors."""
        return float(np.mean(self.labels == OUTLIER)) if len(self.labels) else 0.0

    @property
    def distances(self) -> np.ndarray:
        """Of each vector to its cluster's centroid, of an outlier to the nearest; NaN for none."""
        return centroid_distances(self.points, self.labels, self.centroids)


def cluster(
    ids: Sequence[str], vectors: np.ndarray, configuration: ClusteringConfiguration
) -> Clustering:
    """Find clusters.

    Args:
        ids: each once.
        vectors: finite, in the order of the ids; shape (ids, dimensions).
        configuration: what is wanted.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    vectors = np.asarray(vectors, np.float32)[order]
    reduction = reduce(vectors, configuration.pca_dimensions)
    points = reduction.points(vectors)
    labels = labels_of(points, configuration.min_cluster_size, configuration.min_samples)
    members = [points[labels == label] for label in range(labels.max(initial=OUTLIER) + 1)]
    centroids = [member.mean(axis=0, dtype=np.float64) for member in members]
    reaches = [_reach(member, configuration) for member in members]
    return Clustering(
        [ids[row] for row in order],
        labels,
        points,
        reduction,
        np.array(centroids, np.float32).reshape(len(members), points.shape[1]),
        np.array(reaches, np.float32),
        stability(points, configuration),
    )


def reduce(vectors: np.ndarray, dimensions: int) -> Reduction:
    """The main axes of vectors, shape (vectors, dimensions); none where there is but one vector."""
    from sklearn.decomposition import PCA

    count, width = vectors.shape
    if count < 2:
        mean = vectors.mean(axis=0) if count else np.zeros(width, np.float32)
        return Reduction(mean, np.zeros((0, width), np.float32))
    # Of equal vectors no axis explains more than another.
    with np.errstate(invalid="ignore"):
        found = PCA(min(dimensions, count, width), svd_solver="covariance_eigh").fit(vectors)
    return Reduction(found.mean_.astype(np.float32), found.components_.astype(np.float32))


def labels_of(points: np.ndarray, min_cluster_size: int, min_samples: int) -> np.ndarray:
    """The cluster of each point, from 0, or OUTLIER; shape (points,)."""
    from sklearn.cluster import HDBSCAN

    if len(points) < min_cluster_size:
        return np.full(len(points), OUTLIER)
    # To HDBSCAN all points together are no cluster, even where they are one and the same.
    if not points.shape[1] or np.ptp(points, axis=0).max() < SAME_POINT:
        return np.zeros(len(points), int)
    return HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=min(min_samples, len(points)),
        algorithm="kd_tree",
        copy=True,
    ).fit_predict(points)


def stability(points: np.ndarray, configuration: ClusteringConfiguration) -> float | None:
    """Mean adjusted Rand index (Hubert and Arabie 1985) of the clusterings of resamples, in pairs.

    Each pair is compared on the points that both hold and at least one puts into a cluster; 1 means
    that they agree. None where fewer than two resamples are wanted, one of them is smaller than a
    cluster, or none has any cluster.
    """
    from sklearn.metrics import adjusted_rand_score

    size = int(RESAMPLED_SHARE * len(points))
    if configuration.resamples < 2 or size < configuration.min_cluster_size:
        return None
    random = np.random.default_rng(configuration.random_seed)
    smallest = max(2, round(RESAMPLED_SHARE * configuration.min_cluster_size))
    found = []
    for _ in range(configuration.resamples):
        rows = np.sort(random.choice(len(points), size, replace=False))
        # What was not drawn is told from what is in no cluster.
        labels = np.full(len(points), OUTLIER - 1)
        labels[rows] = labels_of(points[rows], smallest, configuration.min_samples)
        found.append(labels)
    scores = []
    for one, other in combinations(found, 2):
        is_in_both = (one >= OUTLIER) & (other >= OUTLIER)
        compared = is_in_both & ((one != OUTLIER) | (other != OUTLIER))
        if compared.any():
            scores.append(adjusted_rand_score(one[compared], other[compared]))
    return float(np.mean(scores)) if scores else None


def _reach(members: np.ndarray, configuration: ClusteringConfiguration) -> float:
    """How far a cluster reaches beyond its members; shape of these (members, dimensions)."""
    if not members.shape[1]:
        return SAME_POINT
    from scipy.spatial import KDTree

    # Like HDBSCAN's, the count begins with the member itself.
    neighbours = min(max(configuration.min_samples, 2), len(members))
    distances, _ = KDTree(members).query(members, k=[neighbours])
    return max(float(np.quantile(distances, configuration.reach_quantile)), SAME_POINT)


def centroid_distances(points: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Of each point to its cluster's centroid, of an outlier to the nearest one; NaN for none."""
    if not len(centroids) or not len(points):
        return np.full(len(points), np.nan)
    distances = np.empty((len(points), len(centroids)), np.float32)
    for label, centroid in enumerate(centroids):
        distances[:, label] = np.linalg.norm(points - centroid, axis=1)
    rows = np.arange(len(points))
    return np.where(labels == OUTLIER, distances.min(axis=1), distances[rows, labels])


@dataclass(frozen=True)
class Neighbourhood:
    """What a vector that was not clustered is compared with.

    Attributes:
        points: the vectors that are in a cluster; shape (members, reduced dimensions).
        labels: their clusters, from 0; shape (members,).
        centroids: shape (clusters, reduced dimensions).
        reaches: shape (clusters,).
    """

    points: np.ndarray
    labels: np.ndarray
    centroids: np.ndarray
    reaches: np.ndarray

    def assign(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Labels and distances to centroids of points, both of shape (points,).

        A point belongs to the cluster of the nearest member, where it is within its reach, and is
        an outlier otherwise.
        """
        from sklearn.neighbors import NearestNeighbors

        if not len(self.points) or not len(points):
            labels = np.full(len(points), OUTLIER)
        elif not points.shape[1]:
            labels = np.zeros(len(points), int)
        else:
            # In double precision: equal points are then no distance apart.
            nearest = NearestNeighbors(n_neighbors=1, algorithm="brute")
            nearest.fit(self.points.astype(np.float64))
            distances, members = nearest.kneighbors(points.astype(np.float64))
            labels = self.labels[members[:, 0]]
            labels = np.where(distances[:, 0] <= self.reaches[labels], labels, OUTLIER)
        return labels, centroid_distances(points, labels, self.centroids)


@dataclass(frozen=True)
class ClusterEvent:
    """What became of a cluster from one clustering to the next.

    Attributes:
        event: born (of what was in no cluster), split (from `other_cluster_id`), merged (into
            `other_cluster_id`) or died (its members are in none).
        cluster_id: the cluster that begins or ends.
        other_cluster_id: the one that it came from or went to.
        member_count: how many members they share; of a cluster that is born or dies, its own.
    """

    event: str
    cluster_id: str
    other_cluster_id: str | None
    member_count: int


@dataclass(frozen=True)
class Matching:
    """Ids for the clusters that were found.

    Attributes:
        cluster_ids: by label.
        events: what began and what ended; a cluster that stays is in none.
        highest_number: the highest number that any id has ever had.
    """

    cluster_ids: list[str]
    events: list[ClusterEvent] = field(default_factory=list)
    highest_number: int = 0


def match_clusters(
    former: Mapping[str, str],
    ids: Sequence[str],
    labels: np.ndarray,
    *,
    prefix: str,
    highest_number: int,
) -> Matching:
    """Give clusters the ids of the former ones that they are, by the members that they share.

    Pairs are chosen so that as many members as can be keep their cluster (Kuhn 1955); a pair that
    shares too little is none. Other clusters get numbers that were never given.

    Args:
        former: former cluster ids by member; former outliers are not in it.
        ids: what was clustered now, sorted.
        labels: the cluster of each, from 0, or OUTLIER; shape (ids,).
        prefix: of new ids.
        highest_number: the highest number given so far.
    """
    from scipy.optimize import linear_sum_assignment

    count = int(labels.max(initial=OUTLIER)) + 1
    names = sorted(set(former.values()))
    places = {name: place for place, name in enumerate(names)}
    shared = np.zeros((len(names), count), int)
    surviving = np.zeros(len(names), int)
    for member, label in zip(ids, labels.tolist(), strict=True):
        if member in former:
            surviving[places[former[member]]] += 1
            if label != OUTLIER:
                shared[places[former[member]], label] += 1
    sizes = np.bincount(labels[labels != OUTLIER], minlength=count)

    kept: dict[int, str] = {}
    for place, label in zip(*linear_sum_assignment(shared, maximize=True), strict=True):
        smaller = min(surviving[place], sizes[label])
        if shared[place, label] and shared[place, label] >= LEAST_SHARE * smaller:
            kept[int(label)] = names[place]
    first = {int(label): ids[row] for row, label in reversed(list(enumerate(labels.tolist())))}
    new = sorted(set(range(count)) - set(kept), key=lambda label: (-sizes[label], first[label]))
    given = {label: f"{prefix}-{highest_number + n}" for n, label in enumerate(new, 1)}
    cluster_ids = [kept.get(label) or given[label] for label in range(count)]

    former_sizes = Counter(former.values())
    events = []
    for label in new:
        source = int(shared[:, label].argmax()) if names else 0
        members = int(shared[source, label]) if names else 0
        if members and members >= LEAST_SHARE * sizes[label]:
            events.append(ClusterEvent("split", cluster_ids[label], names[source], members))
        else:
            events.append(ClusterEvent("born", cluster_ids[label], None, int(sizes[label])))
    for place, name in enumerate(names):
        if name in kept.values():
            continue
        into = int(shared[place].argmax()) if count else 0
        members = int(shared[place, into]) if count else 0
        if members and members >= LEAST_SHARE * surviving[place]:
            events.append(ClusterEvent("merged", name, cluster_ids[into], members))
        else:
            events.append(ClusterEvent("died", name, None, former_sizes[name]))
    return Matching(cluster_ids, events, highest_number + len(new))


def needs_rerun(new: int, clustered: int | None, rerun_share: float) -> bool:
    """Whether to cluster anew: never done, or this share of what was clustered is new.

    Args:
        new: vectors that came since the last clustering.
        clustered: vectors that there were then; None where there was none.
        rerun_share: from 0 (any new vector) on.
    """
    if clustered is None:
        return new > 0
    return new > 0 and new >= math.floor(rerun_share * clustered)
