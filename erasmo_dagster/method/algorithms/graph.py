"""Spectral clustering."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.algorithms import micro
from erasmo_dagster.method.algorithms.base import Cut, Partitioner, Points, StructureError
from erasmo_dagster.method.neighbors import nearest
from erasmo_dagster.method.threads import one_thread
from erasmo_dagster.settings import ClusteringSettings

Doubles = npt.NDArray[np.float64]

NEIGHBORS = 10  # scikit-learn's default for spectral clustering
# Of many rows: how many landmarks there are, and with how many of them a row is linked (the paper's number).
LANDMARKS = {"nearest_neighbors": 2_000, "rbf": 1_000}
NEAREST = 5
_CHUNK = 4096  # rows whose weights are held at a time
_NO_VALUE = 1e-12  # an eigenvalue below is rounding


def spectral(points: Points, settings: ClusteringSettings, seed: int, k_max: int) -> Partitioner:
    """Spectral clustering: segments from the first k eigenvectors of the graph's Laplacian (Shi and Malik, 2000).

    As scikit-learn's SpectralClustering, but the eigenvectors are found once for all k. They become segments by
    k-means, by the nearest partition matrix (Yu and Shi, 2003) or by a pivoted QR (Damle, Minden and Ying, 2019).
    Beyond EXACT_ROWS rows the graph is of rows and landmarks, see :func:`landmark_maps`.
    """
    if len(points) > micro.EXACT_ROWS:
        return _by_landmarks(points, settings, seed, k_max)
    from sklearn.manifold import spectral_embedding
    from sklearn.metrics.pairwise import rbf_kernel

    notes: tuple[str, ...] = ()
    if settings.affinity == "rbf":
        exact = points.astype(np.float64)
        affinity = rbf_kernel(exact, gamma=_gamma(exact, seed))
    else:
        affinity, notes = _neighbor_graph(points)
    maps = spectral_embedding(affinity, n_components=k_max, drop_first=False, random_state=seed)

    def cut(k: int) -> Cut:
        return Cut(_segments(maps[:, :k], k, settings, seed))

    return Partitioner(cut, "rows", notes)


def _by_landmarks(points: Points, settings: ClusteringSettings, seed: int, k_max: int) -> Partitioner:
    groups = micro.grouped(points, LANDMARKS[settings.affinity], seed)
    with one_thread():  # several threads add up in another order
        weights = _kernel(points, groups, seed) if settings.affinity == "rbf" else _nearest_landmarks(points, groups)
        maps = landmark_maps(len(points), weights, k_max)
    note = (
        f"There are {len(points):,} rows, and spectral works on pairs of them up to {micro.EXACT_ROWS:,}: its graph "
        f"is of rows and {len(groups.means):,} landmarks, means of groups of near rows."
    )
    return Partitioner(lambda k: Cut(_segments(maps[:, :k], k, settings, seed)), "rows", (note,))


def landmark_maps(rows: int, weights: Callable[[slice], Any], count: int) -> Doubles:
    """The first ``count`` eigenvectors float64[n, count] of a graph in which ``rows`` meet at landmarks.

    ``weights`` gives some of the rows' weights on each of m landmarks, [rows, m], each row's adding up to 1; rows are
    as near as they have landmarks in common, over how much weight these have in all. Landmark-based spectral clustering
    (Chen and Cai, 2011, AAAI): the eigenvectors are those of an m x m matrix, and only some rows' weights are held.
    """
    from scipy.linalg import eigh

    parts = [slice(start, start + _CHUNK) for start in range(0, rows, _CHUNK)]
    product = reduce(np.add, (_dense(own.T @ own) for own in map(weights, parts)))
    total = np.asarray(product.sum(axis=0))  # of each landmark, as every row's weights add up to 1
    scale = 1 / np.sqrt(np.where(total > 0, total, 1.0))
    size = len(total)
    values, vectors = eigh(product * scale * scale[:, None], subset_by_index=(max(size - count, 0), size - 1))
    lead = scale[:, None] * vectors[:, ::-1] / np.sqrt(np.maximum(values[::-1], _NO_VALUE))
    maps = np.zeros((rows, count))
    for part in parts:
        maps[part, : lead.shape[1]] = weights(part) @ lead
    return maps


def _dense(matrix: Any) -> Doubles:
    return np.asarray(matrix if isinstance(matrix, np.ndarray) else matrix.toarray(), dtype=np.float64)


def _nearest_landmarks(points: Points, groups: micro.Groups) -> Callable[[slice], Any]:
    """Weights on each row's NEAREST landmarks, by a Gaussian kernel as wide as the farthest of these is on average."""
    from scipy.sparse import csr_array

    places, apart = nearest(points, groups.means, NEAREST)
    width = max(float(apart[:, -1].mean()), float(np.finfo(np.float32).tiny))
    shares = np.exp(-((apart / width) ** 2) / 2)
    shares = np.where(shares.sum(axis=1, keepdims=True) > 0, shares, 1.0)  # a row far from all landmarks
    shares /= shares.sum(axis=1, keepdims=True)

    def weights(part: slice) -> Any:
        own = places[part]
        ends = np.arange(0, own.size + 1, own.shape[1])
        return csr_array((shares[part].ravel(), own.ravel(), ends), shape=(len(own), len(groups.means)))

    return weights


