"""How much of what tells rows apart, column by column, lies between segments rather than within them.

Numbers and moments by eta squared (Fisher, 1925, "Statistical Methods for Research Workers", section 45): the sum of
squares between segments over that of all rows. Categories by normalised mutual information (Strehl and Ghosh, 2002,
"Cluster Ensembles", section 2.2, with the arithmetic mean). Free text by the same share of squares as numbers, summed
over the leading components of its TF-IDF (latent semantic analysis, Deerwester et al., 1990): no clustering of this
package sees those vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.gower import text_weights
from erasmo_dagster.method.measures.rows import Ints, Labels, segmented, told_columns
from erasmo_dagster.method.profiling.prepare import CategoryColumn, Column, NumberColumn, TextColumn
from erasmo_dagster.method.threads import one_thread

Floats = npt.NDArray[np.float64]

_COMPONENTS = 32
_LEAST_TEXTS = 2  # that a term must be in, where such terms are
_BLOCKS = 10
_NOTHING = 1e-12  # variance of a column scaled to the range 1 that is rounding
_TIE = 1e-12  # by which sums of the same numbers in another order may differ


@dataclass(frozen=True)
class ColumnSeparation:
    """``share``, 0 to 1, of a column that segments explain, and how often chance alone does as well.

    ``chance`` is what it explains on average: near 0, but not where a category has nearly as many values as rows.
    """

    column: str
    measure: Literal["eta_squared", "nmi", "text"]
    share: float
    p_value: float
    chance: float


@dataclass(frozen=True)
class Separation:
    """The mean of the columns' shares, and of those by ``chance``; ``columns`` in the order given, of ``rows`` rows."""

    share: float
    error: float
    p_value: float
    columns: tuple[ColumnSeparation, ...]
    rows: int
    chance: float


def separation(
    frame: pl.DataFrame,
    columns: Sequence[ColumnPlan],
    labels: Labels,
    *,
    seed: int,
    max_rows: int = 20_000,
    permutations: int = 199,
) -> Separation | None:
    """The share of every column that segments ``labels`` int[n] explain, and the mean of the shares, all 0 to 1.

    Each figure is of the rows that have a value in the column; columns with one value, categories that differ in every
    row, nested columns and rows of label -1 (noise) are left out. Beyond ``max_rows`` rows it is of a sample that
    ``seed`` draws. By chance alone eta squared grows with the segments, and mutual information with the values of a
    column too; hence the p-values: labels are permuted among the sampled rows, and ``p_value`` is (1 + permutations
    with at least that share) / (1 + ``permutations``), for each column and for the mean (Phipson and Smyth, 2010,
    "Permutation P-values should never be zero"). It compares with chance, not with other cuts through the same rows:
    segments that an algorithm cut out of one cloud pass it too.

    ``error`` is the standard error of the mean share over the choice of rows, by leaving out one of ten blocks of rows
    at a time (delete-a-group jackknife, Kott, 2001, J. Official Statistics 17); the components of texts are not made
    anew for it.

    None where there are fewer than two segments, as many as rows, or no column that varies. Raises ValueError where
    there is not one label a row, and for no permutation.
    """
    if permutations < 1:
        raise ValueError(f"got {permutations} permutations, expected at least 1")
    sample = segmented(labels, frame.height, seed=seed, most=max_rows)
    if sample is None:
        return None
    rng = np.random.default_rng([seed, 1])
    every = _deal(np.argsort(sample.segments, kind="stable"), sample.segments)
    chance = [every.permuted(rng.permutation(len(sample.rows))) for _ in range(permutations)]
    # Drawn apart, so that the error is the same with however many permutations.
    dealt = np.random.default_rng([seed, 2]).permutation(len(sample.rows))
    block = dealt % min(_BLOCKS, len(sample.rows))
    parts = [_deal(every.rows[block[every.rows] != b], sample.segments) for b in range(block.max() + 1)]
    found, by_chance, by_part = [], [], []
    for column in told_columns(frame, columns, sample.rows):
        values = _values_of(column)
        if values is None or np.isnan(share := values.share(every)):
            continue
        shares = np.array([values.share(deal) for deal in chance])
        found.append(
            ColumnSeparation(column.plan.name, values.measure, share, _p_value(share, shares), float(shares.mean()))
        )
        by_chance.append(shares)
        by_part.append([values.share(deal) for deal in parts])
    if not found:
        return None
    mean = float(np.mean([column.share for column in found]))
    return Separation(
        share=mean,
        error=_jackknife(np.array(by_part)),
        p_value=_p_value(mean, np.mean(by_chance, axis=0)),
        columns=tuple(found),
        rows=len(sample.rows),
        chance=float(np.mean([column.chance for column in found])),
    )


@dataclass(frozen=True, eq=False)
class _Deal:
    """Rows dealt to segments: ``rows`` int64[m] in the order of their ``segments`` int64[m], and of how many ``ids``.

    ``sums`` is the matrix [ids, n] of ones and zeros whose product with a column's values sums them by segment.
    """

    rows: Ints
    segments: Ints
    ids: int
    sums: Any

    def permuted(self, rows: Ints) -> _Deal:
        """Other rows in the same segments."""
        from scipy.sparse import csr_matrix

        return _Deal(
            rows, self.segments, self.ids, csr_matrix((self.sums.data, rows, self.sums.indptr), self.sums.shape)
        )


