"""The rows of a training that are nearest to others, as exactly as the arrays are."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count as count_from
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

# Rows of a training that are kept so that later ones can be placed beside them: 60 MB in 768 dimensions.
MOST_REFERENCES = 20_000
_MARGIN = 8  # candidates beyond those asked for, by distances that rounding has touched
_CHUNK = 256  # rows whose distances are taken at a time
_AT_ONCE = 4_000_000  # distances that are held at a time where only the nearest is asked for
_ROWS = 8192  # rows that are added up or compared at a time


def nearest(points: Floats, references: Floats, count: int) -> tuple[Indices, Doubles]:
    """The ``count`` nearest of ``references`` float32[r, p] to each of ``points`` float32[n, p], and how far they are.

    Places int64[n, c] and Euclidean distances float64[n, c], c = min(count, r), ascending; ties go to the lower place.
    The distances come from differences, so a row that is among the references is at 0 from itself; a row's answer does
    not depend on those beside it.
    """
    count = min(count, len(references))
    exact = references.astype(np.float64)
    middle = exact.mean(axis=0)
    moved = exact - middle
    ranked = _Ranked(exact, moved, np.einsum("ij,ij->i", moved, moved), middle)
    places = np.empty((len(points), count), dtype=np.int64)
    distances = np.empty((len(points), count))
    step = _CHUNK if count > 1 else max(_CHUNK, min(_ROWS, _AT_ONCE // max(len(references), 1)))
    single = _single(moved)
    for start in range(0, len(points), step):
        chunk = points[start : start + step]
        if count > 1:
            found = ranked.nearest(chunk, count)
        else:
            own, doubtful = surely_nearest(_single(chunk - middle), single)[:2]
            for part in np.split(doubtful, range(_CHUNK, len(doubtful), _CHUNK)):
                own[part] = ranked.nearest(chunk[part], 1)[0][:, 0]
            difference = exact[own] - chunk
            found = own[:, None], np.sqrt(np.einsum("ij,ij->i", difference, difference))[:, None]
        places[start : start + step], distances[start : start + step] = found
    return places, distances


@dataclass(frozen=True, eq=False)
class _Ranked:
    """References ``exact`` float64[r, p], the same ``moved`` by their ``middle``, and the squared ``lengths`` then."""

    exact: Doubles
    moved: Doubles
    lengths: Doubles
    middle: Doubles

    def nearest(self, points: Floats, count: int) -> tuple[Indices, Doubles]:
        chunk = points.astype(np.float64)
        tried = min(count + _MARGIN, len(self.exact))
        # a.a - 2 a.b + b.b is fast and rounds: it only chooses whom to measure.
        rough = self.lengths - 2 * ((chunk - self.middle) @ self.moved.T)
        candidates = np.sort(np.argpartition(rough, tried - 1, axis=1)[:, :tried], axis=1)
        difference = self.exact[candidates] - chunk[:, None, :]
        squared = np.einsum("ijk,ijk->ij", difference, difference)
        order = np.argsort(squared, axis=1, kind="stable")[:, :count]
        apart = np.sqrt(np.take_along_axis(squared, order, axis=1))
        return np.take_along_axis(candidates, order, axis=1), apart


def surely_nearest(points: Floats, references: Floats) -> tuple[Indices, Indices, Doubles]:
    """The nearest of ``references`` float32[r, p] to each of ``points`` float32[n, p], by a product of matrices.

    Its place int64[n]; the places int64[m] of the points that rounding leaves in doubt; and by how much it is nearer
    than the next at least, float64[n], at most 0 where in doubt, inf where there is no next. Both arrays are best
    centred, as products of long vectors leave more in doubt.
    """
    rows = np.arange(len(points))
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is in doubt
        lengths, own = _squares(references), _squares(points)
        rough = points @ (-2 * references.T)
        rough += lengths
        best = rough.argmin(axis=1)
        least = rough[rows, best].astype(np.float64) + own
        rough[rows, best] = np.inf
        second = rough.min(axis=1).astype(np.float64) + own
        # Rounding of a sum of p products, and of what is multiplied, with room to spare.
        slack = 4 * (points.shape[1] + 8) * float(np.finfo(np.float32).eps)
        slack = slack * (own + float(lengths.max(initial=0)))
        gap = np.sqrt(np.maximum(second - slack, 0)) - np.sqrt(np.maximum(least + slack, 0))
    gap[np.isnan(gap)] = -np.inf
    return best, np.flatnonzero(gap <= 0), gap


def _single(rows: Doubles) -> Floats:
    with np.errstate(over="ignore"):
        return rows.astype(np.float32)


def _squares(rows: Floats) -> Floats:
    return np.asarray(np.einsum("ij,ij->i", rows, rows))


def distinct_rows(points: Floats) -> tuple[Indices, Indices]:
    """Where each different row of ``points`` float32[n, p] comes first int64[u], and which of these each row is."""
    points = np.ascontiguousarray(points)
    for attempt in count_from(0):
        _, first, which = np.unique(_hashes(points, attempt), return_index=True, return_inverse=True)
        order = np.argsort(first)
        number = np.empty(len(first), dtype=np.int64)
        number[order] = np.arange(len(first))
        first, which = first[order].astype(np.int64), number[which]
        # Rows of one hash are the same row but by a chance of one in billions; then others are tried.
        if all(np.array_equal(points[part], points[first[which[part]]]) for part in _parts(len(points))):
            return first, which
    raise AssertionError("unreachable")


def _hashes(points: Floats, attempt: int) -> npt.NDArray[np.uint64]:
    """A number for each row, equal for equal rows."""
    factors = np.random.default_rng(attempt).integers(0, 2**64, points.shape[1] + 1, dtype=np.uint64) | np.uint64(1)
    found = np.empty(len(points), dtype=np.uint64)
    for part in _parts(len(points)):
        bits = (points[part] + np.float32(0.0)).view(np.uint32).astype(np.uint64)  # -0.0 becomes 0.0
        bits *= factors[0]
        bits ^= bits >> np.uint64(32)  # so that numbers with trailing zeros fill all of their bits
        found[part] = bits @ factors[1:]
    return found


def _parts(rows: int) -> list[slice]:
    return [slice(start, start + _ROWS) for start in range(0, rows, _ROWS)]


def sums_by(points: npt.NDArray[np.floating], groups: Indices, count: int, rows: Indices | None = None) -> Doubles:
    """Sums float64[count, p] of ``points`` float[n, p] by ``groups`` int64[n]; of ``rows`` int64[m] alone if given."""
    from scipy.sparse import csc_array

    total = np.zeros((count, points.shape[1]))
    for part in _parts(len(points) if rows is None else len(rows)):
        own: Any = part if rows is None else rows[part]
        chunk, group = points[own].astype(np.float64), groups[own]
        ones = csc_array((np.ones(len(group)), group, np.arange(len(group) + 1)), shape=(count, len(group)))
        total += ones @ chunk
    return total


def references_of(labels: Indices, most: int, *, seed: int) -> Indices:
    """At most about ``most`` places in ``labels`` int64[n], ascending: of every label its share, and at least one."""
    if len(labels) <= most:
        return np.arange(len(labels), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(labels))
    kept = []
    for label in np.unique(labels):
        members = order[labels[order] == label]
        kept.append(members[: max(1, most * len(members) // len(labels))])
    return np.sort(np.concatenate(kept)).astype(np.int64)
