"""A table's columns as other libraries take them: numbers and categories."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.columns import code_of
from erasmo_dagster.method.gower import measured
from erasmo_dagster.method.textual import TextPlan

MEASURED, NAMED = ("number", "datetime"), ("category", "boolean")
MISSING = "(missing)"


@dataclass(frozen=True, eq=False)
class Parts:
    """``numbers`` float64[n, p]: numbers and moments, each of mean 0 and variance 1, the mean where missing.

    ``categories`` object[n, q]: texts of categories and truth values, ``(missing)`` where missing.
    """

    numbers: npt.NDArray[np.float64]
    categories: npt.NDArray[np.object_]


def parts(frame: pl.DataFrame, plan: TextPlan) -> Parts:
    """The columns that vary of ``frame``, by the kinds that ``plan`` gives them. Raises ErasmoError where none is."""
    numbers: list[npt.NDArray[np.float64]] = []
    categories: list[npt.NDArray[np.object_]] = []
    for column in plan.columns:
        if column.kind in MEASURED:
            values = measured(frame[column.name]).astype(np.float64)
            present = values[~np.isnan(values)]
            if len(present) and (spread := present.std()) > 0:
                numbers.append(np.nan_to_num((values - present.mean()) / spread))
        elif column.kind in NAMED:
            texts = np.array([_text(value) for value in frame[column.name].to_list()], dtype=object)
            if len(set(texts.tolist())) > 1:
                categories.append(texts)
    if not numbers and not categories:
        raise no_column()
    none: tuple[int, int] = (frame.height, 0)
    return Parts(
        np.stack(numbers, axis=1) if numbers else np.empty(none, np.float64),
        np.stack(categories, axis=1) if categories else np.empty(none, object),
    )


def no_column() -> ErasmoError:
    """For a table that a method can do nothing with."""
    return ErasmoError("Got no column it can use", expected="at least one that is no text")


def _text(value: object) -> str:
    return MISSING if value is None or value != value else code_of(value) or MISSING
