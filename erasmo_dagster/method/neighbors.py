"""The rows of a training that are nearest to others, as exactly as the arrays are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

# Rows of a training that are kept so that later ones can be placed beside them: 60 MB in 768 dimensions.
MOST_REFERENCES = 20_000
_MARGIN = 8  # candidates beyond those asked for, by distances that rounding has touched
_CHUNK = 256  # rows whose distances are taken at a time


def nearest(points: Floats, references: Floats, count: int) -> tuple[Indices, npt.NDArray[np.float64]]:
    """The ``count`` nearest of ``references`` float32[r, p] to each of ``points`` float32[n, p], and how far they are.

    Places int64[n, c] and Euclidean distances float64[n, c], c = min(count, r), ascending; ties go to the lower place.
    The distances come from differences, so a row that is among the references is at 0 from itself; a row's answer does
    not depend on those beside it.
    """
    count = min(count, len(references))
    tried = min(count + _MARGIN, len(references))
    exact = references.astype(np.float64)
    middle = exact.mean(axis=0)
    moved = exact - middle
    lengths = np.einsum("ij,ij->i", moved, moved)
    places = np.empty((len(points), count), dtype=np.int64)
    distances = np.empty((len(points), count))
    for start in range(0, len(points), _CHUNK):
        chunk = points[start : start + _CHUNK].astype(np.float64)
        # a.a - 2 a.b + b.b is fast and rounds: it only chooses whom to measure.
        rough = lengths - 2 * ((chunk - middle) @ moved.T)
        candidates = np.sort(np.argpartition(rough, tried - 1, axis=1)[:, :tried], axis=1)
        difference = exact[candidates] - chunk[:, None, :]
        squared = np.einsum("ijk,ijk->ij", difference, difference)
        order = np.argsort(squared, axis=1, kind="stable")[:, :count]
        places[start : start + _CHUNK] = np.take_along_axis(candidates, order, axis=1)
        distances[start : start + _CHUNK] = np.sqrt(np.take_along_axis(squared, order, axis=1))
    return places, distances


def distinct_rows(points: Floats) -> tuple[Indices, Indices]:
    """Where each different row of ``points`` float32[n, p] comes first int64[u], and which of these each row is."""
    number: dict[bytes, int] = {}
    first: list[int] = []
    which = np.empty(len(points), dtype=np.int64)
    for at, row in enumerate(points):
        key = (row + 0.0).tobytes()  # -0.0 becomes 0.0
        if (known := number.setdefault(key, len(first))) == len(first):
            first.append(at)
        which[at] = known
    return np.array(first, dtype=np.int64), which


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
