"""From the settings to the algorithm."""

from __future__ import annotations

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.algorithms import micro
from erasmo_dagster.method.algorithms.base import Partitioner, Points
from erasmo_dagster.method.algorithms.density import hdbscan
from erasmo_dagster.method.algorithms.graph import spectral
from erasmo_dagster.method.algorithms.means import bisecting_kmeans, kmeans
from erasmo_dagster.method.algorithms.mixed import mixture
from erasmo_dagster.method.algorithms.soft import fuzzy_cmeans, gaussian_mixture
from erasmo_dagster.method.algorithms.tree import agglomerative
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.settings import ClusteringSettings

# Peak bytes for each pair of rows, measured: SciPy's distances and its copy of them (each pair counts once); the
# factors of the sparse and of the dense Laplacian.
_PAIR_BYTES = {"agglomerative": 8, "nearest_neighbors": 12, "rbf": 40}


def prepare(
    points: Points, settings: ClusteringSettings, *, seed: int, k_max: int, layout: Layout | None = None
) -> Partitioner:
    """What every ``cut`` of ``points`` float32[n, p] up to ``k_max`` < n shares: a tree, a graph's eigenvectors.

    Raises ErasmoError where the method works on pairs of rows and these do not fit in memory.
    """
    _check_memory(len(points), settings)
    match settings.method:
        case "agglomerative":
            return agglomerative(points, settings, seed)
        case "spectral":
            return spectral(points, settings, seed, k_max)
        case "fuzzy_cmeans":
            return fuzzy_cmeans(points, settings, seed)
        case "gaussian_mixture":
            return gaussian_mixture(points, settings, seed)
        case "mixture":
            if layout is None:
                raise ValueError("got no layout for clustering.method=mixture, which works on a table's points")
            return mixture(points, settings, seed, layout)
        case "hdbscan":
            return hdbscan(points, settings)
        case "auto":
            raise ValueError("got clustering.method=auto, which is several: segment_table draws a table's segments")
        case "bisecting_kmeans":
            return bisecting_kmeans(points, settings, seed)
        case _:
            return kmeans(points, settings, seed)


def _check_memory(rows: int, settings: ClusteringSettings) -> None:
    """Refuse what would not fit, since the system kills a process for it without a word."""
    import psutil

    kind = settings.affinity if settings.method == "spectral" else settings.method
    if rows > micro.EXACT_ROWS:  # then they work on groups of rows
        return
    needed, free = _PAIR_BYTES.get(kind, 0) * rows**2, psutil.virtual_memory().available
    if needed > free:
        raise ErasmoError(
            f"Got {rows} rows for clustering.method={settings.method}, which needs about {needed / 2**30:.1f} GiB",
            expected=f"at most the {free / 2**30:.1f} GiB of memory that are free",
            fix="set clustering.method to kmeans++, which needs no pairs of rows",
        )
