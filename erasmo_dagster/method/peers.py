"""What else one would try on a table: common procedures without a model of it, to compare segments with.

Neither says where a later row belongs. So both are drawn on some rows, and every other row, of the training or later,
goes with the nearest of these by the points of the table, as agglomerative segments do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.baselines import OneHotOptions, one_hot
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.gower import gower_distances
from erasmo_dagster.method.neighbors import distinct_rows, nearest
from erasmo_dagster.method.segment_model import NearestRow, SegmentModel
from erasmo_dagster.method.space import Space
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings import ClusteringSettings

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
# Rows, how they are read, number of segments, starts, seed -> a segment of each row, int64[n].
Peer = Callable[[pl.DataFrame, TextPlan, int, int, int], Labels]


def one_hot_k_means(frame: pl.DataFrame, plan: TextPlan, k: int, n_init: int, seed: int) -> Labels:
    """k-means of numbers standardised and categories one-hot; texts are left out."""
    known = plan.model_copy(update={"columns": _in_order(frame, plan)})
    vectors = one_hot(frame, known, OneHotOptions(), seed, Path()).vectors
    settings = ClusteringSettings(method="kmeans++", k=k, n_init=n_init)
    return cluster(vectors, settings, seed=seed).labels


def gower_average(frame: pl.DataFrame, plan: TextPlan, k: int, n_init: int, seed: int) -> Labels:
    """Average linkage of Gower's dissimilarities (:func:`gower_distances`); pairs of rows are held in memory."""
    from sklearn.cluster import AgglomerativeClustering

    if frame.height <= k:
        raise ErasmoError(f"Got {frame.height} rows for {k} segments", expected=f"at least {k + 1}")
    apart = gower_distances(frame, _in_order(frame, plan))
    if apart is None:
        raise ErasmoError("Got rows without a value that two of them have", expected="values to compare")
    found = AgglomerativeClustering(k, metric="precomputed", linkage="average").fit_predict(apart)
    return np.asarray(found, dtype=np.int64)


# By the name on the leaderboard.
PEERS: dict[str, Peer] = {"one-hot, k-means": one_hot_k_means, "Gower, average linkage": gower_average}


def _in_order(frame: pl.DataFrame, plan: TextPlan) -> tuple[ColumnPlan, ...]:
    """The columns that any of the rows has, by name: sums depend on the order of what is added up."""
    held = [column for column in plan.columns if frame[column.name].null_count() < frame.height]
    return tuple(sorted(held, key=lambda column: column.name))


def by_nearest_row(points: Floats, drawn: npt.NDArray[np.int64], labels: Labels) -> ClusterResult:
    """Segments of all ``points`` float32[n, d], of which those at ``drawn`` int64[m] have ``labels`` int64[m].

    Rows at one point are in one segment, that of most of them, of equals the lower. Segments are numbered by size, then
    by centre; one that has the most of no point is none.

    Raises ErasmoError where fewer than two remain.
    """
    first, which = distinct_rows(points[drawn])
    votes = np.zeros((len(first), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(votes, (which, labels), 1)
    references, own = points[drawn][first], votes.argmax(axis=1)
    placed = own[nearest(points, references, 1)[0][:, 0]]
    centers = {int(s): points[placed == s].mean(axis=0, dtype=np.float64) for s in np.unique(placed)}
    if len(centers) < 2:
        raise ErasmoError("Got one segment of the table's rows", expected="at least two")
    sizes = np.bincount(placed)
    order = sorted(centers, key=lambda s: (-sizes[s], centers[s].tolist()))
    number = np.zeros(votes.shape[1], dtype=np.int64)
    number[order] = np.arange(len(order))
    space = Space(points.shape[1], np.zeros(points.shape[1]))
    center = np.stack([centers[s] for s in order]).astype(np.float32)
    model = SegmentModel(space, center, NearestRow(references, number[own]))
    found = model.place(points)
    return ClusterResult(found.labels, len(order), found.confidence, None, (), model)
