"""Many rows as some thousand small groups of them, for methods that work on pairs.

BIRCH (Zhang, Ramakrishnan and Livny, 1996, SIGMOD) clusters such groups by their means and sizes; here they are found
by k-means, as Yan, Huang and Jordan (2009, "Fast approximate spectral clustering", KDD) do it.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.algorithms.base import Points
from erasmo_dagster.method.neighbors import distinct_rows, nearest, references_of, sums_by

# Rows up to which methods on pairs are exact.
EXACT_ROWS = 20_000
_SAMPLE = 50_000  # rows that the groups are found on
_ROUNDS = 10
_CHUNK = 8192  # rows that are looked at at a time


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups of n rows: ``means`` float32[m, p], how many rows each has, ``sizes`` int64[m], and which each row is in.

    ``variances`` float64[m] are the mean squared distances of a group's rows to its mean.
    ``which`` int64[n] is the nearest of ``centers`` float32[m, p].
    """

    means: Points
    sizes: npt.NDArray[np.int64]
    variances: npt.NDArray[np.float64]
    which: npt.NDArray[np.int64]
    centers: Points


def grouped(points: Points, count: int, seed: int) -> Groups:
    """At most ``count`` groups of near rows of ``points`` float32[n, p].

    Where at most ``count`` rows differ, each of these is a group. Else by a few rounds of k-means on a seeded sample;
    then every row is in the group of the nearest centre, so that time grows with the rows and memory with the groups
    alone. Equal rows are in one group. A few rows far from all others can be in none of their own.
    """
    first, which = distinct_rows(points)
    if len(first) <= count:
        return Groups(points[first], np.bincount(which), np.zeros(len(first)), which, points[first])
    from sklearn.cluster import KMeans

    sample = points[references_of(np.zeros(len(points), dtype=np.int64), _SAMPLE, seed=seed)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of fewer different rows than groups: these are the groups then
        model = KMeans(min(count, len(sample)), init="random", n_init=1, max_iter=_ROUNDS, tol=0, random_state=seed)
        centers = np.unique(model.fit(sample).cluster_centers_, axis=0)
    which = nearest(points, centers, 1)[0][:, 0]
    held, which = np.unique(which, return_inverse=True)
    sizes = np.bincount(which)
    means = sums_by(points, which, len(held)) / sizes[:, None]
    squares = np.zeros(len(held))
    for start in range(0, len(points), _CHUNK):
        own = which[start : start + _CHUNK]
        apart = points[start : start + _CHUNK] - means[own]
        squares += np.bincount(own, np.einsum("ij,ij->i", apart, apart), len(held))
    return Groups(means.astype(np.float32), sizes, squares / sizes, which, np.ascontiguousarray(centers[held]))
