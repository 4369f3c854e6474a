"""Model-based clustering of tables of mixed columns: a mixture that each column takes part in by its own kind.

Within a segment, numbers are normal (each by itself, or all correlated alike in every segment, whichever describes the
table better), categories are multinomial, and a text's components are normal with one covariance. Columns of different
kinds are independent within a segment. So no column needs a weight: it counts by how much it tells the segments apart.

Hunt and Jorgensen (1999), "Mixture model clustering using the MULTIMIX program", ANZJS 41, for the model; Fraley and
Raftery (2007), "Bayesian regularization for normal mixture estimation", for priors that keep variances from 0;
Biernacki, Celeux and Govaert (2003), "Choosing starting values for the EM algorithm", CSDA 41, for many short runs
before a few long ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.tables.layout import Floats, Layout
from erasmo_dagster.method.tables.normals import Diagonal, Doubles, Observed, Tied
from erasmo_dagster.method.threads import one_thread

Labels = npt.NDArray[np.int64]

# Rows of the prior, as a share of all: no segment's variance in a column falls much below a tenth of the column's.
PRIOR_SHARE = 0.1
# Rows that a segment is taken to have beside its own, with each category's values as in all rows.
PRIOR_ROWS = 5.0
# Rows that a segment holds at least, as a share of all, where there is a choice.
LEAST_SHARE = 0.01
_SHORT, _LONG = 15, 200  # rounds
_LONG_RUNS = 3
_LEAST_LOG = -30.0  # of a probability
_STILL = 1e-5  # gain of log-likelihood a row at which a run has ended


@dataclass(frozen=True, eq=False)
class Rows:
    """Points float32[n, d] taken apart by a layout, for fitting and placing."""

    layout: Layout
    points: Floats
    numbers: Observed | None = field(init=False)
    dense: tuple[Observed, ...] = field(init=False)
    spreads: tuple[float, ...] = field(init=False)  # of each dense block
    chosen: Doubles = field(init=False)  # 1 at each category's value float64[n, values], no 1 where it is missing

    def __post_init__(self) -> None:
        layout, points = self.layout, self.points
        if points.shape[1] != layout.width:
            raise ValueError(f"got points of {points.shape[1]} dimensions for a layout of {layout.width}")
        values = points[:, : layout.numbers].astype(np.float64)
        object.__setattr__(self, "numbers", Observed.of(values, values != 0) if layout.numbers else None)
        dense = []
        for span in layout.dense_spans:
            block = points[:, span].astype(np.float64)
            has = np.broadcast_to((block != 0).any(axis=1)[:, None], block.shape)
            dense.append(Observed.of(block, np.ascontiguousarray(has)))
        object.__setattr__(self, "dense", tuple(dense))
        object.__setattr__(self, "spreads", tuple(block.spread for block in dense))
        values_end = layout.numbers + sum(layout.categories)
        object.__setattr__(self, "chosen", (points[:, layout.numbers : values_end] != 0).astype(np.float64))

    def __len__(self) -> int:
        return len(self.points)

    @cached_property
    def prior(self) -> Doubles:
        """Rows that each segment is taken to have of each category's values beside its own, float64[values]."""
        overall = self.chosen.sum(axis=0)
        for span in _value_spans(self.layout):
            known = float(overall[span].sum())
            # Where no row has the category, as in a sample, all values are alike.
            overall[span] = PRIOR_ROWS * (overall[span] / known if known else 1 / (span.stop - span.start))
        return np.asarray(overall)


@dataclass(frozen=True, eq=False)
class Density:
    """A fitted mixture of k segments: ``shares`` float64[k], and for each kind of column what it is like in each.

    ``categories`` are the logarithms of the values' probabilities float64[k, values], all categories side by side.
    """

    shares: Doubles
    numbers: Diagonal | Tied | None
    categories: Doubles
    dense: tuple[Tied, ...]
    widths: tuple[int, ...]  # of the categories

    @classmethod
    def fit(cls, rows: Rows, weights: Doubles, *, tied: bool, before: Density | None = None) -> Density:
        """From responsibilities ``weights`` float64[n, k]: the maximum of the posterior (PRIOR_SHARE, PRIOR_ROWS).

        ``before`` says what is expected of the numbers that rows lack, where these are ``tied``.
        """
        numbers: Diagonal | Tied | None = None
        if rows.numbers is not None:
            last = before.numbers if before is not None and isinstance(before.numbers, Tied) else None
            numbers = (
                Tied.fit(rows.numbers, weights, PRIOR_SHARE, before=last)
                if tied
                else Diagonal.fit(rows.numbers, weights, PRIOR_SHARE)
            )
        categories = _log_shares(rows, weights)
        dense = tuple(
            Tied.fit(block, weights, PRIOR_SHARE, spread=spread)
            for block, spread in zip(rows.dense, rows.spreads, strict=True)
        )
        shares = weights.sum(axis=0) / len(weights)
        return cls(shares, numbers, categories, dense, rows.layout.categories)

    def log_joint(self, rows: Rows) -> Doubles:
        """Logarithm of each row's density in each segment times the segment's share: float64[n, k]."""
        with np.errstate(divide="ignore"):
            found = np.tile(np.log(self.shares), (len(rows), 1))
        if rows.numbers is not None and self.numbers is not None:
            found += self.numbers.log_density(rows.numbers)
        found += rows.chosen @ self.categories.T
        for block, normal in zip(rows.dense, self.dense, strict=True):
            found += normal.log_density(block)
        return found

    @property
    def parameters(self) -> int:
        """How many were fitted."""
        count = len(self.shares) - 1 + (self.numbers.parameters if self.numbers is not None else 0)
        count += len(self.shares) * sum(width - 1 for width in self.widths)
        return count + sum(normal.parameters for normal in self.dense)


