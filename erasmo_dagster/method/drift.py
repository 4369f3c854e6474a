"""Whether segments of an earlier training still fit the rows that come: their shares, and how far rows lie out."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.clustering import Floats, Labels, Scaler

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


def own_distances(vectors: Floats, labels: Labels, centers: Floats, scaler: Scaler | None) -> Distances:
    """Distance float64[n] of each of ``vectors`` float32[n, d] to the centre of its label, as clustering measures it.

    ``labels`` int64[n] are rows of ``centers`` float32[k, d]. Euclidean, each dimension divided by ``scaler.scale``
    where there is a scaler. Raises ValueError for labels outside 0..k-1 and for arrays that do not belong together.
    """
    if vectors.ndim != 2 or centers.ndim != 2 or vectors.shape[1] != centers.shape[1]:
        raise ValueError(f"got vectors of shape {vectors.shape} for centres of shape {centers.shape}")
    if labels.shape != (len(vectors),):
        raise ValueError(f"got labels of shape {labels.shape} for {len(vectors)} rows")
    # -1 would quietly be the last centre.
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(centers):
        raise ValueError(f"got labels {labels.min()} to {labels.max()}, expected 0 to {len(centers) - 1}")
    scale = 1.0 if scaler is None else scaler.scale.astype(np.float64)
    exact = centers.astype(np.float64)
    distances = np.empty(len(vectors))
    for start in range(0, len(vectors), _CHUNK):
        rows = slice(start, start + _CHUNK)
        difference = (vectors[rows].astype(np.float64) - exact[labels[rows]]) / scale
        distances[rows] = np.einsum("ij,ij->i", difference, difference)
    return np.sqrt(distances, out=distances)


def segment_reach(
    vectors: Floats, labels: Labels, centers: Floats, scaler: Scaler | None, *, quantile: float = 0.99
) -> Distances:
    """How far each segment reaches, float64[k]: the ``quantile`` of the distances of its rows to its own centre.

    In the units of :func:`own_distances`, with linear interpolation between rows. A segment without rows reaches
    anywhere (inf), since nothing is known of it. Raises ValueError as :func:`own_distances` does, and for a quantile
    outside 0 to 1.
    """
    if not 0 <= quantile <= 1:
        raise ValueError(f"got quantile {quantile}, expected 0 to 1")
    distances = own_distances(vectors, labels, centers, scaler)
    reach = np.full(len(centers), np.inf)
    for segment in np.unique(labels):
        reach[segment] = np.quantile(distances[labels == segment], quantile)
    return reach


def share_beyond(
    vectors: Floats, labels: Labels, centers: Floats, scaler: Scaler | None, reach: npt.NDArray[np.floating]
) -> float:
    """Share (0 to 1) of the rows that lie farther from the centre of their label than ``reach`` float[k] of it.

    0 for no rows. A row whose distance is NaN counts as beyond. About 1 - quantile of new rows that are as those of
    :func:`segment_reach` were, so more than that is a sign that the segments no longer fit. Raises ValueError as
    :func:`own_distances` does, and for a reach of another length than the centres.
    """
    if reach.shape != (len(centers),):
        raise ValueError(f"got a reach of shape {reach.shape} for {len(centers)} segments")
    distances = own_distances(vectors, labels, centers, scaler)
    return float(np.mean(~(distances <= reach[labels]))) if len(distances) else 0.0