def _kernel(points: Points, groups: micro.Groups, seed: int) -> Callable[[slice], Any]:
    """Weights on all landmarks, by the Gaussian kernel of :func:`_gamma` and the rows that each stands for."""
    gamma, landmarks = _gamma(points, seed), groups.means.astype(np.float64)
    lengths, logs = np.einsum("ij,ij->i", landmarks, landmarks), np.log(groups.sizes)

    def weights(part: slice) -> Any:
        # The row's own length is the same for all landmarks, and the largest weight is made 1: no row is 0 throughout.
        near = logs - gamma * (lengths - 2 * (points[part].astype(np.float64) @ landmarks.T))
        near = np.exp(near - near.max(axis=1, keepdims=True))
        return near / near.sum(axis=1, keepdims=True)

    return weights


def _segments(
    maps: npt.NDArray[np.float64], k: int, settings: ClusteringSettings, seed: int
) -> npt.NDArray[np.integer]:
    from sklearn.cluster import KMeans
    from sklearn.cluster._spectral import cluster_qr, discretize

    if settings.assign_labels == "kmeans":
        return np.asarray(KMeans(k, n_init=settings.n_init, random_state=seed).fit(maps).labels_)
    if settings.assign_labels == "cluster_qr":
        return np.asarray(cluster_qr(maps))
    try:
        # It divides by the length of a row's entries, 0 in a piece of the graph that these eigenvectors leave out, and
        # prints what it raises.
        with np.errstate(invalid="ignore", divide="ignore"), redirect_stdout(io.StringIO()):
            return np.asarray(discretize(maps, random_state=seed))
    except np.linalg.LinAlgError as error:
        raise StructureError(
            f"Got no partition for k={k} from clustering.assign_labels=discretize",
            expected="eigenvectors that no row is 0 in",
            fix="set clustering.assign_labels to kmeans, or clustering.affinity to rbf",
        ) from error


def _neighbor_graph(points: Points) -> tuple[object, tuple[str, ...]]:
    """Sparse weights of which row is among another's nearest, each way counting half; and a note if it falls apart."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import kneighbors_graph

    neighbors = min(NEIGHBORS, len(points) - 1)
    graph = kneighbors_graph(points, neighbors, include_self=True)
    affinity = 0.5 * (graph + graph.T)
    pieces = connected_components(affinity, directed=False, return_labels=False)
    if pieces == 1:
        return affinity, ()
    note = (
        f"The graph of each row's {neighbors} nearest neighbours is in {pieces} pieces, and spectral clustering cuts "
        "along these first: where segments are tiny, set clustering.affinity to rbf."
    )
    return affinity, (note,)


def _gamma(points: npt.NDArray[np.floating], seed: int) -> float:
    """The kernel's 1 / (2 m^2), m the median distance of two different rows, of at most 1,000 rows.

    scikit-learn's default of 1 leaves rows of hundreds of dimensions without any similarity.
    """
    from scipy.spatial.distance import pdist

    rows = np.random.default_rng(seed).permutation(len(points))[:1000]
    squared = pdist(points[rows].astype(np.float64), "sqeuclidean")
    squared = squared[squared > 0]
    # Where the sampled rows are all alike, the mean over all pairs.
    typical = np.median(squared) if squared.size else 2 * points.var(axis=0, dtype=np.float64).sum()
    return float(1 / (2 * typical))