def _log_shares(rows: Rows, weights: Doubles) -> Doubles:
    smoothed = weights.T @ rows.chosen + rows.prior
    for span in _value_spans(rows.layout):
        smoothed[:, span] /= smoothed[:, span].sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(smoothed), _LEAST_LOG)


def _value_spans(layout: Layout) -> tuple[slice, ...]:
    """The values of each category among those of all categories."""
    return tuple(slice(s.start - layout.numbers, s.stop - layout.numbers) for s in layout.category_spans)


@dataclass(frozen=True, eq=False)
class Fit:
    """A mixture as fitted: ``responsibilities`` float64[n, k], the log-likelihood, and what it costs.

    ``bic`` = -2 log-likelihood + parameters ln n (Schwarz, 1978); ``icl`` adds twice the entropy of the
    responsibilities (Biernacki, Celeux and Govaert, 2000), so that segments which overlap count for less. Lower is
    better. ``settled`` says whether the last round gained next to nothing.
    """

    density: Density
    responsibilities: Doubles
    log_likelihood: float
    rounds: int
    settled: bool

    @property
    def labels(self) -> Labels:
        """The segment of each row."""
        return np.asarray(self.responsibilities.argmax(axis=1), dtype=np.int64)

    @property
    def too_small(self) -> int:
        """How many segments hold less than LEAST_SHARE of the rows."""
        sizes = np.bincount(self.labels, minlength=self.responsibilities.shape[1])
        return int((sizes < LEAST_SHARE * len(self.responsibilities)).sum())

    @property
    def bic(self) -> float:
        """Bayesian information criterion."""
        n = len(self.responsibilities)
        return -2 * self.log_likelihood + self.density.parameters * float(np.log(n))

    @property
    def icl(self) -> float:
        """Integrated completed likelihood, by its usual approximation."""
        r = self.responsibilities
        entropy = -float((r * np.log(np.maximum(r, 1e-300))).sum())
        return self.bic + 2 * entropy


def responsibilities(joint: Doubles) -> tuple[Doubles, float]:
    """Posterior of each segment float64[n, k], and the log-likelihood, from :meth:`Density.log_joint`."""
    highest = reduce(np.maximum, joint.T)[:, None]  # by columns, as rows are short
    shifted = np.exp(joint - highest)
    total = shifted.sum(axis=1, keepdims=True)
    return shifted / total, float((highest + np.log(total)).sum())


def fit_mixture(rows: Rows, starts: Sequence[Labels], k: int) -> Fit:
    """The mixture of ``k`` segments from the best of some ``starts`` int64[n] (labels 0..k-1).

    Every start runs a few rounds of expectation maximization with each structure of the numbers; the best go on until
    they rest. The structure is chosen by BIC. Of both, what has fewer segments below LEAST_SHARE of the rows comes
    first: the likeliest mixture of all is often one that gives a few odd rows a segment of their own. A segment that a
    start leaves empty stays empty in its run.
    """
    with one_thread():  # several threads add up in another order
        found = [_best_run(rows, starts, k, tied) for tied in _structures(rows)]
        return min(found, key=lambda fit: (fit.too_small, fit.bic))


def _structures(rows: Rows) -> tuple[bool, ...]:
    return (False, True) if rows.layout.numbers > 1 else (False,)


def _best_run(rows: Rows, starts: Sequence[Labels], k: int, tied: bool) -> Fit:
    short = [_run(rows, np.eye(k)[start], tied, _SHORT) for start in starts]
    short.sort(key=lambda fit: (fit.too_small, -fit.log_likelihood))
    long = [_run(rows, fit.responsibilities, tied, _LONG, fit.density) for fit in short[:_LONG_RUNS]]
    return min(long, key=lambda fit: (fit.too_small, -fit.log_likelihood))


def _run(rows: Rows, weights: Doubles, tied: bool, most: int, density: Density | None = None) -> Fit:
    """Expectation maximization (Dempster, Laird and Rubin, 1977) for at most ``most`` rounds."""
    before, likelihood, settled = -np.inf, -np.inf, False
    rounds = 0
    while rounds < most and not settled:
        density = Density.fit(rows, weights, tied=tied, before=density)
        weights, likelihood = responsibilities(density.log_joint(rows))
        settled = likelihood - before < _STILL * len(rows)
        before, rounds = likelihood, rounds + 1
    assert density is not None
    return Fit(density, weights, likelihood, rounds, settled)
