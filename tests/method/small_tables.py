"""Tables of a few rows, and their settings, for the tests of text."""

import datetime as dt
import math
from typing import Any

import polars as pl

from erasmo_dagster.settings import DatasetSettings


def dataset(**options: Any) -> DatasetSettings:
    return DatasetSettings.model_validate({"source": {"path": "table.csv"}, "key": "id", **options})


def frame(**columns: Any) -> pl.DataFrame:
    height = len(next(iter(columns.values())))
    return pl.DataFrame({"id": list(range(height)), **columns})


def people() -> pl.DataFrame:
    return frame(
        sex=[1, 0, None, 1],
        age_years=[41, 29, 60, 35],
        income=[1200.5, math.nan, 1e20, 1 / 3],
        note=["said\n  \t hello", "", "a, b is c", None],
        member=[True, False, True, True],
        since=[dt.date(1899, 12, 31), dt.date(2021, 3, 4), None, dt.date(1, 1, 1)],
        group=["a", "b", "a", "b"],
    )
