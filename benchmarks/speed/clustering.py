"""Seconds and memory of clustering and its figures as rows grow, and how near clusterings of groups come to exact ones.

Rows have 64 dimensions and ten planted groups that overlap. Every measurement is in a process of its own: its peak is
of that alone, with the vectors and the libraries in it.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.quality.memory import Peak
from erasmo_dagster.method.algorithms import Partitioner, micro, prepare
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.quality import internal_metrics
from erasmo_dagster.settings import ClusteringSettings

Floats = npt.NDArray[np.float32]

WIDTH, K = 64, 10
ROWS = {
    "quick": (10_000, 100_000),
    "default": (10_000, 100_000, 1_000_000),
    "full": (10_000, 100_000, 1_000_000),
}
# Rows up to which each is measured, by effort; the methods of pairs of rows are exact at the first of these sizes.
_MOST = {"quick": 100_000, "default": 100_000, "full": 1_000_000}
_EVERYWHERE = ("kmeans", "scikit-learn KMeans", "internal_metrics")
METHODS: dict[str, dict[str, Any]] = {
    "kmeans": {"method": "kmeans", "n_init": 1},
    "agglomerative": {"method": "agglomerative"},
    "spectral": {"method": "spectral", "n_init": 1},
    "gaussian_mixture": {"method": "gaussian_mixture", "n_init": 1},
}
CLOSE_ROWS = {"quick": 3_000, "default": 5_000, "full": 12_000}
CLOSE_SEEDS = {"quick": 1, "default": 3, "full": 5}
_CLOSE: dict[str, dict[str, Any]] = {
    "agglomerative, ward": {"method": "agglomerative"},
    "agglomerative, average": {"method": "agglomerative", "linkage": "average"},
    "spectral, nearest_neighbors": {"method": "spectral"},
    "spectral, rbf": {"method": "spectral", "affinity": "rbf"},
}
_LEFT_OUT = 10  # one row in so many


def measure(effort: str, seed: int) -> dict[str, Any]:
    """``scale``: engine -> rows -> ``seconds``, ``peak_mb``; ``closeness``: shape -> method -> figures.

    Of closeness: ``ari`` of segments drawn of groups of rows with the exact ones (medians over seeds), ``itself`` that
    of exact segments of nine tenths of the rows, ``within`` the sum of squares within segments over that of the exact
    ones. ``effort`` quick ends at 100 thousand rows, default at a million for k-means and figures, full for all.
    """
    engines = [*METHODS, *_EVERYWHERE[1:]]
    scale: dict[str, dict[str, dict[str, float]]] = {name: {} for name in engines}
    for rows in ROWS[effort]:
        for name in engines:
            if rows <= _MOST[effort] or name in _EVERYWHERE:
                scale[name][str(rows)] = _alone(name, rows, seed)
    return {"scale": scale, "closeness": closeness(CLOSE_ROWS[effort], CLOSE_SEEDS[effort], seed)}


def planted(rows: int, seed: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Vectors float32[rows, 64] of ten overlapping groups, and the group int64[rows] of each."""
    rng = np.random.default_rng(seed)
    centers = 0.7 * rng.standard_normal((K, WIDTH), dtype=np.float32)
    group = rng.integers(0, K, rows)
    vectors = rng.standard_normal((rows, WIDTH), dtype=np.float32)
    for start in range(0, rows, 8192):
        vectors[start : start + 8192] += centers[group[start : start + 8192]]
    return vectors, group


def _alone(name: str, rows: int, seed: int) -> dict[str, float]:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_measured, name, rows, seed).result()


def _measured(name: str, rows: int, seed: int) -> dict[str, float]:
    vectors, group = planted(rows, seed)
    for warm in (True, False):  # the first call loads libraries
        own, labels = (vectors[:500], group[:500]) if warm else (vectors, group)
        started = time.monotonic()
        with Peak() as peak:
            _run(name, own, labels, seed)
        seconds = time.monotonic() - started
    return {"seconds": round(seconds, 2), "peak_mb": round(peak.mb, 1)}


def _run(name: str, vectors: Floats, labels: npt.NDArray[np.int64], seed: int) -> None:
    if name == "internal_metrics":
        internal_metrics(vectors, labels, max_rows=5_000, seed=seed)
    elif name in METHODS:
        cluster(vectors, ClusteringSettings(k=K, **METHODS[name]), seed=seed)
    else:
        from sklearn.cluster import KMeans

        KMeans(K, init="random", n_init=1, max_iter=300, tol=0, random_state=seed).fit(vectors)


def closeness(rows: int, seeds: int, seed: int) -> dict[str, dict[str, dict[str, float]]]:
    """How near segments of groups come to exact ones, of ``rows`` rows: overlapping groups, blobs, and two moons."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for shape in ("groups", "blobs", "moons"):
        for name, options in _CLOSE.items():
            drawn = [_compared(_shape(shape, rows, seed + s), options, seed + s) for s in range(seeds)]
            medians = {figure: round(statistics.median(one[figure] for one in drawn), 3) for figure in drawn[0]}
            found.setdefault(shape, {})[name] = medians
    return found


def _shape(shape: str, rows: int, seed: int) -> tuple[Floats, int]:
    """Vectors of a shape, and how many segments to draw."""
    from sklearn.datasets import make_blobs, make_moons

    if shape == "groups":
        return planted(rows, seed)[0], K
    if shape == "blobs":
        return make_blobs(rows, n_features=16, centers=8, cluster_std=4.0, random_state=seed)[0].astype(np.float32), 8
    return make_moons(rows, noise=0.08, random_state=seed)[0].astype(np.float32), 2


def _compared(given: tuple[Floats, int], options: dict[str, Any], seed: int) -> dict[str, float]:
    from sklearn.metrics import adjusted_rand_score

    vectors, k = given
    vectors = vectors - vectors.mean(axis=0)
    settings = ClusteringSettings(k=k, n_init=3, **options) if "spectral" in options.values() else None
    settings = settings or ClusteringSettings(k=k, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        exact = prepare(vectors, settings, seed=seed, k_max=k).cut(k).labels
        kept = np.flatnonzero(np.random.default_rng(seed).permutation(len(vectors)) % _LEFT_OUT)
        again = prepare(vectors[kept], settings, seed=seed, k_max=k).cut(k).labels
    near = _of_groups(vectors, settings, k, seed).cut(k).labels
    return {
        "ari": float(adjusted_rand_score(exact, near)),
        "itself": float(adjusted_rand_score(exact[kept], again)),
        "within": _within(vectors, near) / _within(vectors, exact),
    }


def _of_groups(vectors: Floats, settings: ClusteringSettings, k: int, seed: int) -> Partitioner:
    """As of more rows than are drawn exactly."""
    most, micro.EXACT_ROWS = micro.EXACT_ROWS, 0
    try:
        return prepare(vectors, settings, seed=seed, k_max=k)
    finally:
        micro.EXACT_ROWS = most


def _within(vectors: Floats, labels: npt.NDArray[np.integer]) -> float:
    parts = (vectors[labels == label] for label in np.unique(labels))
    return float(sum(np.square(part - part.mean(axis=0)).sum(dtype=np.float64) for part in parts))
