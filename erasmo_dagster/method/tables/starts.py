"""Where runs of a mixture begin: k-means of all dimensions, of each kind of column, of whitened numbers."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.tables.layout import Floats, Layout
from erasmo_dagster.method.threads import one_thread

Labels = npt.NDArray[np.int64]

_ROWS_A_NUMBER = 10  # in every segment, the rule of thumb for telling a covariance from chance
_FLAT = 1e-4  # of the largest variance: below it a component is taken for noise and not blown up further


def starts(points: Floats, layout: Layout, k: int, *, count: int, seed: int) -> list[Labels]:
    """``count`` partitions int64[n] of ``points`` float32[n, d], by turns of each view.

    They have k segments, and fewer only where a view has fewer different points. The first is of all dimensions.
    """
    from sklearn.cluster import KMeans

    categories = slice(layout.numbers, layout.numbers + sum(layout.categories))
    views = [points[:, span] for span in (slice(0, layout.numbers), categories) if span.stop > span.start]
    views += [points[:, span] for span in layout.dense_spans]
    views = [points, *(views if len(views) > 1 else ())]  # one kind alone is all there is
    if layout.numbers > 1 and len(points) >= _ROWS_A_NUMBER * k * layout.numbers:
        # Segments that lie along each other are one cloud to k-means, and apart once that direction counts no more.
        views.append(_whitened(points[:, : layout.numbers]))
    found = []
    # Several threads add up in another order; and few flags have fewer different points than there are segments.
    with one_thread(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Number of distinct clusters .* found smaller than n_clusters")
        for turn in range(count):
            view = np.ascontiguousarray(views[turn % len(views)])
            model = KMeans(min(k, len(view)), n_init=1, max_iter=30, random_state=_seed(seed, turn))
            found.append(np.asarray(model.fit(view).labels_, dtype=np.int64))
    return found


def _whitened(numbers: Floats) -> Floats:
    """Principal components of ``numbers`` float32[n, p], each scaled to unit variance; those without any stay 0."""
    moved = numbers.astype(np.float64) - numbers.mean(axis=0, dtype=np.float64)
    variances, directions = np.linalg.eigh(moved.T @ moved / len(moved))
    scales = np.sqrt(np.maximum(variances, _FLAT * variances.max()))
    return np.asarray(moved @ directions / np.where(scales > 0, scales, 1.0), dtype=np.float32)


def _seed(seed: int, turn: int) -> int:
    return int(np.random.SeedSequence([seed, turn]).generate_state(1)[0])
