"""What notebooks hold as a table of columns with types: frames, arrays, lists, and plain texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

TEXT = "text"  # the column of plain texts


def as_frame(data: Any) -> pl.DataFrame | None:
    """A frame of polars, pandas or Arrow with its names and types; None for what is none."""
    if isinstance(data, pl.LazyFrame):
        return data.collect()
    if isinstance(data, pl.DataFrame):
        return data
    # A series has the one and not the other.
    return pl.DataFrame(data) if hasattr(data, "columns") and hasattr(data, "__arrow_c_stream__") else None


def as_texts(data: Any) -> pl.DataFrame | None:
    """A list, array or series of nothing but strings and missing values as the column `text`; None for others."""
    if isinstance(data, pl.Series) or getattr(data, "ndim", None) == 1:
        data = data.to_list() if hasattr(data, "to_list") else data.tolist()
    elif not isinstance(data, (list, tuple)):
        return None
    values = [None if _is_missing(value) else value for value in data]
    known = [value for value in values if value is not None]
    if not known or not all(isinstance(value, str) for value in known):
        return None
    return pl.DataFrame({TEXT: pl.Series(values, dtype=pl.String)})


def frame_of_array(array: np.ndarray, names: Sequence[str] | None = None) -> pl.DataFrame:
    """The columns of ``array`` [n, d] under ``names``, by default x0, x1, …; of objects, each by its own values."""
    names = [f"x{i}" for i in range(array.shape[1])] if names is None else names
    return pl.DataFrame([_column(name, array[:, i]) for i, name in enumerate(names)])


def _column(name: str, values: np.ndarray) -> pl.Series:
    if values.dtype.kind != "O":
        return pl.Series(name, np.ascontiguousarray(values))
    listed = [None if _is_missing(value) else value for value in values.tolist()]
    try:
        return pl.Series(name, listed)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):  # of several types: each is written by its own
        return pl.Series(name, listed, dtype=pl.Object)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)
