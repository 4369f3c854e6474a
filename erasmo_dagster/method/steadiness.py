"""How stable the segments of a clustering are: the same method, on other rows and by other seeds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.measures import Stability, stability
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.settings import ClusteringSettings

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_SHOWN = 20  # rows of every segment in the sample: of a few, no resample finds the segment again


def steadiness(
    points: Floats,
    labels: npt.NDArray[np.integer],
    settings: ClusteringSettings,
    layout: Layout | None = None,
    *,
    seed: int,
    rows: int = 1_000,
    resamples: int = 10,
) -> Stability | None:
    """How far clusterings of other rows, or by other seeds, find the segments ``labels`` int[n] of ``points``
    float32[n, d] again; -1 is noise. ``settings`` and ``layout`` are those of :func:`cluster`.

    On at most ``rows`` rows: a seeded sample with 20 of every segment, where it has as many and there is room for them.
    Each clustering is drawn with as many segments as ``labels`` has (HDBSCAN finds their number, with its numbers of
    rows as shares of the rows), and all sampled rows are placed by it: see :func:`~.measures.stability`. A part that
    cannot be told into as many is told into as many as it can; where that is none, it has found nothing.

    None where there is nothing to agree on: fewer than two segments or four rows in them, more segments than sampled
    rows, or no part that can be clustered.
    """
    if settings.method == "auto":
        raise ValueError("got clustering.method=auto, expected the method of the segments that it chose")
    sample = sampled(labels, rows, seed=seed)
    known, own = points[sample], np.asarray(labels[sample], dtype=np.int64)
    k = len(np.unique(labels[labels >= 0]))
    if k < 2 or len(np.unique(own[own >= 0])) < k:
        return None
    drawn = 0

    def refit(part: npt.NDArray[np.intp], seed: int) -> Labels:
        nonlocal drawn
        found = _placed(known, part, _fixed(settings, k, len(part) / len(labels)), layout, seed)
        drawn += found is not None
        return np.full(len(known), -1, dtype=np.int64) if found is None else found

    try:
        found = stability(refit, own, seed=seed, resamples=resamples)
    except ErasmoError:  # too few rows in segments
        return None
    return found if drawn else None


def sampled(labels: npt.NDArray[np.integer], rows: int, *, seed: int) -> npt.NDArray[np.intp]:
    """Positions of at most ``rows`` rows, ascending: some of every segment of ``labels``, noise too, others at random.

    Of a segment 20 rows, or all, or its equal part of half of ``rows`` where segments are many.
    """
    if len(labels) <= rows:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    groups, sizes = np.unique(labels, return_counts=True)
    least = min(_SHOWN, max(1, rows // (2 * len(groups))))
    # Places of the rows by segment, each in the order of the draw.
    by_group = order[np.argsort(labels[order], kind="stable")]
    starts = np.cumsum(sizes) - sizes
    first = np.concatenate([by_group[at : at + min(least, size)] for at, size in zip(starts, sizes, strict=True)])
    others = order[~np.isin(order, first)]
    return np.sort(np.concatenate([first, others])[:rows])


def _fixed(settings: ClusteringSettings, k: int, share: float) -> ClusteringSettings:
    """The settings with a number of segments instead of a sweep; of a ``share`` of the rows."""
    options = settings.model_dump(exclude={"k", "k_min", "k_max", "choose_by"})
    if settings.method == "hdbscan":
        for name, least in (("min_cluster_size", 2), ("min_samples", 1)):
            if options.get(name) is not None:
                options[name] = max(least, round(options[name] * share))
        return ClusteringSettings.model_validate(options)
    return ClusteringSettings.model_validate({**options, "k": k})


def _placed(
    points: Floats, part: npt.NDArray[np.intp], settings: ClusteringSettings, layout: Layout | None, seed: int
) -> Labels | None:
    """A segment for each of ``points``, by a clustering of those in ``part``; None where there is none."""
    try:
        return cluster(points[part], settings, seed=seed, layout=layout).model.place(points).labels
    except ErasmoError:
        if not isinstance(settings.k, int):
            return None
    most = min(settings.k - 1, len(part) - 1, len(np.unique(points[part], axis=0)))
    if most < 2:
        return None
    return _placed(points, part, _fixed(settings, most, 1.0), layout, seed)
