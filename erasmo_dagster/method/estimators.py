"""scikit-learn's clustering, prepared once for any number of segments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import ClusteringSettings

Cut = Callable[[int], npt.NDArray[np.integer]]

NEIGHBORS = 10  # scikit-learn's default for spectral clustering
MAX_ITER = 300
# Peak bytes for each pair of rows, measured: SciPy's distances and its copy of them (each pair counts once); the
# factors of the sparse and of the dense Laplacian.
_PAIR_BYTES = {"agglomerative": 8, "nearest_neighbors": 12, "rbf": 40}


@dataclass(frozen=True)
class Partitioner:
    """``cut(k)`` gives a segment int[n] for each row, numbered as it comes; ``notes`` what the user should know."""

    cut: Cut
    notes: tuple[str, ...] = ()


def prepare(points: npt.NDArray[np.float32], settings: ClusteringSettings, *, seed: int, k_max: int) -> Partitioner:
    """What every ``cut`` of ``points`` float32[n, d] up to ``k_max`` < n shares: a tree, a graph's eigenvectors.

    Raises ErasmoError where the method works on pairs of rows and these do not fit in memory.
    """
    _check_memory(len(points), settings)
    if settings.method == "agglomerative":
        return _agglomerative(points, settings)
    if settings.method == "spectral":
        return _spectral(points, settings, seed, k_max)
    return _kmeans(points, settings, seed)


def _kmeans(points: npt.NDArray[np.float32], settings: ClusteringSettings, seed: int) -> Partitioner:
    """Lloyd's k-means from random rows or spread ones (Arthur and Vassilvitskii, 2007); the best of n_init starts."""
    from sklearn.cluster import KMeans

    init = "random" if settings.method == "kmeans" else "k-means++"

    def cut(k: int) -> npt.NDArray[np.integer]:
        model = KMeans(k, init=init, n_init=settings.n_init, max_iter=MAX_ITER, tol=0, random_state=seed)
        return np.asarray(model.fit(points).labels_)

    return Partitioner(cut)


def _agglomerative(points: npt.NDArray[np.float32], settings: ClusteringSettings) -> Partitioner:
    """Hierarchical clustering: one tree, cut for each k by leaving out its last k - 1 merges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.cluster import AgglomerativeClustering

    tree = AgglomerativeClustering(2, linkage=settings.linkage, compute_full_tree=True).fit(points)
    rows, merges = len(points), tree.children_

    def cut(k: int) -> npt.NDArray[np.integer]:
        kept = merges[: rows - k]
        parents = np.repeat(np.arange(rows, rows + len(kept)), 2)  # merge i makes node rows + i
        graph = coo_array((np.ones(len(parents)), (parents, kept.ravel())), shape=(2 * rows, 2 * rows))
        return np.asarray(connected_components(graph, directed=False)[1][:rows])

    return Partitioner(cut)


def _spectral(points: npt.NDArray[np.float32], settings: ClusteringSettings, seed: int, k_max: int) -> Partitioner:
    """Spectral clustering: k-means on the first k eigenvectors of the graph's Laplacian (Shi and Malik, 2000).

    As scikit-learn's SpectralClustering, but the eigenvectors are found once for all k.
    """
    from sklearn.cluster import KMeans
    from sklearn.manifold import spectral_embedding
    from sklearn.metrics.pairwise import rbf_kernel

    notes: tuple[str, ...] = ()
    if settings.affinity == "rbf":
        exact = points.astype(np.float64)
        affinity = rbf_kernel(exact, gamma=_gamma(exact, seed))
    else:
        affinity, notes = _neighbor_graph(points)
    maps = spectral_embedding(affinity, n_components=k_max, drop_first=False, random_state=seed)

    def cut(k: int) -> npt.NDArray[np.integer]:
        return np.asarray(KMeans(k, n_init=settings.n_init, random_state=seed).fit(maps[:, :k]).labels_)

    return Partitioner(cut, notes)


def _neighbor_graph(points: npt.NDArray[np.float32]) -> tuple[object, tuple[str, ...]]:
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


def _gamma(points: npt.NDArray[np.float64], seed: int) -> float:
    """The kernel's 1 / (2 m^2), m the median distance of two different rows, of at most 1,000 rows.

    scikit-learn's default of 1 leaves rows of hundreds of dimensions without any similarity.
    """
    from scipy.spatial.distance import pdist

    rows = np.random.default_rng(seed).permutation(len(points))[:1000]
    squared = pdist(points[rows], "sqeuclidean")
    squared = squared[squared > 0]
    # Where the sampled rows are all alike, the mean over all pairs.
    typical = np.median(squared) if squared.size else 2 * points.var(axis=0).sum()
    return float(1 / (2 * typical))


def _check_memory(rows: int, settings: ClusteringSettings) -> None:
    """Refuse what would not fit, since the system kills a process for it without a word."""
    import psutil

    kind = settings.affinity if settings.method == "spectral" else settings.method
    needed, free = _PAIR_BYTES.get(kind, 0) * rows**2, psutil.virtual_memory().available
    if needed > free:
        raise ErasmoError(
            f"Got {rows} rows for clustering.method={settings.method}, which needs about {needed / 2**30:.1f} GiB",
            expected=f"at most the {free / 2**30:.1f} GiB of memory that are free",
            fix="set clustering.method to kmeans++, which needs no pairs of rows",
        )
