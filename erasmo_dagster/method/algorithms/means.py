"""k-means, and its bisecting variant."""

from __future__ import annotations

from erasmo_dagster.method.algorithms.base import MAX_ITER, Cut, Partitioner, Points
from erasmo_dagster.settings import ClusteringSettings


def kmeans(points: Points, settings: ClusteringSettings, seed: int) -> Partitioner:
    """Lloyd's k-means from random rows or spread ones (Arthur and Vassilvitskii, 2007); the best of n_init starts."""
    from sklearn.cluster import KMeans

    init = "random" if settings.method == "kmeans" else "k-means++"

    def cut(k: int) -> Cut:
        model = KMeans(k, init=init, n_init=settings.n_init, max_iter=MAX_ITER, tol=0, random_state=seed)
        return Cut(model.fit(points).labels_)

    return Partitioner(cut, "centers")


def bisecting_kmeans(points: Points, settings: ClusteringSettings, seed: int) -> Partitioner:
    """The segment with the largest squared error is split in two by k-means until there are k.

    Steinbach, Karypis and Kumar (2000), "A Comparison of Document Clustering Techniques", section 3, with the
    refinement that they name: k-means goes on from the k centres, so that segments are those of the nearest centre.
    """
    from sklearn.cluster import BisectingKMeans

    def cut(k: int) -> Cut:
        model = BisectingKMeans(k, n_init=settings.n_init, max_iter=MAX_ITER, tol=0, random_state=seed)
        return Cut(model.fit(points).labels_)

    return Partitioner(cut, "centers")
