"""More rows than pairs of them can be held of: trees and graphs of groups of near rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.cluster import AgglomerativeClustering
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score

from erasmo_dagster.method.algorithms import graph, micro, tree
from erasmo_dagster.method.algorithms.tree import weighted_tree
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.segment_model import NearestRow
from erasmo_dagster.settings import ClusteringSettings

WAYS: list[dict[str, Any]] = [
    {"method": "agglomerative", "linkage": "ward"},
    {"method": "agglomerative", "linkage": "complete"},
    {"method": "agglomerative", "linkage": "average"},
    {"method": "spectral", "n_init": 1},
    {"method": "spectral", "affinity": "rbf", "assign_labels": "cluster_qr"},
]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(micro, "EXACT_ROWS", 500)
    monkeypatch.setattr(tree, "GROUPS", 60)
    monkeypatch.setattr(graph, "LANDMARKS", {"nearest_neighbors": 60, "rbf": 60})
    monkeypatch.setattr(psutil, "virtual_memory", lambda: pytest.fail("asked for memory for pairs of rows"))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_planted_groups_are_found_and_the_user_is_told(way: dict[str, Any]) -> None:
    vectors, planted = make_blobs((500, 300, 100), n_features=6, random_state=1)
    vectors = np.concatenate([vectors, vectors[:20]]).astype(np.float32)  # some rows twice
    result = cluster(vectors, ClusteringSettings(k=3, **way), seed=0)
    assert adjusted_rand_score([*planted, *planted[:20]], result.labels) > 0.98
    assert "There are 920 rows" in result.notes[0]
    assert result.labels[:20].tolist() == result.labels[900:].tolist()
    again = cluster(vectors, ClusteringSettings(k=3, **way), seed=0)
    assert again.labels.tobytes() == result.labels.tobytes()
    rule = result.model.rule
    assert isinstance(rule, NearestRow)
    assert (len(rule.references) <= 60) == (way["method"] == "agglomerative")
    assert result.model.place(vectors).labels.tolist() == result.labels.tolist()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values())))
def test_rows_of_few_values_are_segments_of_these(way: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of fewer values than groups, and of which a sample of the rows lacks some."""
    monkeypatch.setattr(micro, "_SAMPLE", 50)
    values = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    which = np.sort(np.append(np.arange(920) % 3, [3, 4, 5]))
    vectors = values[np.random.default_rng(1).permutation(which)]
    for k in (5, 6):
        result = cluster(vectors, ClusteringSettings(k=k, **way), seed=0)
        assert result.k == k
        assert len({(*row, label) for row, label in zip(vectors.tolist(), result.labels, strict=True)}) == 6
    assert len(np.unique(tree._cut(weighted_tree(values, np.ones(6, dtype=int), "ward"), 9))) == 6


def test_landmarks_follow_shapes_that_have_no_centre() -> None:
    vectors, planted = make_moons(1500, noise=0.05, random_state=0)
    result = cluster(vectors.astype(np.float32), ClusteringSettings(method="spectral", k=2), seed=0)
    assert adjusted_rand_score(planted, result.labels) > 0.98


@pytest.mark.parametrize("linkage", ["ward", "complete", "average"])
def test_a_tree_of_weighted_groups_is_that_of_their_rows(linkage: str) -> None:
    rng = np.random.default_rng(0)
    means, sizes = rng.normal(size=(80, 3)).astype(np.float32), rng.integers(1, 6, 80)
    rows = np.repeat(np.arange(80), sizes)
    merges = weighted_tree(means, sizes, linkage)
    for k in (2, 5, 12):
        exact = AgglomerativeClustering(k, linkage=linkage).fit_predict(means[rows].astype(np.float64))
        assert adjusted_rand_score(exact, tree._cut(merges, k)[rows]) == 1


def test_stray_rows_do_not_make_the_average_linkage_of_groups() -> None:
    """Means of many rows lie nearer to each other than the rows do, and then a row alone is the farthest of all."""
    rng = np.random.default_rng(3)
    planted = rng.integers(0, 4, 3000)
    vectors = (0.7 * rng.normal(size=(4, 48))[planted] + rng.normal(size=(3000, 48))).astype(np.float32)
    result = cluster(vectors, ClusteringSettings(method="agglomerative", linkage="average", k=4), seed=0)
    assert adjusted_rand_score(planted, result.labels) > 0.7
