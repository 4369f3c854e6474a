"""The measures as figures by the names of :data:`erasmo_dagster.method.quality.METRICS`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.measures.explain import explain
from erasmo_dagster.method.measures.rows import Labels
from erasmo_dagster.method.measures.separation import separation
from erasmo_dagster.method.measures.silhouette import gower_silhouette_of
from erasmo_dagster.method.measures.stability import Stability


def table_measures(
    frame: pl.DataFrame, columns: Sequence[ColumnPlan], labels: Labels, *, seed: int
) -> dict[str, float]:
    """What the table's own columns say of segments ``labels`` int[n]; those labelled -1 are noise and left out.

    ``separation`` with ``_error`` and ``_p``, ``gower_silhouette`` with ``_error``, ``tree_accuracy`` with ``_error``
    and ``tree_baseline``. A figure that is not defined (one segment, no column that varies) is not there. Of large
    tables they are of samples that ``seed`` draws. Raises ValueError where there is not one label a row.
    """
    figures: dict[str, float] = {}
    if (parts := separation(frame, columns, labels, seed=seed)) is not None:
        figures |= {"separation": parts.share, "separation_error": parts.error, "separation_p": parts.p_value}
    if (silhouette := gower_silhouette_of(frame, columns, labels, seed=seed)) is not None:
        figures |= {"gower_silhouette": silhouette.value, "gower_silhouette_error": silhouette.error}
    if (told := explain(frame, columns, labels, seed=seed)) is not None:
        figures |= {
            "tree_accuracy": told.accuracy,
            "tree_accuracy_error": told.error,
            "tree_baseline": told.baseline,
        }
    return {name: value for name, value in figures.items() if math.isfinite(value)}


def stability_measures(found: Stability) -> dict[str, float]:
    """``stability`` with ``_error``, ``_split_half``, ``_seeds`` and ``_worst_segment``."""
    return {
        "stability": found.ari,
        "stability_error": found.error,
        "stability_split_half": found.split_half,
        "stability_seeds": found.seeds,
        "stability_worst_segment": min(found.jaccard),
    }
