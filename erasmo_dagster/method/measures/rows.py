"""Which rows a figure is measured on, and their columns as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.gower import text_columns
from erasmo_dagster.method.profiling.prepare import Column, prepare

Ints = npt.NDArray[np.int64]
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Estimate:
    """A figure of a sample of ``rows`` rows with the standard error of sampling them; 0 where nothing was sampled."""

    value: float
    error: float
    rows: int


@dataclass(frozen=True, eq=False)
class Segmented:
    """Rows that are in segments: their positions, and the place of each one's segment among ``ids``, all int64."""

    rows: Ints
    segments: Ints
    ids: tuple[int, ...]


def in_segments(labels: Labels, height: int) -> Ints:
    """The positions of the rows that are no noise (-1): int64[m], ascending.

    Raises ValueError where there is not one label a row of ``height``.
    """
    if labels.shape != (height,):
        raise ValueError(f"got labels of shape {labels.shape} for {height} rows")
    return np.flatnonzero(labels >= 0).astype(np.int64)


def segmented(labels: Labels, height: int, *, seed: int, most: int) -> Segmented | None:
    """At most ``most`` of the rows in segments, drawn by ``seed``, in random order.

    None where fewer than two segments are among them, or as many as rows: nothing is told apart then. Raises ValueError
    where there is not one label a row of ``height``.
    """
    rows = np.random.default_rng(seed).permutation(in_segments(labels, height))[:most]
    ids, segments = np.unique(labels[rows], return_inverse=True)
    if not 2 <= len(ids) < len(rows):
        return None
    return Segmented(rows, segments.astype(np.int64), tuple(int(i) for i in ids))


def told_columns(frame: pl.DataFrame, columns: Sequence[ColumnPlan], rows: Ints) -> list[Column]:
    """The columns of ``rows`` int64[m] as arrays, as profiles read them, but sensitive ones among them.

    Nested ones are left out, and long texts are cut (:func:`erasmo_dagster.method.gower.text_columns`).
    """
    plain = [column.model_copy(update={"sensitive": False}) for column in columns if column.kind != "nested"]
    if not plain:
        return []  # a frame without columns has no rows to take
    taken = frame.select(column.name for column in plain)[rows]
    return prepare(text_columns(taken, plain), plain)
