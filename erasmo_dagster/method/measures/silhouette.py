"""The silhouette by the table's own columns, with what it owes to the rows that were drawn for it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.gower import gower_distances, gower_silhouette
from erasmo_dagster.method.measures.rows import Estimate, Labels, in_segments


def gower_silhouette_of(
    frame: pl.DataFrame,
    columns: Sequence[ColumnPlan],
    labels: Labels,
    *,
    seed: int,
    rows: int = 2_000,
    repeats: int = 5,
) -> Estimate | None:
    """Mean silhouette, -1 to 1, of ``labels`` int[n] under Gower distance (:func:`.gower.gower_distances`).

    Up to ``rows`` rows in segments it is exact, with error 0. Beyond, it is the mean over ``repeats`` samples that
    ``seed`` draws independently, of ``rows`` rows each, and the error is the standard error of that mean; with one
    sample nothing tells the error, and it is NaN. Ranges of numbers and weights of words are those of each sample.
    ``rows`` of the answer are those of one sample. Rows of label -1 are noise and left out.

    A pair is as far apart as the average pair by a column that either row lacks, so that segments of rows that lack
    something are neither good nor bad for that.

    None where there are fewer than two segments, as many as rows, or no column with values in two rows. Raises
    ValueError where there is not one label a row.
    """
    kept = in_segments(labels, frame.height)
    plans = [column for column in columns if column.kind != "nested"]
    if not plans:
        return None
    told = frame.select(column.name for column in plans)
    if len(kept) <= rows:
        samples = [kept]
    else:
        rng = np.random.default_rng(seed)
        samples = [np.sort(rng.choice(kept, rows, replace=False, shuffle=False)) for _ in range(repeats)]
    figures = []
    for sample in samples:
        distances = gower_distances(told[sample], plans)
        if distances is not None and (figure := gower_silhouette(distances, labels[sample])) is not None:
            figures.append(figure)
    if not figures:
        return None
    error = 0.0
    if len(kept) > rows:
        error = float(np.std(figures, ddof=1) / np.sqrt(len(figures))) if len(figures) > 1 else float("nan")
    return Estimate(float(np.mean(figures)), error, len(samples[0]))
