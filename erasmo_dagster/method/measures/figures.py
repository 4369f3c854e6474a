"""The measures as figures by the names of :data:`erasmo_dagster.method.quality.METRICS`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.measures.explain import Explained, explain
from erasmo_dagster.method.measures.rows import Estimate, Labels
from erasmo_dagster.method.measures.separation import Separation, separation
from erasmo_dagster.method.measures.silhouette import gower_silhouette_of
from erasmo_dagster.method.measures.stability import Stability


@dataclass(frozen=True)
class TableMeasures:
    """What the table's own columns say of segments; None is what is not defined (one segment, nothing that varies)."""

    separation: Separation | None
    silhouette: Estimate | None
    explained: Explained | None

    def figures(self) -> dict[str, float]:
        """``separation`` with ``_error`` and ``_p``, ``gower_silhouette`` with ``_error``, ``tree_accuracy`` with
        ``_error`` and ``tree_baseline``; what is not defined is not there."""
        figures: dict[str, float] = {}
        if (parts := self.separation) is not None:
            figures |= {"separation": parts.share, "separation_error": parts.error, "separation_p": parts.p_value}
        if (silhouette := self.silhouette) is not None:
            figures |= {"gower_silhouette": silhouette.value, "gower_silhouette_error": silhouette.error}
        if (told := self.explained) is not None:
            figures |= {
                "tree_accuracy": told.accuracy,
                "tree_accuracy_error": told.error,
                "tree_baseline": told.baseline,
            }
        return {name: value for name, value in figures.items() if math.isfinite(value)}


def measure_table(
    frame: pl.DataFrame, columns: Sequence[ColumnPlan], labels: Labels, *, seed: int, permutations: int = 199
) -> TableMeasures:
    """What ``columns`` of ``frame`` say of segments ``labels`` int[n]; those labelled -1 are noise and left out.

    Of large tables it is of samples that ``seed`` draws. ``permutations`` are those of :func:`separation`, whose
    p-value is never below 1 / (1 + ``permutations``). Raises ValueError where there is not one label a row.
    """
    return TableMeasures(
        separation=separation(frame, columns, labels, seed=seed, permutations=permutations),
        silhouette=gower_silhouette_of(frame, columns, labels, seed=seed),
        explained=explain(frame, columns, labels, seed=seed),
    )


def table_measures(
    frame: pl.DataFrame, columns: Sequence[ColumnPlan], labels: Labels, *, seed: int
) -> dict[str, float]:
    """The figures of :func:`measure_table` by name."""
    return measure_table(frame, columns, labels, seed=seed).figures()


def stability_measures(found: Stability) -> dict[str, float]:
    """``stability`` with ``_error``, ``_split_half``, ``_seeds`` and ``_worst_segment``."""
    return {
        "stability": found.ari,
        "stability_error": found.error,
        "stability_split_half": found.split_half,
        "stability_seeds": found.seeds,
        "stability_worst_segment": min(found.jaccard),
    }
