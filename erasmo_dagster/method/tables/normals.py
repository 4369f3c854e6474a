"""Normal densities of some dimensions, one a segment, where rows may lack some of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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

    ``patterns`` are the different ones and their rows. Those that as many rows have stand together, so that they can be
    worked on at once: each entry is bool[g, p] and int64[g, m], g patterns of m rows each.
    """

    values: Doubles
    present: Mask
    patterns: tuple[tuple[Mask, Ints], ...]

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
        patterns = []
        for size in np.unique(sizes[masks.any(axis=1)]).tolist():
            same = np.flatnonzero((sizes == size) & masks.any(axis=1))
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
            mine, values = weights[who], rows.of_rows(who)
            by_pattern = mine.sum(axis=1)
            totals += by_pattern.sum(axis=0)
            if not has.all():
                # What a row lacks is expected to be a part that its own values tell, and one that its segment does.
                lead, rest, shift = _nothing_known(has, k) if before is None else before.expected(has)
                values = values + values @ lead.transpose(0, 2, 1)
                shifts = (shift * by_pattern[:, :, None]).reshape(-1, p)
                by_shift = (mine.transpose(0, 2, 1) @ values).reshape(-1, p).T @ shift.reshape(-1, p)
                sums += (shift * by_pattern[:, :, None]).sum(axis=0)
                scatter += by_shift + by_shift.T + shifts.T @ shift.reshape(-1, p)
                scatter += np.tensordot(by_pattern.sum(axis=1), rest, axes=1)
            mine, values = mine.reshape(-1, k), values.reshape(-1, p)
            sums += mine.T @ values
            scatter += (values * mine.sum(axis=1)[:, None]).T @ values
        means = np.divide(sums, totals[:, None], out=np.zeros_like(sums), where=totals[:, None] > 0)
        within = scatter - (means * totals[:, None]).T @ means
        n = max(float(totals.sum()), 1.0)
        share = prior * n / k
        covariance = (within + share * spread * np.eye(p)) / (n + share)
        return cls(means, (covariance + covariance.T) / 2 + _LEAST * spread * np.eye(p))

    def expected(self, has: Mask) -> tuple[Doubles, Doubles, Doubles]:
        """What is expected of the dimensions that rows lack, for patterns ``has`` bool[g, p].

        What leads from the dimensions there to the others float64[g, p, p], the others' covariance float64[g, p, p], and
        what the segments add to them float64[g, k, p].
        """
        across = np.where(has[:, :, None] & ~has[:, None, :], self.covariance, 0)
        lead = np.linalg.solve(_of_present(self.covariance, has), across).transpose(0, 2, 1)
        rest = np.where(~has[:, :, None] & ~has[:, None, :], self.covariance, 0) - lead @ across
        shift = np.where(has[:, None, :], 0, self.means - self.means @ lead.transpose(0, 2, 1))
        return lead, rest, shift

    def log_density(self, rows: Observed) -> Doubles:
        """float64[n, k]; dimensions that a row lacks are integrated out."""
        found = np.zeros((len(rows.values), len(self.means)))
        for has, who, white, logdet in self._whitened(rows):
            points = rows.of_rows(who) @ white.transpose(0, 2, 1)
            centers = (self.means * has[:, None, :]) @ white.transpose(0, 2, 1)
            squared = (points**2).sum(axis=2)[:, :, None] - 2 * points @ centers.transpose(0, 2, 1)
            squared += (centers**2).sum(axis=2)[:, None, :]
            found[who] = -0.5 * (squared + has.sum(axis=1)[:, None, None] * _LOG_2PI) - logdet[:, None, None]
        return found

    def _whitened(self, rows: Observed) -> Iterator[tuple[Mask, Ints, Doubles, Doubles]]:
        for has, who in rows.patterns:
            lower = np.linalg.cholesky(_of_present(self.covariance, has))
            logdet = np.log(np.diagonal(lower, axis1=1, axis2=2)).sum(axis=1)
            yield has, who, np.linalg.inv(lower), logdet

    @property
    def parameters(self) -> int:
        """How many were fitted."""
        p = len(self.covariance)
        return self.means.size + p * (p + 1) // 2


def _of_present(covariance: Doubles, has: Mask) -> Doubles:
    """The covariance of the dimensions of each pattern float64[g, p, p]; the others are apart, with variance 1."""
    own = np.where(has[:, :, None] & has[:, None, :], covariance, 0)
    return own + np.eye(len(covariance)) * ~has[:, None, :]


def _nothing_known(has: Mask, k: int) -> tuple[Doubles, Doubles, Doubles]:
    """As :meth:`Tied.expected`, before there is anything: mean 0 and variance 1."""
    p = has.shape[1]
    return np.zeros((len(has), p, p)), np.eye(p) * ~has[:, None, :], np.zeros((len(has), k, p))