def _deal(rows: Ints, segments: Ints) -> _Deal:
    from scipy.sparse import csr_matrix

    own = segments[rows]
    ids = int(segments.max()) + 1
    starts = np.searchsorted(own, np.arange(ids + 1))
    return _Deal(rows, own, ids, csr_matrix((np.ones(len(rows)), rows, starts), (ids, len(segments))))


@dataclass(frozen=True, eq=False)
class _Measured:
    """A column as vectors: ``table`` float64[n, 2 + d] has whether a row has a value, its squared length, the vector.

    All zeros in rows without a value.
    """

    table: Floats
    measure: Literal["eta_squared", "text"]

    def share(self, deal: _Deal) -> float:
        """Sum of squares between segments over that of all rows; NaN where the latter is 0."""
        sums = deal.sums @ self.table
        rows, vectors = sums[:, 0], sums[:, 2:]
        count = rows.sum()
        if not count:
            return float("nan")
        middle = (vectors.sum(axis=0) ** 2).sum() / count
        total = sums[:, 1].sum() - middle
        if total <= _NOTHING * count:
            return float("nan")
        squares = (vectors**2).sum(axis=1)
        between = np.divide(squares, rows, out=np.zeros_like(squares), where=rows > 0).sum() - middle
        return float(np.clip(between / total, 0, 1))


@dataclass(frozen=True, eq=False)
class _Named:
    """A column as ``codes`` int64[n] below ``width``, -1 where missing."""

    codes: Ints
    width: int
    measure: Literal["nmi"] = "nmi"

    def share(self, deal: _Deal) -> float:
        """Mutual information over the mean of the two entropies; NaN where all rows have one value, or no two do."""
        codes = self.codes[deal.rows]
        present = codes >= 0
        codes, segments = codes[present], deal.segments[present]
        counts = np.bincount(codes, minlength=1)
        of_values = _entropy(counts)
        # Values that are all different share the same with any segments.
        if of_values <= _NOTHING or counts.max() == 1:
            return float("nan")
        of_segments = _entropy(np.bincount(segments))
        cells = segments * self.width + codes
        # A table of all cells would be mostly zeros where a column has nearly as many values as rows.
        dense = deal.ids * self.width <= 8 * len(codes)
        both = _entropy(np.bincount(cells) if dense else np.unique(cells, return_counts=True)[1])
        mutual = of_segments + of_values - both
        return float(np.clip(2 * mutual / (of_segments + of_values), 0, 1))


def _entropy(counts: npt.NDArray[np.integer]) -> float:
    counts = counts[counts > 0]
    total = counts.sum()
    return float(np.log(total) - (counts * np.log(counts)).sum() / total) if total else 0.0


def _values_of(column: Column) -> _Measured | _Named | None:
    if isinstance(column, CategoryColumn):
        return _Named(column.codes, len(column.names))
    if isinstance(column, NumberColumn):
        return _table(_scaled(column.values)[:, None], ~np.isnan(column.values), "eta_squared")
    return _text_table(column)


def _scaled(values: Floats) -> Floats:
    """From -1 to 1 about the middle of their range, in halves, as the range itself can exceed a float."""
    present = values[~np.isnan(values)]
    if not len(present):
        return values
    low, high = present.min() / 2, present.max() / 2
    return np.asarray((values / 2 - low) / (high - low) * 2 - 1 if high > low else values * 0)


def _text_table(column: TextColumn) -> _Measured | None:
    present = ~column.missing
    weights = text_weights(column.words, least=_LEAST_TEXTS)
    return _table(_components(weights), present, "text") if weights.nnz else None


def _components(weights: Any) -> Floats:
    """The leading right singular vectors' coordinates of the rows of a sparse matrix, float64[n, at most 32]."""
    from sklearn.decomposition import TruncatedSVD

    if min(weights.shape) <= _COMPONENTS:
        return np.asarray(weights.toarray())  # as much varies in it as in all of its components
    # One thread, as sums in another order would change the last digits. Always the same start: no seed has a say here.
    # Not by random projections, which are far from done where many directions vary alike, as in long texts.
    with one_thread():
        return np.asarray(TruncatedSVD(_COMPONENTS, algorithm="arpack", random_state=0).fit_transform(weights))


def _table(vectors: Floats, present: npt.NDArray[np.bool_], measure: Literal["eta_squared", "text"]) -> _Measured:
    if present.any():
        vectors = vectors - vectors[present].mean(axis=0)  # sums of squares lose digits far from 0
    vectors = np.where(present[:, None], vectors, 0.0)
    return _Measured(np.column_stack([present.astype(np.float64), (vectors**2).sum(axis=1), vectors]), measure)


def _p_value(share: float, by_chance: Floats) -> float:
    return (1 + int(np.count_nonzero(by_chance >= share - _TIE))) / (1 + len(by_chance))


def _jackknife(shares: Floats) -> float:
    """The standard error of the mean over columns, of ``shares`` [columns, blocks] each without one block of rows."""
    # Without a block a column may be left with one value; then it has no share there.
    known = ~np.isnan(shares)
    columns = known.sum(axis=0)
    means = np.where(known, shares, 0).sum(axis=0)[columns > 0] / columns[columns > 0]
    if len(means) < 2:
        return float("nan")
    return float(np.sqrt((len(means) - 1) / len(means) * ((means - means.mean()) ** 2).sum()))
