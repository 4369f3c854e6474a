"""Whether segments of an earlier training still fit the rows that come: their shares, and how far rows lie out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.segment_model import Floats, Labels, SegmentModel

Distances = npt.NDArray[np.float64]

_CHUNK = 2048  # rows whose differences are held at a time
_EMPTY = 0.5  # rows that an empty segment is taken to have, as ln 0 has no value


def population_stability_index(before: Mapping[int, int], after: Mapping[int, int]) -> float:
    """How far the shares of the segments moved: the sum of (a - b) ln(a / b) over the segments, 0 for not at all.

    ``before`` and ``after`` are rows by segment id; an id that is missing has none. A segment that is empty on one side
    is taken to have half a row there, so that the figure stays finite; one that is empty on both does not count. The
    figure is the same either way round and has no unit.

    Read as Siddiqi (2006), "Credit Risk Scorecards", does: below .1 no change worth the name, from .25 on a shift. Few
    rows alone raise it: drawn from the same shares, k segments give about (k - 1)(1/n + 1/m) for n and m rows
    (Yurdakul 2018, "Statistical Properties of Population Stability Index").

    Raises ValueError for a negative count, and where either side has no rows.
    """
    if min([*before.values(), *after.values()], default=0) < 0:
        raise ValueError("got a negative number of rows")
    rows_before, rows_after = sum(before.values()), sum(after.values())
    if not rows_before or not rows_after:
        raise ValueError(f"got {rows_before} rows before and {rows_after} after, expected some on both sides")
    terms = []
    for segment in sorted(before.keys() | after.keys()):
        was, now = before.get(segment, 0), after.get(segment, 0)
        if was or now:
            b, a = (was or _EMPTY) / rows_before, (now or _EMPTY) / rows_after
            # A difference of logarithms, so that swapping the sides gives the same number to the last digit.
            terms.append((a - b) * (math.log(a) - math.log(b)))
    return math.fsum(terms)


def own_distances(vectors: Floats, labels: Labels, model: SegmentModel) -> Distances:
    """Distance float64[n] of each of ``vectors`` float32[n, d] to the centre of its label, as clustering measures it.

    ``labels`` int64[n] are segments of ``model``, in whose space the distance is taken (Euclidean); of noise, -1, it is
    infinite. Raises ValueError for other labels, ErasmoError for vectors that are not of the model.
    """
    if labels.shape != (len(vectors),):
        raise ValueError(f"got labels of shape {labels.shape} for {len(vectors)} rows")
    if len(labels) and not -1 <= labels.min() <= labels.max() < model.k:
        raise ValueError(f"got labels {labels.min()} to {labels.max()}, expected -1 to {model.k - 1}")
    exact = model.centers.astype(np.float64)
    distances: Distances = np.full(len(vectors), np.inf)
    held = np.flatnonzero(labels >= 0)
    for start in range(0, len(held), _CHUNK):
        rows = held[start : start + _CHUNK]
        difference = model.space.project(vectors[rows]).astype(np.float64) - exact[labels[rows]]
        distances[rows] = np.einsum("ij,ij->i", difference, difference)
    np.sqrt(distances, out=distances)
    return distances


def segment_reach(vectors: Floats, labels: Labels, model: SegmentModel, *, quantile: float = 0.99) -> Distances:
    """How far each segment reaches, float64[k]: the ``quantile`` of the distances of its rows to its own centre.

    In the units of :func:`own_distances`, with linear interpolation between rows. A segment without rows reaches
    anywhere (inf), since nothing is known of it. Raises ValueError as :func:`own_distances` does, and for a quantile
    outside 0 to 1.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"got quantile {quantile}, expected 0 to 1")
    distances = own_distances(vectors, labels, model)
    reach = np.full(model.k, np.inf)
    for segment in np.unique(labels[labels >= 0]):
        reach[segment] = np.quantile(distances[labels == segment], quantile)
    return reach


def share_beyond(
    vectors: Floats,
    labels: Labels,
    model: SegmentModel,
    reach: npt.NDArray[np.floating],
    *,
    noise_share: float = 0.0,
) -> float:
    """Share (0 to 1) of the rows that lie farther from the centre of their label than ``reach`` float[k] of it.

    0 for no rows. Noise lies beyond every segment; of it counts what there is more than ``noise_share`` of the rows,
    the share that the training had, since that much of it says nothing new. About 1 - quantile of new rows that are as
    those of :func:`segment_reach` were, so more than that is a sign that the segments no longer fit. A map of UMAP puts
    every row among those of the training, so there it says little.

    Raises ValueError as :func:`own_distances` does, and for a reach of another length than the model's segments.
    """
    if reach.shape != (model.k,):
        raise ValueError(f"got a reach of shape {reach.shape} for {model.k} segments")
    distances = own_distances(vectors, labels, model)
    if not len(distances):
        return 0.0
    noise = labels < 0
    far = distances[~noise] > reach[labels[~noise]]
    return (int(far.sum()) + max(0.0, int(noise.sum()) - noise_share * len(labels))) / len(labels)
