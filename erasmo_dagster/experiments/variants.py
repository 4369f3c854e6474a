"""Samples and changes of a table, seeded. The key, the label and what is dropped stay as they are in every row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.experiments.settings import Variant
from erasmo_dagster.method.textual import TextPlan
from erasmo_dagster.settings import ColumnSettings, DatasetSettings

# Rows and changes are the same for every seed of a grid, so that all its cells are about the same tables.
SEED = 0
CORRELATED_NOISE = 0.1
_AS_THEY_ARE = ("text", "nested")


@dataclass(frozen=True, eq=False)
class Changed:
    """A table after a variant's changes; ``before`` holds the same rows without them, for what judges segments.

    ``settings`` name the columns that were added.
    """

    frame: pl.DataFrame
    before: pl.DataFrame
    settings: DatasetSettings


def sampled(frame: pl.DataFrame, rows: int | None, label: str | None, *, seed: int = SEED) -> pl.DataFrame:
    """At most ``rows`` of ``frame``, in its order; with ``label``, every label's share is kept, to a row."""
    if rows is None or frame.height <= rows:
        return frame
    order = np.random.default_rng(seed).permutation(frame.height)
    if label is not None:
        groups = frame[label].cast(pl.String).to_numpy()[order].astype(str)
        order = order[_stratified(groups, rows)]
    return frame[np.sort(order[:rows])]


def _stratified(groups: npt.NDArray[np.str_], rows: int) -> npt.NDArray[np.intp]:
    """Positions in which the first ``rows`` have every group by its share."""
    _, group, counts = np.unique(groups, return_inverse=True, return_counts=True)
    # The i-th of a group's n rows comes at (i + 1/2) / n of the whole: any first part has the shares.
    by_group = np.argsort(group, kind="stable")
    place = np.empty(len(groups), dtype=np.int64)
    starts = np.cumsum(counts) - counts
    place[by_group] = np.arange(len(groups)) - np.repeat(starts, counts)
    return np.argsort((place + 0.5) / counts[group], kind="stable")


def changed(frame: pl.DataFrame, variant: Variant, settings: DatasetSettings, plan: TextPlan) -> Changed:
    """``frame`` as ``variant`` has it; ``plan`` tells the kinds of its columns."""
    frame = before = sampled(frame, variant.rows, None, seed=SEED + 1)
    features = [column.name for column in plan.columns]
    rng = np.random.default_rng(SEED)
    for amount, noise in ((variant.duplicate_columns, None), (variant.correlated_columns, CORRELATED_NOISE)):
        if amount:
            frame, settings = _with_copies(frame, settings, plan, rng, amount, noise)
    if variant.noise is not None:
        frame = frame.with_columns(_noisy(frame[name], _kind(plan, name), variant.noise, rng) for name in features)
    if variant.missing is not None:
        added = [name for name in frame.columns if name not in before.columns]
        for name in (*features, *added):
            gone = pl.Series(rng.random(frame.height) < variant.missing)
            frame = frame.with_columns(pl.when(~gone).then(pl.col(name)).alias(name))
    return Changed(frame, before, settings)


def _with_copies(
    frame: pl.DataFrame,
    settings: DatasetSettings,
    plan: TextPlan,
    rng: np.random.Generator,
    amount: int,
    noise: float | None,
) -> tuple[pl.DataFrame, DatasetSettings]:
    """The table with copies of ``amount`` of its columns, drawn at random, none twice before each was drawn once."""
    names = [column.name for column in plan.columns]
    drawn: list[str] = []
    while len(drawn) < amount:
        drawn += [names[i] for i in rng.permutation(len(names))]
    columns, sensitive = dict(settings.columns), list(settings.sensitive)
    for original in drawn[:amount]:
        name = _free(f"{original} again", frame.columns)
        series = frame[original]
        if noise is not None:
            series = _noisy(series, _kind(plan, original), noise, rng)
        frame = frame.with_columns(series.alias(name))
        own = columns.get(original, ColumnSettings())
        # A name of its own: two columns with one name are refused.
        columns[name] = own.model_copy(update={"name": _free(f"{own.name} again", _names(columns))} if own.name else {})
        if original in sensitive:
            sensitive.append(name)
    return frame, settings.model_copy(update={"columns": columns, "sensitive": tuple(sensitive)})


def _names(columns: dict[str, ColumnSettings]) -> list[str]:
    return [column.name for column in columns.values() if column.name]


def _free(name: str, taken: Sequence[str]) -> str:
    found, n = name, 2
    while found in taken:
        found, n = f"{name} {n}", n + 1
    return found


def _kind(plan: TextPlan, name: str) -> str:
    return next(column.kind for column in plan.columns if column.name == name)


def _noisy(series: pl.Series, kind: str, amount: float, rng: np.random.Generator) -> pl.Series:
    """A column with noise of its own kind; missing values stay missing, whole numbers whole."""
    if kind in _AS_THEY_ARE:
        return series
    if kind == "number" and series.dtype.is_numeric():
        values = series.cast(pl.Float64).to_numpy(allow_copy=True)
        finite = values[np.isfinite(values)]
        moved = values + amount * (finite.std() if len(finite) else 0.0) * rng.standard_normal(len(values))
        noisy = pl.Series(series.name, moved).set(series.is_null(), None)
        if series.dtype.is_integer():
            noisy = noisy.round().clip(*_bounds(series)).cast(series.dtype)
        elif series.dtype.is_decimal():
            noisy = noisy.clip(*_bounds(series)).cast(series.dtype)
        else:
            noisy = noisy.cast(series.dtype)
        return noisy
    others = series[rng.integers(len(series), size=len(series))]
    replaced = pl.Series(rng.random(len(series)) < amount) & series.is_not_null() & others.is_not_null()
    return others.zip_with(replaced, series).alias(series.name)


def _bounds(series: pl.Series) -> tuple[float, float]:
    """The least and the greatest value, within which a number fits its type again."""
    values = series.cast(pl.Float64)
    return float(values.min() or 0.0), float(values.max() or 0.0)  # type: ignore[arg-type]
