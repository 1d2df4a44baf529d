"""Clusters: planted ones are found, ids stay, what became of a cluster is told."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from loreline.evaluation.clusters import (
    OUTLIER,
    ClusterEvent,
    ClusteringConfiguration,
    Neighbourhood,
    cluster,
    match_clusters,
    needs_rerun,
)
from loreline.evaluation.vectors import weighted_means

CONFIGURATION = ClusteringConfiguration(min_cluster_size=10, min_samples=3, resamples=3)
DIMENSIONS = 64


def near(center, count, seed, spread=0.03):
    """Vectors of length 1 around the unit vector with this number."""
    random = np.random.default_rng([seed, center])
    axis = np.random.default_rng(center).normal(size=DIMENSIONS)
    vectors = axis / np.linalg.norm(axis) + spread * random.normal(size=(count, DIMENSIONS))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def planted(*sizes, seed=0):
    """Ids that name their cluster, and vectors: a cluster of each size."""
    ids = [f"{name}-{seed}-{n:04}" for name, size in enumerate(sizes) for n in range(size)]
    return ids, np.concatenate([near(name, size, seed) for name, size in enumerate(sizes)])


def truth(ids):
    return [int(name.split("-")[0]) for name in ids]


def named(found, former=None, highest_number=0):
    """The cluster id of each member, outliers left out; and the matching."""
    matching = match_clusters(
        former or {}, found.ids, found.labels, prefix="c", highest_number=highest_number
    )
    members = zip(found.ids, found.labels.tolist(), strict=True)
    ids = {name: matching.cluster_ids[label] for name, label in members if label != OUTLIER}
    return ids, matching


def majority(members, name):
    """The cluster id that most members of a planted cluster have."""
    counts = Counter(c for member, c in members.items() if truth([member]) == [name])
    return counts.most_common(1)[0][0]


@pytest.mark.parametrize("sizes", [(60, 60), (200, 30, 90, 15), tuple([40] * 12)])
def test_planted_clusters_are_found_again(sizes):
    ids, vectors = planted(*sizes)
    found = cluster(ids, vectors, CONFIGURATION)
    assert adjusted_rand_score(truth(found.ids), found.labels) > 0.9
    assert len(found.centroids) == len(found.reaches) == len(sizes)
    assert found.outlier_share < 0.1
    assert found.stability is not None and found.stability > 0.9
    assert np.isfinite(found.distances).all() and np.isfinite(found.points).all()


def test_what_is_alone_is_an_outlier_and_noise_is_less_stable():
    ids, vectors = planted(60, 60)
    stray = -vectors.mean(axis=0, keepdims=True)
    stray /= np.linalg.norm(stray)
    found = cluster([*ids, "9-stray"], np.concatenate([vectors, stray]), CONFIGURATION)
    assert found.labels[found.ids.index("9-stray")] == OUTLIER
    noise = np.random.default_rng(5).normal(size=(120, DIMENSIONS)).astype(np.float32)
    noise /= np.linalg.norm(noise, axis=1, keepdims=True)
    loose = cluster(ids, noise, CONFIGURATION)
    assert found.stability > 0.9 and (loose.stability or 0) < 0.5


@given(seed=st.integers(0, 2**16))
def test_the_order_of_the_vectors_does_not_matter(seed):
    ids, vectors = planted(30, 20, 25)
    order = np.random.default_rng(seed).permutation(len(ids))
    one = cluster(ids, vectors, CONFIGURATION)
    other = cluster([ids[row] for row in order], vectors[order], CONFIGURATION)
    assert one.ids == other.ids
    for name in ("labels", "points", "centroids", "reaches", "distances"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert one.stability == other.stability
    assert named(one)[1] == named(other)[1]


SCRIPT = """
import hashlib
from tests.unit.test_clusters import *
found = cluster(*planted(50, 40, 30, seed=3), CONFIGURATION)
parts = [found.labels.tobytes(), found.points.tobytes(), found.distances.tobytes()]
print(hashlib.sha256(b"".join(parts)).hexdigest(), found.stability, named(found)[1])
"""


def test_two_processes_find_the_same():
    outputs = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True
        ).stdout
        for _ in range(2)
    }
    assert len(outputs) == 1
    assert "c-3" in outputs.pop()


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [
        (np.zeros((0, 8)), []),
        (np.eye(8)[:1], [OUTLIER]),
        (np.eye(8)[:2], [OUTLIER] * 2),
        (np.tile(np.eye(8)[0], (3, 1)), [OUTLIER] * 3),
        (np.tile(np.eye(8)[0], (30, 1)), [0] * 30),
        (np.repeat(np.eye(8)[:2], 20, axis=0), [0] * 20 + [1] * 20),
    ],
    ids=["none", "one", "two", "too few", "all equal", "two spots"],
)
def test_few_or_equal_vectors(vectors, labels):
    found = cluster([f"{n:02}" for n in range(len(vectors))], vectors, CONFIGURATION)
    first = next((label for label in found.labels if label != OUTLIER), 0)
    assert [abs(label - first) if label != OUTLIER else label for label in found.labels] == labels
    assert np.isfinite(found.points).all() and np.isfinite(found.reaches).all()
    assert np.isnan(found.distances).all() == (not len(found.centroids))
    assert found.stability is None or np.isfinite(found.stability)
    assert 0 <= found.outlier_share <= 1
    # What is equal to members is one; what is far is none.
    again, _ = neighbourhood(found).assign(found.reduction.points(vectors))
    assert again.tolist() == found.labels.tolist()
    if max(labels, default=OUTLIER) >= 0 and found.points.shape[1]:
        far = neighbourhood(found).assign(found.points[:1] + 5)[0]
        assert far.tolist() == [OUTLIER]


def neighbourhood(found):
    inside = found.labels != OUTLIER
    return Neighbourhood(found.points[inside], found.labels[inside], found.centroids, found.reaches)


def test_others_are_added_to_the_cluster_that_they_are_near():
    found = cluster(*planted(120, 80, 50), CONFIGURATION)
    ids, vectors = planted(40, 40, 40, seed=1)
    labels, distances = neighbourhood(found).assign(found.reduction.points(vectors))
    assert adjusted_rand_score(truth(ids), labels) > 0.8
    assert np.isfinite(distances).all()
    strange = found.reduction.points(near(50, 40, 0))
    labels, _ = neighbourhood(found).assign(strange)
    assert (labels == OUTLIER).all()


class TestIdsStay:
    def test_under_shuffling_and_a_tenth_more_members(self):
        former, _ = named(cluster(*planted(60, 50, 40), CONFIGURATION))
        assert set(former.values()) == {"c-1", "c-2", "c-3"}
        ids, vectors = planted(60, 50, 40)
        more, their_vectors = planted(6, 5, 4, seed=1)
        grown = cluster([*more, *ids], np.concatenate([their_vectors, vectors]), CONFIGURATION)
        now, matching = named(grown, former, 3)
        assert matching.events == []
        assert matching.highest_number == 3
        assert {name: now[name] for name in former if name in now} == {
            name: former[name] for name in former if name in now
        }
        for name in range(3):
            assert majority(now, name) == majority(former, name)

    def test_a_new_cluster_gets_a_number_that_was_never_given(self):
        former, _ = named(cluster(*planted(60, 50), CONFIGURATION))
        now, matching = named(cluster(*planted(60, 50, 40), CONFIGURATION), former, 7)
        assert majority(now, 0) == majority(former, 0)
        assert majority(now, 2) == "c-8"
        assert [(e.event, e.cluster_id) for e in matching.events] == [("born", "c-8")]
        assert matching.highest_number == 8


def matched(former, now):
    """The matching of clusters given as text: a letter per member, `.` for an outlier or none."""
    ids = [f"{n:03}" for n in range(len(now)) if now[n] != " "]
    letters = sorted(set(now) - {".", " "})
    labels = np.array([letters.index(a) if a != "." else OUTLIER for a in now if a != " "], int)
    members = {f"{n:03}": a for n, a in enumerate(former) if a not in ". "}
    matching = match_clusters(members, ids, labels, prefix="n", highest_number=0)
    return dict(zip(letters, matching.cluster_ids, strict=True)), matching.events


@pytest.mark.parametrize(
    ("why", "former", "now", "ids", "events"),
    [
        ("the same", "AAAABBB.", "xxxxyyy.", {"x": "A", "y": "B"}, []),
        ("a merge", "AAAABBBB..", "xxxxxxxxx.", {"x": "A"}, [("merged", "B", "A", 4)]),
        ("of unequal ones", "AAABBBB", "xxxxxxx", {"x": "B"}, [("merged", "A", "B", 3)]),
        ("a split", "AAAAAAA", "xxxxyyy", {"x": "A", "y": "n-1"}, [("split", "n-1", "A", 3)]),
        ("a birth", "AAAA....", "xxxxyyyy", {"x": "A", "y": "n-1"}, [("born", "n-1", None, 4)]),
        ("a death", "AAAABBBB", "xxxx....", {"x": "A"}, [("died", "B", None, 4)]),
        ("all gone", "AAAA", "    ", {}, [("died", "A", None, 4)]),
        ("nothing before", "", "xxyyy", {"x": "n-2", "y": "n-1"}, [
            ("born", "n-1", None, 3), ("born", "n-2", None, 2),
        ]),
        ("some of it is an outlier now", "AAAAAA", "xxx...", {"x": "A"}, []),
        ("too little in common", "AAAAAAAA..........", "........xxxxxxxxxx", {"x": "n-1"}, [
            ("born", "n-1", None, 10), ("died", "A", None, 8),
        ]),
        ("a member that is gone does not count", "AAAAAAAA", "xx      ", {"x": "A"}, []),
        ("a swap of most members", "AAAAABBBBB", "yxxxxxyyyy", {"x": "A", "y": "B"}, []),
    ],
)  # fmt: skip
def test_what_became_of_clusters(why, former, now, ids, events):
    found, happened = matched(former, now)
    assert found == ids, why
    assert happened == [ClusterEvent(*event) for event in events], why


@given(
    st.lists(st.tuples(st.sampled_from("ABCD."), st.sampled_from("wxyz. ")), max_size=40),
    st.integers(0, 5),
)
def test_every_cluster_is_accounted_for(members, highest):
    former = {f"{n:02}": a for n, (a, _) in enumerate(members) if a != "."}
    ids = [f"{n:02}" for n, (_, b) in enumerate(members) if b != " "]
    letters = sorted({b for _, b in members} - {".", " "})
    labels = np.array(
        [letters.index(b) if b != "." else OUTLIER for _, b in members if b != " "], int
    )
    matching = match_clusters(former, ids, labels, prefix="n", highest_number=highest)
    assert len(set(matching.cluster_ids)) == len(matching.cluster_ids) == len(letters)
    ended = {e.cluster_id for e in matching.events if e.event in ("merged", "died")}
    begun = {e.cluster_id for e in matching.events if e.event in ("born", "split")}
    before = set(former.values())
    assert set(matching.cluster_ids) == (before - ended) | begun
    assert not begun & before
    assert matching.highest_number == highest + len(begun)


def test_everything_is_clustered_anew_when_enough_is_new():
    assert needs_rerun(1, None, 0.1) and not needs_rerun(0, None, 0.1)
    assert not needs_rerun(0, 100, 0.0)
    assert needs_rerun(10, 100, 0.1) and not needs_rerun(9, 100, 0.1)
    assert needs_rerun(1, 3, 0.1)


class TestWeightedMeans:
    def test_by_length_and_scaled(self):
        owners = np.array([3, 3, 7])
        weights = np.array([3, 4, 9])
        vectors = np.array([[1, 0], [0, 1], [0, 2]], np.float32)
        found, means = weighted_means(owners, weights, vectors)
        assert found.tolist() == [3, 7]
        assert np.allclose(means, [[0.6, 0.8], [0, 1]])
        assert means.dtype == np.float32

    def test_what_cancels_out_is_left_out(self):
        vectors = np.array([[1, 0], [-1, 0], [0, 1]], np.float32)
        found, means = weighted_means(np.array([0, 0, 1]), np.array([2, 2, 1]), vectors)
        assert found.tolist() == [1]
        assert np.allclose(means, [[0, 1]])

    def test_nothing(self):
        found, means = weighted_means(np.array([], int), np.array([], int), np.zeros((0, 4)))
        assert len(found) == 0 and means.shape == (0, 4)
