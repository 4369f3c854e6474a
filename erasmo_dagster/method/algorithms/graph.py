"""Spectral clustering."""

from __future__ import annotations

import io
from contextlib import redirect_stdout

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.algorithms.base import Cut, Partitioner, Points, StructureError
from erasmo_dagster.settings import ClusteringSettings

NEIGHBORS = 10  # scikit-learn's default for spectral clustering


def spectral(points: Points, settings: ClusteringSettings, seed: int, k_max: int) -> Partitioner:
    """Spectral clustering: segments from the first k eigenvectors of the graph's Laplacian (Shi and Malik, 2000).

    As scikit-learn's SpectralClustering, but the eigenvectors are found once for all k. They become segments by
    k-means, by the nearest partition matrix (Yu and Shi, 2003) or by a pivoted QR (Damle, Minden and Ying, 2019).
    """
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
