"""Where runs of a mixture begin: partitions by k-means, of all dimensions and of each kind of column alone."""

from __future__ import annotations

import warnings

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.tables.layout import Floats, Layout

Labels = npt.NDArray[np.int64]


def starts(points: Floats, layout: Layout, k: int, *, count: int, seed: int) -> list[Labels]:
    """``count`` partitions int64[n] of ``points`` float32[n, d], by turns of each view.

    They have k segments, and fewer only where a view has fewer different points. The first is of all dimensions.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    numbers = slice(0, layout.numbers)
    categories = slice(layout.numbers, layout.numbers + sum(layout.categories))
    views = [slice(0, layout.width), *(span for span in (numbers, categories) if span.stop > span.start)]
    views = [*views, *layout.dense_spans]
    if len(views) == 2:
        views = views[:1]  # one kind alone is all there is
    found = []
    # Several threads add up in another order; and few flags have fewer different points than there are segments.
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Number of distinct clusters .* found smaller than n_clusters")
        for turn in range(count):
            view = np.ascontiguousarray(points[:, views[turn % len(views)]])
            model = KMeans(min(k, len(view)), n_init=1, max_iter=30, random_state=_seed(seed, turn))
            found.append(np.asarray(model.fit(view).labels_, dtype=np.int64))
    return found


def _seed(seed: int, turn: int) -> int:
    return int(np.random.SeedSequence([seed, turn]).generate_state(1)[0])
