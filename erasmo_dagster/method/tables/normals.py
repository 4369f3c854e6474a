"""Normal densities of some dimensions, one a segment, where rows may lack some of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_LOG_2PI = float(np.log(2 * np.pi))
_LEAST = 1e-6  # variance added to every dimension, so that no matrix is singular
_MOST_NUMBERS = 2_000_000  # in the matrices of the patterns that are worked on at a time


@dataclass(frozen=True, eq=False)
class Observed:
    """Rows ``values`` float64[n, p], 0 where missing, and what they have: ``present`` bool[n, p].

    ``patterns`` are the different ones and their rows. Those of as many dimensions and rows stand together, to be
    worked on at once: each entry is bool[g, p] and int64[g, m], g patterns of m rows each.
    """

    values: Doubles
    present: Mask
    patterns: tuple[tuple[Mask, Ints], ...]

    @cached_property
    def squares(self) -> Doubles:
        """The values squared; every round of a fit asks for them."""
        return np.square(self.values)

    @cached_property
    def counted(self) -> Doubles:
        """1 where a row has the dimension, else 0."""
        return self.present.astype(np.float64)

    @property
    def spread(self) -> float:
        """Mean variance of the dimensions, over the rows that have them; 1 where nothing varies."""
        counts = np.maximum(self.present.sum(axis=0), 1)
        means = self.values.sum(axis=0) / counts
        spread = float((np.maximum((self.values**2).sum(axis=0) / counts - means**2, 0)).mean())
        return spread if spread > 0 else 1.0

    @classmethod
    def of(cls, values: Doubles, present: Mask) -> Observed:
        """Group the rows by what they have; those that have nothing are in no pattern."""
        n, p = values.shape
        # Patterns as byte strings of one length, which sort far faster than rows of an array.
        packed = np.ascontiguousarray(np.packbits(present, axis=1))
        keys = packed.view(f"S{packed.shape[1]}")[:, 0] if n else np.empty(0, dtype="S1")
        _, first, which, sizes = np.unique(keys, return_index=True, return_inverse=True, return_counts=True)
        order, ends = np.argsort(which, kind="stable"), np.cumsum(sizes)
        masks = present[first]
        widths, patterns = masks.sum(axis=1), []
        for width, size in sorted(set(zip(widths.tolist(), sizes.tolist(), strict=True))):
            if not width:
                continue
            same = np.flatnonzero((widths == width) & (sizes == size))
            most = max(1, _MOST_NUMBERS // (p * max(p, size)))
            for start in range(0, len(same), most):
                part = same[start : start + most]
                rows = order[(ends[part] - size)[:, None] + np.arange(size)]
                patterns.append((masks[part], rows))
        return cls(values, present, tuple(patterns))

    def of_rows(self, rows: Ints) -> Doubles:
        """The values float64[g, m, p] of ``rows`` int64[g, m] of an entry of the patterns."""
        return self.values[None] if rows.shape == (1, len(self.values)) else self.values[rows]


@dataclass(frozen=True, eq=False)
class Diagonal:
    """Variances float64[k, p] of their own in each segment, no correlation within one; ``means`` float64[k, p]."""

    means: Doubles
    variances: Doubles

    @classmethod
    def fit(cls, rows: Observed, weights: Doubles, prior: float) -> Diagonal:
        """From responsibilities ``weights`` float64[n, k].

        Every variance is drawn towards 1, that of all rows, by ``prior`` times the rows, shared among the segments.
        """
        n, k = weights.shape
        share = prior * n / k
        counts = weights.T @ rows.counted
        means = np.divide(weights.T @ rows.values, counts, out=np.zeros_like(counts), where=counts > 0)
        squares = np.divide(weights.T @ rows.squares, counts, out=np.ones_like(counts), where=counts > 0)
        variances = (np.maximum(squares - means**2, 0) * counts + share) / (counts + share)
        return cls(means, variances + _LEAST)

    def log_density(self, rows: Observed) -> Doubles:
        """float64[n, k]; a dimension that a row lacks says nothing."""
        inverse = 1 / self.variances
        squared = rows.squares @ inverse.T - 2 * rows.values @ (self.means * inverse).T
        return np.asarray(
            -0.5 * (squared + rows.counted @ (self.means**2 * inverse + np.log(self.variances) + _LOG_2PI).T),
        )

    @property
    def parameters(self) -> int:
        """How many were fitted."""
        return 2 * self.means.size


@dataclass(frozen=True, eq=False)
class Tied:
    """One covariance float64[p, p] in all segments; ``means`` float64[k, p]."""

    means: Doubles
    covariance: Doubles

    @classmethod
    def fit(
        cls, rows: Observed, weights: Doubles, prior: float, *, before: Tied | None = None, spread: float = 1.0
    ) -> Tied:
        """From responsibilities ``weights`` float64[n, k]; what rows lack is expected by ``before``.

        Little and Rubin (2002), "Statistical Analysis with Missing Data", section 11.2. The covariance is drawn towards
        the identity times ``spread``, by as many rows as each of :class:`Diagonal`'s is towards 1.
        """
        k, p = weights.shape[1], rows.values.shape[1]
        before = before or cls(np.zeros((k, p)), np.eye(p))
        precision = np.asarray(np.linalg.inv(before.covariance), dtype=np.float64)
        totals, sums, scatter = np.zeros(k), np.zeros((k, p)), np.zeros((p, p))
        for has, who in rows.patterns:
            mine, values = weights[who], rows.of_rows(who)
            by_pattern = mine.sum(axis=1)
            totals += by_pattern.sum(axis=0)
            if not has.all():
                lacking = _Lacking.of(has, precision)
                values, shift = lacking.expected(values, before.means)
                shares = (shift * by_pattern[:, :, None]).reshape(-1, p)
                both = (mine.transpose(0, 2, 1) @ values).reshape(-1, p).T @ shift.reshape(-1, p)
                sums += shares.reshape(-1, k, p).sum(axis=0)
                scatter += both + both.T + shares.T @ shift.reshape(-1, p)
                lacking.add(scatter, by_pattern.sum(axis=1))
            mine, values = mine.reshape(-1, k), values.reshape(-1, p)
            sums += mine.T @ values
            scatter += (values * mine.sum(axis=1)[:, None]).T @ values
        means = np.divide(sums, totals[:, None], out=np.zeros_like(sums), where=totals[:, None] > 0)
        within = scatter - (means * totals[:, None]).T @ means
        n = max(float(totals.sum()), 1.0)
        share = prior * n / k
        covariance = (within + share * spread * np.eye(p)) / (n + share)
        return cls(means, (covariance + covariance.T) / 2 + _LEAST * spread * np.eye(p))

    def log_density(self, rows: Observed) -> Doubles:
        """float64[n, k]; dimensions that a row lacks are integrated out."""
        found = np.zeros((len(rows.values), len(self.means)))
        lower = np.linalg.cholesky(self.covariance)
        white = np.asarray(np.linalg.inv(lower), dtype=np.float64)
        logdet = np.log(np.diag(lower)).sum()
        for has, who in rows.patterns:
            values, means, apart = rows.of_rows(who), self.means[None], np.zeros(len(has))
            if not has.all():
                # A row has as much density as with what is expected where it lacks something, but for a constant.
                lacking = _Lacking.of(has, white.T @ white)
                values, shift = lacking.expected(values, self.means)
                means, apart = self.means - shift, lacking.logdet
            points, centers = values @ white.T, means @ white.T
            squared = (points**2).sum(axis=2)[:, :, None] - 2 * points @ centers.transpose(0, 2, 1)
            squared += (centers**2).sum(axis=2)[:, None, :]
            constant = 0.5 * (has.sum(axis=1) * _LOG_2PI + apart) + logdet
            found[who] = -0.5 * squared - constant[:, None, None]
        return found

    @property
    def parameters(self) -> int:
        """How many were fitted."""
        p = len(self.covariance)
        return self.means.size + p * (p + 1) // 2


@dataclass(frozen=True, eq=False)
class _Lacking:
    """What rows of some patterns lack, by the other dimensions: ``where`` int64[g, q], q dimensions in each pattern.

    ``lead`` float64[g, q, p] leads there from those that they have, and ``rest`` float64[g, q, q] is the covariance
    that is left. ``logdet`` float64[g] is that of the inverse of ``rest``.
    """

    has: Mask
    where: Ints
    lead: Doubles
    rest: Doubles
    logdet: Doubles

    @classmethod
    def of(cls, has: Mask, precision: Doubles) -> _Lacking:
        """For patterns ``has`` bool[g, p] of as many dimensions, by the inverse of the whole covariance float64[p, p].

        Conditional normal densities in terms of the precision: only q x q matrices have to be inverted.
        """
        where = np.nonzero(~has)[1].reshape(len(has), -1)
        own = precision[where[:, :, None], where[:, None, :]]
        rest: Doubles = np.asarray(np.linalg.inv(own), dtype=np.float64)
        return cls(has, where, -rest @ (precision[where] * has[:, None, :]), rest, np.linalg.slogdet(own)[1])

    def expected(self, values: Doubles, means: Doubles) -> tuple[Doubles, Doubles]:
        """``values`` float64[g, m, p] with what is expected of the others where the means are 0.

        And what each segment's ``means`` float64[k, p] add to that, float64[g, k, p].
        """
        across = self.lead.transpose(0, 2, 1)
        full, shift = values.copy(), np.zeros((len(values), *means.shape))
        np.put_along_axis(full, self.where[:, None, :], values @ across, axis=2)
        added = means[:, self.where].transpose(1, 0, 2) - (means * self.has[:, None, :]) @ across
        np.put_along_axis(shift, self.where[:, None, :], added, axis=2)
        return full, shift

    def add(self, scatter: Doubles, weights: Doubles) -> None:
        """Add to ``scatter`` float64[p, p] what is left, times the patterns' ``weights`` float64[g]."""
        places = (self.where[:, :, None], self.where[:, None, :])
        np.add.at(scatter, places, self.rest * weights[:, None, None])
