"""Agglomerative hierarchical clustering."""

from __future__ import annotations

import numpy as np

from erasmo_dagster.method.algorithms.base import Cut, Partitioner, Points
from erasmo_dagster.settings import ClusteringSettings


def agglomerative(points: Points, settings: ClusteringSettings) -> Partitioner:
    """Hierarchical clustering: one tree, cut for each k by leaving out its last k - 1 merges."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.cluster import AgglomerativeClustering

    tree = AgglomerativeClustering(2, linkage=settings.linkage, compute_full_tree=True).fit(points)
    rows, merges = len(points), tree.children_

    def cut(k: int) -> Cut:
        kept = merges[: rows - k]
        parents = np.repeat(np.arange(rows, rows + len(kept)), 2)  # merge i makes node rows + i
        graph = coo_array((np.ones(len(parents)), (parents, kept.ravel())), shape=(2 * rows, 2 * rows))
        return Cut(connected_components(graph, directed=False)[1][:rows])

    return Partitioner(cut, "rows")
