"""Normal densities of some dimensions, one a segment, where rows may lack some of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_LOG_2PI = float(np.log(2 * np.pi))
_LEAST = 1e-6  # variance added to every dimension, so that no matrix is singular


@dataclass(frozen=True, eq=False)
class Observed:
    """Rows ``values`` float64[n, p], 0 where missing, and their patterns: what they have bool[p], and who they are."""

    values: Doubles
    present: Mask
    patterns: tuple[tuple[Mask, npt.NDArray[np.int64]], ...]

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
        packed = np.packbits(present, axis=1)
        _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        ends = np.cumsum(np.bincount(which.ravel(), minlength=len(first)))
        groups = [(present[at], rows) for at, rows in zip(first, np.split(order, ends[:-1]), strict=True)]
        return cls(values, present, tuple((mask, rows) for mask, rows in groups if mask.any()))


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
        counts = weights.T @ rows.present
        means = np.divide(weights.T @ rows.values, counts, out=np.zeros_like(counts), where=counts > 0)
        squares = np.divide(weights.T @ rows.values**2, counts, out=np.ones_like(counts), where=counts > 0)
        variances = (np.maximum(squares - means**2, 0) * counts + share) / (counts + share)
        return cls(means, variances + _LEAST)

    def log_density(self, rows: Observed) -> Doubles:
        """float64[n, k]; a dimension that a row lacks says nothing."""
        inverse = 1 / self.variances
        squared = rows.values**2 @ inverse.T - 2 * rows.values @ (self.means * inverse).T
        present = rows.present.astype(np.float64)
        return np.asarray(
            -0.5 * (squared + present @ (self.means**2 * inverse + np.log(self.variances) + _LOG_2PI).T),
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
        totals, sums, scatter = np.zeros(k), np.zeros((k, p)), np.zeros((p, p))
        for has, who in rows.patterns:
            mine, values = weights[who], rows.values[who]
            totals += mine.sum(axis=0)
            if has.all():
                sums += mine.T @ values
                scatter += (values * mine.sum(axis=1)[:, None]).T @ values
                continue
            lead, rest = (np.zeros((p, p)), np.diag(~has).astype(float)) if before is None else before.expected(has)
            means = np.zeros((k, p)) if before is None else before.means
            scatter += mine.sum() * rest
            for segment in range(k):
                full = np.where(has, values, means[segment] + (values - means[segment]) @ lead.T)
                sums[segment] += mine[:, segment] @ full
                scatter += (full * mine[:, [segment]]).T @ full
        means = np.divide(sums, totals[:, None], out=np.zeros_like(sums), where=totals[:, None] > 0)
        within = scatter - (means * totals[:, None]).T @ means
        n = max(float(totals.sum()), 1.0)
        share = prior * n / k
        covariance = (within + share * spread * np.eye(p)) / (n + share)
        return cls(means, (covariance + covariance.T) / 2 + _LEAST * spread * np.eye(p))

    def expected(self, has: Mask) -> tuple[Doubles, Doubles]:
        """What leads from the dimensions that rows have to the others float64[p, p], and the others' covariance."""
        p = len(has)
        lead, rest = np.zeros((p, p)), np.zeros((p, p))
        own = self.covariance[np.ix_(has, has)]
        across = self.covariance[np.ix_(~has, has)]
        solved = np.linalg.solve(own, across.T).T
        lead[np.ix_(~has, has)] = solved
        rest[np.ix_(~has, ~has)] = self.covariance[np.ix_(~has, ~has)] - solved @ across.T
        return lead, rest

    def log_density(self, rows: Observed) -> Doubles:
        """float64[n, k]; dimensions that a row lacks are integrated out."""
        found = np.zeros((len(rows.values), len(self.means)))
        for has, who, white, logdet in self._whitened(rows):
            points, centers = rows.values[who][:, has] @ white.T, self.means[:, has] @ white.T
            squared = (points**2).sum(axis=1)[:, None] - 2 * points @ centers.T + (centers**2).sum(axis=1)
            found[who] = -0.5 * (squared + has.sum() * _LOG_2PI) - logdet
        return found

    def _whitened(self, rows: Observed) -> Iterator[tuple[Mask, npt.NDArray[np.int64], Doubles, float]]:
        for has, who in rows.patterns:
            lower = np.linalg.cholesky(self.covariance[np.ix_(has, has)])
            yield has, who, np.linalg.inv(lower), float(np.log(np.diag(lower)).sum())

    @property
    def parameters(self) -> int:
        """How many were fitted."""
        p = len(self.covariance)
        return self.means.size + p * (p + 1) // 2
