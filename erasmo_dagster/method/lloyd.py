"""Segments by their means: numbered, and moved until every row is in the one of the nearest mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.neighbors import Doubles, Floats, sums_by, surely_nearest
from erasmo_dagster.method.segment_model import Labels, distances

_ROUNDS = 300
_CHUNK = 8192  # rows that are looked at at a time
_ROUNDING = 1e-9  # of a distance, relative: what is taken off a gap between two, and added to how far a centre moved


def number(labels: npt.NDArray[np.integer], points: Floats) -> Labels:
    """The same partition with its segments numbered by size, descending, then by centre; noise stays -1."""
    held = labels >= 0
    _, numbers = np.unique(labels[held], return_inverse=True)
    result = np.full(len(labels), -1, dtype=np.int64)
    if held.any():
        result[held] = numbers
        sizes = np.bincount(numbers)
        order = by_size(sizes, _means(sums_by(points, result, len(sizes), np.flatnonzero(held)), sizes))
        result[held] = np.argsort(order)[numbers]
    return result


def by_size(sizes: npt.NDArray[np.integer], centers: Floats) -> Labels:
    """The segments that have rows, int64[k], by their number of rows int[m], descending, then by centre."""
    held = np.flatnonzero(sizes).tolist()
    return np.array(sorted(held, key=lambda s: (-sizes[s], centers[s].tolist())), dtype=np.int64)


def means(points: Floats, labels: npt.NDArray[np.integer]) -> Floats:
    """Mean float32[k, p] of each segment's rows, added up in 64 bits; those of label -1 are left out."""
    rows = np.flatnonzero(labels >= 0) if (labels < 0).any() else None
    sizes = np.bincount(labels if rows is None else labels[rows])
    return _means(sums_by(points, labels.astype(np.int64, copy=False), len(sizes), rows), sizes)


def _means(sums: Doubles, sizes: npt.NDArray[np.integer]) -> Floats:
    return np.asarray(sums / sizes[:, None], dtype=np.float32)


def settle(labels: npt.NDArray[np.integer], points: Floats, *, rounds: int = _ROUNDS) -> tuple[Labels, bool]:
    """Lloyd's rounds from ``labels`` int[n] of ``points`` float32[n, p] until every row is with the nearest centre.

    Centres are means added up in 64 bits, and distances those of :func:`~.segment_model.distances`, so that rows are
    where the saved centres put them. Segments are numbered as by :func:`number` after each round. The second answer is
    whether all came to rest within ``rounds``.

    A row is not looked at again while the centres have not moved by as much as its own is nearer than the next (the
    triangle inequality, as in Hamerly, 2010, "Making k-means even faster", SDM), so that late rounds cost next to
    nothing; labels are those of looking at every row in every round.
    """
    labels = number(labels, points)
    sizes = np.bincount(labels)
    if len(sizes) < 2:
        return labels, True
    sums = sums_by(points, labels, len(sizes))
    centers = _means(sums, sizes)
    # How far each centre has moved so far, and the one that moved the most; and how far they may until a row is due.
    moved, most, until = np.zeros(len(sizes)), 0.0, np.full(len(points), -np.inf)
    for _ in range(rounds):
        due = np.flatnonzero(~(until > moved[labels] + most))
        closest, gaps = _closest(points, due, centers)
        until[due] = gaps + moved[closest] + most
        away = closest != labels[due]
        if away.any():
            rows, to = due[away], closest[away]
            sums -= sums_by(points, labels, len(sizes), rows)
            labels[rows] = to
            sums += sums_by(points, labels, len(sizes), rows)
            sizes = np.bincount(labels, minlength=len(sizes))
        else:
            sums = sums_by(points, labels, len(sizes))
            if np.array_equal(_means(sums, sizes), centers):
                return labels, True
        held = np.flatnonzero(sizes)
        after = np.zeros_like(centers)
        after[held] = _means(sums[held], sizes[held])
        shift = np.sqrt(np.square(after.astype(np.float64) - centers).sum(axis=1)) * (1 + _ROUNDING)
        moved, most = moved + shift, most + float(shift[held].max())
        order = by_size(sizes, after)
        if len(order) < len(sizes) or (np.diff(order) < 0).any():
            place = np.full(len(sizes), -1, dtype=np.int64)
            place[order] = np.arange(len(order))
            labels, sums, sizes, moved, after = place[labels], sums[order], sizes[order], moved[order], after[order]
        centers = after
    return labels, False


def _closest(points: Floats, rows: Labels, centers: Floats) -> tuple[Labels, Doubles]:
    """The nearest centre int64[m] of ``rows`` int64[m], and by how much at least it is nearer than the next."""
    found, gaps = np.empty(len(rows), dtype=np.int64), np.empty(len(rows))
    whole = len(rows) == len(points)
    for start in range(0, len(rows), _CHUNK):
        part = slice(start, start + _CHUNK)
        chunk = points[part] if whole else points[rows[part]]
        own, doubtful, gap = surely_nearest(chunk, centers)
        if len(doubtful):
            apart = distances(chunk[doubtful], centers)
            own[doubtful] = apart.argmin(axis=1)
            least = np.partition(apart, min(1, apart.shape[1] - 1), axis=1)
            gap[doubtful] = least[:, 1] * (1 - _ROUNDING) - least[:, 0] if apart.shape[1] > 1 else np.inf
        found[part], gaps[part] = own, gap
    return found, gaps
