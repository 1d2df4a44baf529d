"""Clustering of trajectories' vectors: reduction, HDBSCAN, stability, and those added afterwards.

    python -m benchmarks.clusters [--vectors 20000] [--dimensions 384] [--json FILE]

Vectors of length 1 around planted centres, a tenth of them around none. What was planted has to be
found again (ARI above 0.9 among what is in a cluster), and ten times as many vectors are added to
the clusters. The reference is HDBSCAN alone over the reduced vectors.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import adjusted_rand_score

from loreline.evaluation.clusters import (
    OUTLIER,
    ClusteringConfiguration,
    Neighbourhood,
    cluster,
    labels_of,
    match_clusters,
)
from loreline.settings import PROJECT_ROOT

CLUSTERS = 60
SPREAD = 0.6
SECONDS_WANTED = 180


def planted(count: int, dimensions: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1, shape (count, dimensions), and the centre of each, or OUTLIER."""
    centres = np.random.default_rng(0).normal(size=(CLUSTERS, dimensions))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    random = np.random.default_rng(seed)
    labels = random.integers(0, CLUSTERS, count)
    noise = random.normal(size=(count, dimensions)) / np.sqrt(dimensions)
    vectors = centres[labels] + SPREAD * noise
    strays = random.random(count) < 0.1
    vectors[strays] = noise[strays]
    labels[strays] = OUTLIER
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), labels


def configuration() -> ClusteringConfiguration:
    """The first row of the seed, with the clusters' size for so many vectors."""
    seed = PROJECT_ROOT / "seeds" / "clustering_configurations.csv"
    with seed.open() as file:
        row = next(csv.DictReader(file))
    return ClusteringConfiguration(
        pca_dimensions=int(row["pca_dimensions"]),
        min_cluster_size=25,
        min_samples=10,
        reach_quantile=float(row["reach_quantile"]),
        random_seed=int(row["random_seed"]),
        resamples=int(row["resamples"]),
    )


def main() -> None:
    """Print the figures, and fail where what was planted was not found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vectors", type=int, default=20_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    settings = configuration()
    vectors, truth = planted(arguments.vectors, arguments.dimensions, 1)
    ids = [f"{number:09}" for number in range(len(vectors))]
    started = time.perf_counter()
    found = cluster(ids, vectors, settings)
    seconds = time.perf_counter() - started

    started = time.perf_counter()
    labels_of(found.points, settings.min_cluster_size, settings.min_samples)
    alone = time.perf_counter() - started

    inside = (found.labels != OUTLIER) & (truth != OUTLIER)
    agreement = adjusted_rand_score(truth[inside], found.labels[inside])
    former = {ids[row]: f"c-{found.labels[row]}" for row in np.flatnonzero(inside)}
    started = time.perf_counter()
    match_clusters(former, found.ids, found.labels, prefix="c", highest_number=1_000)
    matching = time.perf_counter() - started

    inside = found.labels != OUTLIER
    neighbourhood = Neighbourhood(
        found.points[inside], found.labels[inside], found.centroids, found.reaches
    )
    added, added_truth = 0.0, []
    for part in range(10):
        others, centres = planted(arguments.vectors, arguments.dimensions, 2 + part)
        started = time.perf_counter()
        labels, _ = neighbourhood.assign(found.reduction.points(others))
        added += time.perf_counter() - started
        both = (labels != OUTLIER) & (centres != OUTLIER)
        added_truth.append(adjusted_rand_score(centres[both], labels[both]))

    figures = {
        "vectors": arguments.vectors,
        "dimensions": arguments.dimensions,
        "seconds": round(seconds, 2),
        "seconds of one HDBSCAN": round(alone, 2),
        "clusters": len(found.centroids),
        "planted": CLUSTERS,
        "outlier share": round(found.outlier_share, 3),
        "stability": None if found.stability is None else round(found.stability, 3),
        "ARI with what was planted": round(float(agreement), 3),
        "seconds of matching ids": round(matching, 3),
        "seconds for ten times as many added": round(added, 2),
        "least ARI of those added": round(float(min(added_truth)), 3),
        "memory in GB": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(f"wanted: less than {SECONDS_WANTED} s for 20,000 × 384 on 2 cores")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    assert agreement > 0.9, "what was planted was not found"


if __name__ == "__main__":
    main()
