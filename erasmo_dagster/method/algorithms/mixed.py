"""Mixtures of mixed columns, on the points of a table."""

from __future__ import annotations

import numpy as np

from erasmo_dagster.method.algorithms.base import Cut, Partitioner, Points
from erasmo_dagster.method.neighbors import references_of
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.method.tables.mixture import Fit, Rows, fit_mixture
from erasmo_dagster.method.tables.rule import MixedRule
from erasmo_dagster.method.tables.starts import starts
from erasmo_dagster.settings import ClusteringSettings

# Rows that a mixture is fitted on, a seeded sample where there are more: its figures move by less than 1 % from there.
MOST_ROWS = 20_000


def mixture(points: Points, settings: ClusteringSettings, seed: int, layout: Layout) -> Partitioner:
    """A mixture of k segments of ``points`` with ``layout``: see :mod:`erasmo_dagster.method.tables.mixture`.

    The best of ``n_init`` starts. Each cut says how many bits a row it saves.
    """
    sample = points[references_of(np.zeros(len(points), dtype=np.int64), MOST_ROWS, seed=seed)]
    rows = Rows(layout, sample)
    alone = _fitted(rows, 1, settings, seed)

    def cut(k: int) -> Cut:
        fit = _fitted(rows, k, settings, seed)
        rule = MixedRule(layout, fit.density)
        placed = rule.place(points, points[:0])
        centers = np.zeros((k, points.shape[1]), dtype=np.float32)
        for segment in range(k):
            if (own := placed.labels == segment).any():
                centers[segment] = points[own].mean(axis=0, dtype=np.float64)
        notes = () if fit.settled else (f"mixture with k={k} still changed after {fit.rounds} rounds.",)
        return Cut(placed.labels, soft=(centers, rule), notes=notes, bits_saved=saved_bits(alone, fit))

    return Partitioner(cut, "memberships")


def saved_bits(alone: Fit, fit: Fit) -> float:
    """Bits that a row's description is shorter by with segments than without, by the ICL of both."""
    return (alone.icl - fit.icl) / (2 * float(np.log(2)) * len(fit.responsibilities))


def _fitted(rows: Rows, k: int, settings: ClusteringSettings, seed: int) -> Fit:
    count = settings.n_init if k > 1 else 1
    return fit_mixture(rows, starts(rows.points, rows.layout, k, count=count, seed=seed), k)
