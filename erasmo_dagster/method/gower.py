"""How far rows lie apart by the source's own columns, whatever a language model made of them.

Gower (1971), "A General Coefficient of Similarity and Some of Its Properties", Biometrics 27: the mean over the columns
of a dissimilarity between 0 and 1 that suits each column's kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan, code_of

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer]

_MEASURED = ("number", "datetime")
# Not text and nested: nearly every pair differs, which would add the same distance to all.
_NAMED = ("category", "boolean")


def gower_distances(frame: pl.DataFrame, columns: Sequence[ColumnPlan]) -> Floats | None:
    """Dissimilarities float32[n, n] between the rows of ``frame``: symmetric, 0 to 1, 0 on the diagonal.

    The mean over ``columns``, which ``frame`` holds by their names: |a - b| / range for numbers and moments, where the
    range is that of the rows given and infinities count as the finite extremes; 0 for equal texts and 1 for others in
    categories and booleans. Texts and nested values are left out.

    A column does not count for a pair where either row lacks it: null, NaN, blank text, or text where a number or a
    moment is due that does not read as a number. Two rows without any column in common have distance 1.

    None where no column has values in two rows. Two arrays of n x n are held, and as much again for a column at work.
    """
    total: Floats = np.zeros((frame.height, frame.height), np.float32)
    counted: Floats = np.zeros_like(total)
    for column in columns:
        if column.kind in _MEASURED:
            values = measured(frame[column.name])
            present = ~np.isnan(values)
            apart = np.abs(values[:, None] - values)
        elif column.kind in _NAMED:
            codes = _named(frame[column.name])
            present = codes >= 0
            apart = (codes[:, None] != codes).astype(np.float32)
        else:
            continue
        both = present[:, None] & present
        np.add(total, apart, out=total, where=both)
        counted += both
    np.fill_diagonal(counted, 0)
    if not counted.any():
        return None
    distances: Floats = np.divide(total, counted, out=np.ones_like(total), where=counted > 0)
    np.fill_diagonal(distances, 0)  # also of a row without any value
    return distances


def gower_silhouette(distances: npt.NDArray[np.floating], labels: Labels) -> float | None:
    """Mean silhouette, -1 to 1, of ``labels`` int[n] by ``distances`` float[n, n]; those labelled -1 are left out.

    Rousseeuw (1987), "Silhouettes", by scikit-learn; -1 is noise. None where fewer than two segments remain, or as many
    as rows. Raises ValueError where the two do not belong together.
    """
    from sklearn.metrics import silhouette_score

    if distances.shape != (len(labels), len(labels)):
        raise ValueError(f"got distances of shape {distances.shape} for {len(labels)} labels")
    kept = np.flatnonzero(labels >= 0)
    if not 2 <= len(np.unique(labels[kept])) < len(kept):
        return None
    return float(silhouette_score(distances[np.ix_(kept, kept)], labels[kept], metric="precomputed"))


def measured(series: pl.Series) -> Floats:
    """A column of numbers or moments as float32[n] from 0, the least, to 1, the greatest; NaN where missing."""
    dtype = series.dtype
    if dtype.is_temporal():
        series = series.to_physical()
    elif isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        series = series.cast(pl.String).str.strip_chars()  # the number of a category is no value
    elif not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        return np.full(len(series), np.nan, np.float32)
    values = series.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().copy()
    finite = values[np.isfinite(values)]
    if not len(finite):
        values, finite = np.sign(values), np.array([-1.0, 1.0])  # only infinities: those of one sign are alike
    values = values.clip(finite.min(), finite.max()) / 2  # halves, as the range itself can exceed a float
    low, high = finite.min() / 2, finite.max() / 2
    # In 64 bits up to here: moments in microseconds have more digits than 32 bits hold.
    scaled = (values - low) / (high - low) if high > low else values * 0
    return np.asarray(scaled, dtype=np.float32)


def _named(series: pl.Series) -> npt.NDArray[np.int64]:
    """A number for each different text, -1 where missing."""
    # A text that says "nan" is a value; a float that is NaN differs from itself.
    texts = ["" if value is None or value != value else code_of(value) for value in series.to_list()]
    codes = {text: code for code, text in enumerate(dict.fromkeys(text for text in texts if text))}
    return np.array([codes.get(text, -1) for text in texts], dtype=np.int64)
