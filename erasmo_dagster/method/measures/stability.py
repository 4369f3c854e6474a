"""Whether the same method finds the same segments again: of other rows, by another seed, in another order of columns.

The adjusted Rand index is that of Hubert and Arabie (1985), "Comparing partitions", Journal of Classification 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.measures.rows import Labels

# (positions of the rows to fit on, seed) -> the label of every row, -1 for noise.
Refit = Callable[[npt.NDArray[np.intp], int], npt.NDArray[np.int64]]
Codes = npt.NDArray[np.intp]

_SPLITS = 3
_SEEDS = 3
_LEAST_ROWS = 4


@dataclass(frozen=True)
class Stability:
    """How far refits agree with the segments: 1 is always the same, 0 what chance gives.

    ``ari``: of fits on bootstrap resamples with the segments, over ``resamples`` of them, and its standard ``error``;
    ``split_half``: of fits on two halves with each other; ``seeds``: of fits by other seeds with the segments;
    ``jaccard``: for each segment, in the order of their ids, the mean of its best match in a resample, 0 to 1. Hennig
    reads below 0.6 as not to be trusted, from 0.75 as a valid segment, from 0.85 as highly stable.
    """

    ari: float
    error: float
    split_half: float
    seeds: float
    jaccard: tuple[float, ...]
    resamples: int
    rows: int


def stability(refit: Refit, labels: Labels, *, seed: int, resamples: int = 10) -> Stability:
    """How stable the segments ``labels`` int[n] are, of which ``refit(rows, seed)`` fits others.

    ``refit`` fits on ``rows`` (positions, ascending, each once) and gives a label int[n] to every row, those too that
    it was not fitted on. On resamples and halves it is called with ``seed`` itself, so that these tell of the rows
    alone; then on all rows with three other seeds: ``resamples`` + 9 calls.

    Hennig (2007), "Cluster-wise assessment of cluster stability", CSDA 52, section 3.1: each resample is the distinct
    rows of a draw of n with replacement, and a segment's figure is the mean over the resamples of its largest Jaccard
    similarity with a segment found, both restricted to the rows drawn. A segment of which no resample drew a row has 0.

    All figures are over the rows that ``labels`` has in segments, ``rows`` many; what a refit calls noise counts as a
    group of its own there, but not as a match of a segment. The error is that of the resamples alone.

    Raises ErasmoError for fewer than four such rows, and ValueError for fewer than two resamples, or a refit that does
    not give one label a row.
    """
    if resamples < 2:
        raise ValueError(f"got {resamples} resamples, expected at least 2")
    total, kept = len(labels), np.flatnonzero(labels >= 0)
    if len(kept) < _LEAST_ROWS:
        raise ErasmoError(
            f"Got {len(kept)} rows in segments, of which no halves can be compared",
            expected=f"at least {_LEAST_ROWS}",
            fix="give more rows, or settings of the clustering that leave fewer as noise",
        )

    def fitted(rows: npt.NDArray[np.intp], own: int) -> Codes:
        found = np.asarray(refit(rows, own))
        if found.shape != (total,):
            raise ValueError(f"got labels of shape {found.shape} from a refit, expected one for each of {total} rows")
        return _codes(found[kept])

    ids, segments = np.unique(labels[kept], return_inverse=True)
    rng = np.random.default_rng(seed)
    agreement, matches = [], []
    for _ in range(resamples):
        drawn = np.unique(rng.integers(0, total, total))
        found = fitted(drawn, seed)
        agreement.append(_ari(segments, found))
        among = np.isin(kept, drawn, assume_unique=True)
        matches.append(_best_jaccard(segments[among], found[among], len(ids)))
    halves = []
    for _ in range(_SPLITS):
        order = rng.permutation(total)
        middle = total // 2
        first, second = (fitted(np.sort(half), seed) for half in (order[:middle], order[middle:]))
        nothing = max(first.max(initial=-1), second.max(initial=-1)) < 0  # neither half has a segment to agree on
        halves.append(0.0 if nothing else _ari(first, second))
    others = (int(other) for other in rng.choice(2**31 - 1, _SEEDS + 1, replace=False))
    again = [_ari(segments, fitted(np.arange(total), other)) for other in [s for s in others if s != seed][:_SEEDS]]
    drawn_in = np.sum(~np.isnan(matches), axis=0)
    return Stability(
        ari=float(np.mean(agreement)),
        error=float(np.std(agreement, ddof=1) / np.sqrt(resamples)),
        split_half=float(np.mean(halves)),
        seeds=float(np.mean(again)),
        jaccard=tuple((np.nansum(matches, axis=0) / np.maximum(drawn_in, 1)).tolist()),
        resamples=resamples,
        rows=len(kept),
    )


def order_agreement(labels_by_order: Sequence[Labels]) -> float:
    """How far segments agree that were made of the same rows with the columns in other orders.

    The mean adjusted Rand index over all pairs of ``labels_by_order``, each int[n]. A row that both of a pair call
    noise (-1) is left out of it; noise in one alone is a group of its own. Raises ValueError for fewer than two, or of
    different lengths.
    """
    if len(labels_by_order) < 2 or len({len(labels) for labels in labels_by_order}) > 1:
        lengths = [len(labels) for labels in labels_by_order]
        raise ValueError(f"got labels of lengths {lengths}, expected at least two of the same length")
    figures = []
    for first, second in combinations(labels_by_order, 2):
        kept = (first >= 0) | (second >= 0)
        figures.append(_ari(_codes(first[kept]), _codes(second[kept])))
    return float(np.mean(figures))


def _codes(labels: Labels) -> Codes:
    """Segments as places from 0 in the order of their ids, -1 for noise."""
    codes = np.unique(labels, return_inverse=True)[1]
    return np.asarray(codes - 1 if (labels < 0).any() else codes)


def _cells(first: Codes, second: Codes) -> npt.NDArray[np.int64]:
    """Rows by group of ``first`` and ``second``; the first row and column are those of -1."""
    height, width = (int(codes.max(initial=-1)) + 2 for codes in (first, second))
    return np.bincount((first + 1) * width + second + 1, minlength=height * width).reshape(height, width)


def _ari(first: Codes, second: Codes) -> float:
    """As scikit-learn's, which warns where groups are many, as in tiny tables; 1 where both have one group."""
    cells = _cells(first, second)

    def pairs(counts: npt.NDArray[np.int64]) -> float:
        return float((counts.astype(np.float64) * (counts - 1)).sum() / 2)

    together, rows, columns = pairs(cells), pairs(cells.sum(axis=1)), pairs(cells.sum(axis=0))
    every = pairs(cells.sum(keepdims=True))
    if not every:
        return 1.0
    by_chance, most = rows * columns / every, (rows + columns) / 2
    return 1.0 if most == by_chance else (together - by_chance) / (most - by_chance)


def _best_jaccard(segments: Codes, found: Codes, count: int) -> npt.NDArray[np.float64]:
    """Each segment's largest Jaccard similarity with a found one: float64[count], NaN where it has no row."""
    cells = np.zeros((count, max(1, int(found.max(initial=-1)) + 1)))
    np.add.at(cells, (segments[found >= 0], found[found >= 0]), 1)
    own = np.bincount(segments, minlength=count)
    union = own[:, None] + np.bincount(found[found >= 0], minlength=cells.shape[1]) - cells
    best = np.divide(cells, union, out=np.zeros_like(cells), where=union > 0).max(axis=1)
    return np.where(own > 0, best, np.nan)
